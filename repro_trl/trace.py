"""The record of scored rollouts that metrics, logs, viewer and reports read."""

from dataclasses import dataclass

from torch import Tensor


@dataclass
class ScoredRollouts:
    """
    What RePro measured on B completions, batch first. M boundaries make M - 1 segments; rows with fewer are padded on
    the right, rows that were not scored are all padding.

    Attributes:
        boundaries: (B, M) int, completion tokens before each boundary (METHOD §2); padding repeats the last one.
        boundary_mask: (B, M) bool.
        entropies: (B, M) nats, H of the distribution that wrote the token after each boundary (METHOD §2.3); 0 at the
            first and the last boundary of a row and in padding.
        objective: (B, M) J at each boundary, nats per answer token (METHOD §3); 0 in padding.
        magnitude: (B, M) S_magn, in (0, 1] (METHOD §4); 0 in padding.
        stability: (B, M) S_stab, in [0, 1]; 0 at the first boundary and in padding.
        process_rewards: (B, M - 1) r of each segment; 0 in padding.
        normalized_rewards: (B, M - 1) r after METHOD §5.1.
        advantages: (B, T) token advantage before the weight alpha (METHOD §5.2).
    """

    boundaries: Tensor
    boundary_mask: Tensor
    entropies: Tensor
    objective: Tensor
    magnitude: Tensor
    stability: Tensor
    process_rewards: Tensor
    normalized_rewards: Tensor
    advantages: Tensor

    @property
    def segment_mask(self) -> Tensor:
        """(B, M - 1) bool: the segments that exist."""
        return self.boundary_mask[:, 1:]

    @property
    def scored(self) -> Tensor:
        """(B,) bool: completions with at least one segment."""
        return self.segment_mask.any(dim=1)
