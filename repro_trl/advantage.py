"""Advantages (METHOD §5) and the outcome estimators of PPO and REINFORCE++: pure tensor functions.

Masks are bool, and what stands at masked positions is never read. Outputs have the dtype (float32 or float64) and
device of their first argument. Nothing here knows of processes: where a statistic is global, the caller gathers what
it is made from.

Sources: process supervision with group normalisation and reward-to-go, DeepSeekMath §4.1.3 (arXiv 2402.03300);
generalised advantage estimation, Schulman et al. 2016 (arXiv 1506.02438); token returns whitened over the global
batch, REINFORCE++ (arXiv 2501.03262).
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
    segments: what all of them get by their place, whatever they say, is no longer credit. A segment without a
    counterpart of its index gets 0.

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

    Credit is then as local as the reward, where `reward_to_go` adds to each token what all later segments earned. It
    is no longer a return: a segment that undoes good work pays for itself alone, and where segments are merged
    because fewer starts are kept than there are, the merged ones pay for everything in them alike.

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


def sequence_ratio_log_probs(log_probs: Tensor, old_log_probs: Tensor, mask: Tensor) -> Tensor:
    """
    Old log-probabilities that turn a loss on token ratios into GSPO-token (arXiv 2507.18071, §4.3).

    With them exp(log_probs − result) is, at every token, the sequence's ratio s = exp(mean(log π − log π_old)), and
    its gradient is s · ∇log π of that token alone.

    Args:
        log_probs: (B, T) of the policy, with gradient.
        old_log_probs: (B, T) of the policy that wrote the tokens.
        mask: (B, T) bool, tokens that count.

    Returns:
        (B, T), without gradient.
    """
    log_probs = log_probs.detach()
    log_ratio = (log_probs - old_log_probs.detach()).masked_fill(~mask, 0.0)
    return log_probs - log_ratio.sum(dim=1, keepdim=True) / mask.sum(dim=1, keepdim=True).clamp(min=1)


def gae(
    rewards: Tensor,
    values: Tensor,
    mask: Tensor,
    gamma: float,
    lam: float,
    bootstrap_values: Tensor | None = None,
) -> Tensor:
    """Generalised advantage estimation (Schulman et al. 2016): A_t = δ_t + γλ A_{t+1}, δ_t = r_t + γ V_{t+1} − V_t.

    Masked tokens (padding, tool output) are no time steps: t+1 is the next unmasked token.

    Args:
        rewards: (B, T) float, reward of each token.
        values: (B, T) float, critic's value before each token.
        mask: (B, T) bool, True at tokens that the policy wrote.
        gamma: discount γ in [0, 1].
        lam: λ in [0, 1]; 1 gives return minus value, 0 the TD error δ.
        bootstrap_values: (B,) float, value after the last unmasked token, for completions that were cut off;
            default 0, as after an end.

    Returns:
        (B, T) advantages; masked → 0. The critic's targets are `advantages + values`.
    """
    steps = _time_steps(mask)
    rewards, values = _pack(rewards, steps), _pack(values, steps)
    next_values = pad(values, (0, 1))
    if bootstrap_values is not None:
        count = mask.sum(dim=1, keepdim=True)
        next_values = next_values.scatter(1, count, bootstrap_values.to(values.dtype).unsqueeze(1))
    deltas = rewards + gamma * next_values[:, 1:] - values
    return _unpack(_discounted_sum(deltas, gamma * lam), steps)


def discounted_returns(rewards: Tensor, mask: Tensor, gamma: float) -> Tensor:
    """Discounted reward-to-go of each token: G_t = r_t + γ G_{t+1}; t+1 is the next unmasked token.

    Args:
        rewards: (B, T) float, reward of each token.
        mask: (B, T) bool, True at tokens that the policy wrote.
        gamma: discount γ in [0, 1].

    Returns:
        (B, T); masked → 0.
    """
    steps = _time_steps(mask)
    return _unpack(_discounted_sum(_pack(rewards, steps), gamma), steps)


def masked_moments(values: Tensor, mask: Tensor) -> Tensor:
    """Count, mean and sum of squared deviations of the unmasked values, for `masked_whiten`.

    Args:
        values: (B, T) float.
        mask: (B, T) bool.

    Returns:
        (3,). For global statistics gather the triples of all processes into (N, 3). Unlike plain sums of squares
        they lose no digits where the mean is large.
    """
    weights = mask.to(values.dtype)
    values = values.masked_fill(~mask, 0.0)
    mean = _weighted_mean(values, weights)
    return torch.stack([weights.sum(), mean, (weights * (values - mean) ** 2).sum()])


def masked_whiten(values: Tensor, mask: Tensor, moments: Tensor | None = None, shift_mean: bool = True) -> Tensor:
    """Whiten to mean 0 and variance 1: (x − mean) / sqrt(var + 1e-8), with the sample variance (n−1).

    REINFORCE++ and PPO use it over all tokens of the *global* batch, as opposed to each prompt's group.

    Args:
        values: (B, T) float.
        mask: (B, T) bool, True at the tokens that count.
        moments: (3,) or (N, 3) from `masked_moments`, of one or of N processes; default those of `values`.
        shift_mean: False keeps the mean and scales only the deviations from it.

    Returns:
        (B, T); masked → 0. With fewer than two unmasked values the variance counts as 0.
    """
    if moments is None:
        moments = masked_moments(values, mask)
    counts, means, deviations = moments.reshape(-1, 3).unbind(dim=1)
    mean = _weighted_mean(means, counts)
    # Parallel variance (Chan et al. 1979): deviations within the processes plus those of their means.
    total_deviation = deviations.sum() + (counts * (means - mean) ** 2).sum()
    variance = total_deviation / (counts.sum() - 1).clamp(min=1)
    whitened = (values - mean) * torch.rsqrt(variance + 1e-8)
    if not shift_mean:
        whitened = whitened + mean
    return whitened.masked_fill(~mask, 0.0)


def _weighted_mean(values: Tensor, weights: Tensor) -> Tensor:
    total = weights.sum().clamp(min=1)
    mean = (weights * values).sum() / total
    # As in normalize_rewards: the residual of the first mean would show where all values are equal.
    return mean + (weights * (values - mean)).sum() / total


def _time_steps(mask: Tensor) -> Tensor:
    """(B, T) index of each unmasked token among its row's unmasked tokens; T, one past any step, for masked ones."""
    return (mask.long().cumsum(dim=1) - 1).masked_fill(~mask, mask.shape[1])


def _pack(values: Tensor, steps: Tensor) -> Tensor:
    """(B, T) by token -> (B, T) by time step, zero after the last one."""
    length = values.shape[1]
    packed = values.new_zeros(len(values), length + 1).scatter(1, steps, values)
    return packed[:, :length]


def _unpack(values: Tensor, steps: Tensor) -> Tensor:
    """(B, T) by time step -> (B, T) by token, zero at masked ones."""
    return pad(values, (0, 1)).gather(1, steps)


def _discounted_sum(values: Tensor, discount: float) -> Tensor:
    """y_t = Σ_{i≥t} discount^(i−t) x_i over dim 1, by doubling the window: log T steps instead of T."""
    window = 1
    while window < values.shape[1]:
        values = values + discount**window * pad(values[:, window:], (0, window))
        window *= 2
    return values
