"""From J at the boundaries to the advantage of each token: the one way that training and the commands take."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from ..config import ReproConfigMixin
from .advantage import normalize_rewards, reward_to_go, segment_credit
from .measure import Objectives
from .process_reward import combine_scores, magnitude_score, score_gains, stability_score


@dataclass
class ScoredRollouts(Objectives):
    """
    What RePro measured on B completions, batch first: `Objectives`, and what follows from them. M boundaries make
    M - 1 segments.

    Attributes:
        magnitude: (B, M) S_magn, in (0, 1] (METHOD §4); 0 in padding.
        stability: (B, M) S_stab, in [0, 1]; 0 at the first boundary and in padding.
        scores: (B, M) S; 0 in padding.
        process_rewards: (B, M - 1) r of each segment; 0 in padding.
        normalized_rewards: (B, M - 1) r after METHOD §5.1.
        advantages: (B, T) token advantage before the weight alpha (METHOD §5.2).
    """

    magnitude: Tensor
    stability: Tensor
    scores: Tensor
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


def spread_rewards(
    normalized: Tensor, segment_mask: Tensor, ends: Tensor, length: int, settings: ReproConfigMixin
) -> Tensor:
    """(B, T) advantage of each token (METHOD §5.2), from r̂ (B, M - 1) of segments that end at `ends`."""
    spread = segment_credit if settings.repro_credit == "segment" else reward_to_go
    return spread(normalized, segment_mask, ends, length)


def reward_completions(
    objectives: Objectives,
    settings: ReproConfigMixin,
    groups: Tensor,
    length: int,
    normalize: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None,
    segment_rewards: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None,
    token_advantages: Callable[[Tensor, Tensor, Tensor, int], Tensor] | None = None,
) -> ScoredRollouts:
    """
    METHOD §4 to §5.2: scores, rewards and advantages of B completions.

    Args:
        objectives: all finite.
        settings: RePro's.
        groups: (B,) int, completions of one prompt share an id.
        length: T, completion tokens.
        normalize: takes r (B, M - 1), its mask and the groups, returns r̂. The default knows these completions only;
            with several processes it is where they exchange their rewards.
        segment_rewards: takes J, S (both (B, M)) and the boundary mask, returns r (B, M - 1); default S_j − S_{j−1}.
        token_advantages: takes r̂, its mask, the segments' ends (B, M - 1) and T, returns Ã (B, T); default
            `spread_rewards`.
    """
    objective, mask = objectives.objective, objectives.boundary_mask
    segment_mask, ends = mask[:, 1:], objectives.boundaries[:, 1:]
    magnitude = magnitude_score(objective, mask)
    stability = stability_score(objective, mask, settings.repro_ema_weight)
    scores = combine_scores(magnitude, stability, settings.repro_stability_weight, settings.repro_baseline_score)
    rewards = score_gains(scores, mask) if segment_rewards is None else segment_rewards(objective, scores, mask)
    if normalize is None:
        normalized = normalize_rewards(rewards, segment_mask, groups, settings.repro_scale, settings.repro_center)
    else:
        normalized = normalize(rewards, segment_mask, groups)
    if token_advantages is None:
        advantages = spread_rewards(normalized, segment_mask, ends, length, settings)
    else:
        advantages = token_advantages(normalized, segment_mask, ends, length)
    return ScoredRollouts(
        **vars(objectives),
        magnitude=magnitude,
        stability=stability,
        scores=scores,
        process_rewards=rewards,
        normalized_rewards=normalized,
        advantages=advantages,
    )
