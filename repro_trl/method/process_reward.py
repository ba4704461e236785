"""Process rewards from the proxy objective (METHOD §4): pure tensor functions, no model, no trainer.

Every function takes the proxy objective J as `objective` (B, M), in nats per token and ≤ 0, at the M boundaries of B
completions, with `objective[:, 0]` = J_0, and a bool `mask` (B, M), True at real boundaries, left-aligned. What
stands at masked positions is never read. Outputs have the dtype (float32 or float64) and device of `objective`.

An infinite J is the limit of a very low one and never yields NaN: J_t = −inf gives magnitude 0, J_0 = −inf gives
magnitude 1 at every finite J_t, and J_t = J_0 = −inf means that nothing was gained. NaN stays NaN.
"""

import torch
from torch import Tensor


def _bounded(objective: Tensor) -> Tensor:
    # Finite, so that no difference or quotient is NaN; and not above 0, where rounding may put a sure answer.
    return objective.clamp(min=torch.finfo(objective.dtype).min, max=0.0)


def magnitude_score(objective: Tensor, mask: Tensor) -> Tensor:
    """How much surer of the answer the policy is than without reasoning: 1 − tanh(J_t / J_0), METHOD §4.

    Args:
        objective: (B, M) float, proxy objective J.
        mask: (B, M) bool, left-aligned.

    Returns:
        (B, M) in [0, 1]: 1 for a certain answer, 1 − tanh 1 ≈ 0.238 at t = 0 and wherever nothing is gained; 1 also
        where J_t = J_0 = 0; masked → 0.
    """
    objective = _bounded(objective)
    # The smallest normal number: any larger guard would change the score of a J_0 that is merely small.
    baseline = objective[:, :1].clamp(max=-torch.finfo(objective.dtype).tiny)
    return (1 - torch.tanh(objective / baseline)).masked_fill(~mask, 0.0)


def stability_score(objective: Tensor, mask: Tensor, ema_weight: float | None = None) -> Tensor:
    """How steadily J has risen so far: (τ_t + 1) / 2 with Kendall's tau-a of (0..t) and (J_0..J_t), METHOD §4.

    Args:
        objective: (B, M) float, proxy objective J.
        mask: (B, M) bool, left-aligned.
        ema_weight: λ in (0, 1] of the smoothing J'_t = λ J_t + (1−λ) J'_{t−1} done before τ; `None` for none.

    Returns:
        (B, M) in [0, 1]: 1 where J rose at every step, 0 where it fell at every step, tied pairs count as neither;
        column 0, where τ is undefined, and masked → 0.

    Raises:
        ValueError: `ema_weight` outside (0, 1].
    """
    if ema_weight is not None and not 0 < ema_weight <= 1:
        raise ValueError(f"ema_weight must be in (0, 1], or None for no smoothing; got {ema_weight}.")
    objective = _bounded(objective)
    if ema_weight is not None:
        objective = _smooth(objective, ema_weight)
    # τ_t is a running sum over its last index: one column at a time keeps the memory at B·M for any M.
    concordance = torch.zeros_like(objective)
    for t in range(1, objective.shape[1]):
        rises = torch.sign(objective[:, t : t + 1] - objective[:, :t]).sum(dim=1)
        concordance[:, t] = concordance[:, t - 1] + rises
    t = torch.arange(objective.shape[1], device=objective.device, dtype=objective.dtype)
    tau = concordance / (t * (t + 1) / 2).clamp(min=1)
    return ((tau + 1) / 2).masked_fill(~mask | (t == 0), 0.0)


def _smooth(objective: Tensor, weight: float) -> Tensor:
    """Exponential smoothing over dim 1, started at the first column."""
    smoothed = objective.clone()
    for t in range(1, objective.shape[1]):
        # lerp and not λ·J + (1−λ)·J': it leaves equal values equal, where rounding would make up rises and falls.
        smoothed[:, t] = torch.lerp(smoothed[:, t - 1], objective[:, t], weight)
    return smoothed


def scores(
    objective: Tensor,
    mask: Tensor,
    stability_weight: float = 0.1,
    ema_weight: float | None = None,
    baseline_score: str = "zero",
) -> Tensor:
    """S_t = (1−w)·S_magn,t + w·S_stab,t, METHOD §4, with one of two scores before any reasoning:

    - "zero": S_0 := 0, METHOD §4 and the released code. The first segment's reward then holds a constant of about
      (1−w)·0.238 beside what the segment brought.
    - "magnitude": S_0 := (1−w)·S_magn,0 = (1−w)·(1 − tanh 1), the magnitude score of no gain. With w = 0 the first
      segment's reward is what it brought and no more; the stability score, undefined at t = 0, still enters from 0.

    Args:
        objective: (B, M) float, proxy objective J.
        mask: (B, M) bool, left-aligned.
        stability_weight: w in [0, 1].
        ema_weight: see `stability_score`.
        baseline_score: "zero" or "magnitude".

    Returns:
        (B, M) in [0, 1]; column 0 is S_0, masked → 0.

    Raises:
        ValueError: `stability_weight` outside [0, 1], `ema_weight` outside (0, 1], or unknown `baseline_score`.
    """
    magnitude = magnitude_score(objective, mask)
    stability = stability_score(objective, mask, ema_weight)
    return combine_scores(magnitude, stability, stability_weight, baseline_score)


def combine_scores(
    magnitude: Tensor, stability: Tensor, stability_weight: float = 0.1, baseline_score: str = "zero"
) -> Tensor:
    """`scores`, where S_magn and S_stab (B, M) are known already; arguments, result and errors are those of it."""
    if baseline_score not in ("zero", "magnitude"):
        raise ValueError(f'baseline_score must be "zero" or "magnitude", got {baseline_score!r}.')
    if not 0 <= stability_weight <= 1:
        raise ValueError(f"stability_weight must be in [0, 1], got {stability_weight}.")
    score = (1 - stability_weight) * magnitude + stability_weight * stability
    if baseline_score == "zero":
        score[:, :1] = 0.0
    return score


def process_rewards(
    objective: Tensor,
    mask: Tensor,
    stability_weight: float = 0.1,
    ema_weight: float | None = None,
    baseline_score: str = "zero",
) -> Tensor:
    """Process reward of each segment: r_j = S_j − S_{j−1}, METHOD §4.

    Args:
        objective: (B, M) float, proxy objective J.
        mask: (B, M) bool, left-aligned.
        stability_weight: w in [0, 1].
        ema_weight: see `stability_score`.
        baseline_score: S_0, see `scores`.

    Returns:
        (B, M−1), column j−1 for segment j, between boundaries j−1 and j; masked where boundary j is masked → 0.
        (B, 0) for M = 0 or 1. The rewards of a completion add up to its last score less S_0.

    Raises:
        ValueError: as `scores`.
    """
    return score_gains(scores(objective, mask, stability_weight, ema_weight, baseline_score), mask)


def score_gains(score: Tensor, mask: Tensor) -> Tensor:
    """`process_rewards`, where the scores S (B, M) are known already."""
    return (score[:, 1:] - score[:, :-1]).masked_fill(~mask[:, 1:], 0.0)
