"""Advantages (METHOD §5): segment rewards normalised and spread over tokens, as pure tensor functions.

Masks are bool, and what stands at masked positions is never read. Outputs have the dtype (float32 or float64) and
device of their first argument. Nothing here knows of processes: where a statistic is global, the caller gathers what
it is made from.

Source: process supervision with group normalisation and reward-to-go, DeepSeekMath §4.1.3 (arXiv 2402.03300).
"""

import torch
from torch import Tensor
from torch.nn.functional import pad


def normalize_rewards(
    rewards: Tensor, mask: Tensor, groups: Tensor, scale: str = "group", center: str = "group"
) -> Tensor:
    """Normalise process rewards over their group: r̂ = (r − mean) / (std + 1e-4), METHOD §5.1.

    With `center="index"` the mean is that of the j-th segments of the group only, r̂_j = (r_j − mean_j) / (std + 1e-4),
    and std the sample deviation (n−1) of all the group's r_j − mean_j. A first segment is then compared with first
    segments: what all of them get because of their position is no longer credit. A segment without a counterpart of
    its index gets 0.

    Args:
        rewards: (B, S) float, reward of each segment; the rows of all processes, where groups span processes.
        mask: (B, S) bool, True at real segments, in any arrangement.
        groups: (B,) integer, rows of one prompt share an id; any ids in any order. Read for "group" only.
        scale: "group" (over all segments of the rows with the same id), "batch" (over all rows) or "none" (r̂ = r).
        center: "group" (one mean for all that is normalised together) or "index" (one for each segment index, the
            column). Not read where `scale` is "none".

    Returns:
        (B, S); masked → 0. With the sample std (n−1); where there are fewer than two segments to normalise over → 0.

    Raises:
        ValueError: unknown `scale` or `center`.
    """
    if center not in ("group", "index"):
        raise ValueError(f'center must be "group" or "index", got {center!r}.')
    if scale not in ("group", "batch", "none"):
        raise ValueError(f'scale must be "group", "batch" or "none", got {scale!r}.')
    rewards = rewards.masked_fill(~mask, 0.0)
    if scale == "none":
        return rewards
    if scale == "batch":
        groups = torch.zeros_like(groups)
    ids, index = torch.unique(groups, return_inverse=True)

    def column_sums(values: Tensor) -> Tensor:  # (B, S) -> (B, S): of each column over the rows of the group
        sums = values.new_zeros(ids.numel(), values.shape[1]).index_add(0, index, values)
        return sums[index]

    def group_sum(values: Tensor) -> Tensor:  # (B, S) -> (B, 1)
        sums = values.new_zeros(ids.numel()).index_add(0, index, values.sum(dim=1))
        return sums[index].unsqueeze(1)

    sum_to_centre = column_sums if center == "index" else group_sum
    count = sum_to_centre(mask.to(rewards.dtype))
    centred = rewards
    # The second pass removes the rounding error of the first mean, which 1e-4 in the divisor would make visible where
    # all rewards are equal.
    for _ in range(2):
        centred = (centred - sum_to_centre(centred) / count.clamp(min=1)).masked_fill(~mask, 0.0)
    total = group_sum(mask.to(rewards.dtype))
    std = (group_sum(centred**2) / (total - 1).clamp(min=1)).sqrt()
    return centred / (std + 1e-4)  # a single segment is its own mean: 0


def reward_to_go(rewards: Tensor, mask: Tensor, ends: Tensor, length: int) -> Tensor:
    """Spread segment rewards over tokens: Ã_t = Σ of r̂_j over segments whose last token is at or after t, METHOD §5.2.

    Args:
        rewards: (B, S) float, normalised reward r̂ of each segment.
        mask: (B, S) bool, True at real segments.
        ends: (B, S) integer, one past each segment's last token.
        length: number of completion tokens L.

    Returns:
        (B, L); exactly 0 from the last boundary on.

    Raises:
        ValueError: an unmasked end below 0 or beyond `length`.
    """
    ends = ends.masked_fill(~mask, 0)
    _check_ends(ends, length)
    at_end = rewards.new_zeros(len(rewards), length + 1).scatter_add(1, ends.long(), rewards.masked_fill(~mask, 0.0))
    return at_end[:, 1:].flip(1).cumsum(1).flip(1)


def segment_credit(rewards: Tensor, mask: Tensor, ends: Tensor, length: int) -> Tensor:
    """Give every token the reward of its own segment and of no other: Ã_t = r̂_j for the segment j that holds token t.

    Credit is then as local as the reward; `reward_to_go` adds what all later segments earned. It is no longer a
    return: a segment that undoes good work only pays for itself. If fewer starts are kept than there are, segments are
    merged, and all parts of a merged segment get the same credit.

    Args:
        rewards: (B, S) float, normalised reward r̂ of each segment.
        mask: (B, S) bool, left-aligned, True at real segments.
        ends: (B, S) integer, one past each segment's last token, increasing; the first segment begins at token 0.
        length: number of completion tokens L.

    Returns:
        (B, L); exactly 0 from the last boundary on.

    Raises:
        ValueError: an unmasked end below 0 or beyond `length`.
    """
    _check_ends(ends.masked_fill(~mask, 0), length)
    # Token t lies in the segment before which as many segments have ended as at t.
    ends = ends.masked_fill(~mask, length).long().contiguous()
    tokens = torch.arange(length, device=ends.device).expand(len(ends), length).contiguous()
    segment = torch.searchsorted(ends, tokens, right=True)
    return pad(rewards.masked_fill(~mask, 0.0), (0, 1)).gather(1, segment)


def _check_ends(ends: Tensor, length: int) -> None:
    if ((ends < 0) | (ends > length)).any():
        raise ValueError(f"ends must be in [0, length={length}], got {ends.min().item()} to {ends.max().item()}.")
