"""Outcome estimators of PPO and REINFORCE++, and GSPO-token's ratio: pure tensor functions.

Masks are bool, and what stands at masked positions is never read. Outputs have the dtype (float32 or float64) and
device of their first argument. Nothing here knows of processes: where a statistic is global, the caller gathers what
it is made from.

Sources: generalised advantage estimation, Schulman et al. 2016 (arXiv 1506.02438); token returns whitened over the
global batch, REINFORCE++ (arXiv 2501.03262); GSPO-token (arXiv 2507.18071).
"""

import torch
from torch import Tensor
from torch.nn.functional import pad


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


def masked_whiten(values: Tensor, mask: Tensor, moments: Tensor | None = None) -> Tensor:
    """Whiten to mean 0 and variance 1: (x − mean) / sqrt(var + 1e-8), with the sample variance (n−1).

    REINFORCE++ and PPO use it over all tokens of the *global* batch, as opposed to each prompt's group.

    Args:
        values: (B, T) float.
        mask: (B, T) bool, True at the tokens that count.
        moments: (3,) or (N, 3) from `masked_moments`, of one or of N processes; default those of `values`.

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
    return ((values - mean) * torch.rsqrt(variance + 1e-8)).masked_fill(~mask, 0.0)


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
