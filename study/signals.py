"""Process signals that take the place of RePro's own: controls, rivals, and forms of credit.

Each is a class put before a trainer, and changes one thing in it, so that everything else (boundaries, J,
normalisation, weight, loss) stays the same.
"""

import torch
from torch import Tensor

from repro_trl.method.advantage import segment_credit
from repro_trl.trainers.hook import Rollout
from repro_trl.trainers.policy_scorer import BatchScores

NUM_GENERATIONS = 8
"""Completions of one prompt, side by side in a batch."""


class ConstantRewards:
    """Control (a): no J. Fixed rewards for the first, the last and the other segments, on RePro's own boundaries."""

    FIRST, MIDDLE, LAST = 0.35, 0.02, 0.5

    def segment_rewards(self, objective: Tensor, scores: Tensor, boundary_mask: Tensor) -> Tensor:
        mask = boundary_mask[:, 1:]
        rewards = torch.full_like(objective[:, 1:], self.MIDDLE)
        rewards[:, :1] = self.FIRST
        return rewards.masked_fill(last_segments(mask), self.LAST).masked_fill(~mask, 0.0)


class ShuffledRewards:
    """Control (b): RePro's own normalised rewards, dealt out anew at random among the segments of each completion."""

    def token_advantages(self, normalized: Tensor, segment_mask: Tensor, ends: Tensor, length: int) -> Tensor:
        return super().token_advantages(shuffle(normalized, segment_mask), segment_mask, ends, length)


class ObjectiveDifferences:
    """Reward r_j = J_j − J_{j−1}, in nats per token: no tanh, no stability score, and equal gains count the same
    wherever they are made. On a segment's own tokens it is the temporal difference of J as a value function.
    """

    def segment_rewards(self, objective: Tensor, scores: Tensor, boundary_mask: Tensor) -> Tensor:
        return objective.diff(dim=1).masked_fill(~boundary_mask[:, 1:], 0.0)


class PotentialShaping:
    """Potential-based shaping with J as the potential, 0 at the end of the thought: r_j = J_j − J_{j−1}, and the last
    −J_{T−1}. Summed to the end, a segment's credit is −J at its start, which its own tokens cannot change: what is
    best under the outcome stays best. What remains of J is a baseline that differs from segment to segment; its mean
    over the batch is taken off.
    """

    def segment_rewards(self, objective: Tensor, scores: Tensor, boundary_mask: Tensor) -> Tensor:
        mask = boundary_mask[:, 1:]
        return (objective[:, 1:].masked_fill(last_segments(mask), 0.0) - objective[:, :-1]).masked_fill(~mask, 0.0)

    def token_advantages(self, normalized: Tensor, segment_mask: Tensor, ends: Tensor, length: int) -> Tensor:
        rewards = normalized.masked_fill(~segment_mask, 0.0)
        credit = rewards.flip(1).cumsum(1).flip(1)
        credit = credit - credit[segment_mask].mean().nan_to_num()
        return segment_credit(credit, segment_mask, ends, length)


class DiscountedRewardToGo:
    """Between "to_go" and "segment": credit_j = r̂_j + γ credit_{j+1}, discounted per segment."""

    GAMMA = 0.5

    def token_advantages(self, normalized: Tensor, segment_mask: Tensor, ends: Tensor, length: int) -> Tensor:
        credit = normalized.masked_fill(~segment_mask, 0.0).clone()
        for index in range(credit.shape[1] - 2, -1, -1):
            credit[:, index] += self.GAMMA * credit[:, index + 1]
        return segment_credit(credit, segment_mask, ends, length)


class ProbabilityChanges:
    """The signal of GRPO-VPS (arXiv 2604.20659): each segment is credited with the change it makes in the probability
    of the right answer, asked at its boundary. Here of one answer token, exp(J), so that long answers count as short
    ones do.
    """

    def segment_rewards(self, objective: Tensor, scores: Tensor, boundary_mask: Tensor) -> Tensor:
        return objective.exp().diff(dim=1).masked_fill(~boundary_mask[:, 1:], 0.0)


class PropagatedChanges(ProbabilityChanges):
    """The signal of VSRM (arXiv 2508.10293) as far as J alone gives it: where a segment changes the chance of a right
    answer, that change; where it changes nothing, the next change that comes, discounted by `DECAY` a segment, so that
    preparing a step is paid and idling is not. VSRM measures the chance by sampling answers at every boundary; exp(J)
    stands in for it.
    """

    THRESHOLD, DECAY = 0.02, 0.7

    def segment_rewards(self, objective: Tensor, scores: Tensor, boundary_mask: Tensor) -> Tensor:
        rewards = super().segment_rewards(objective, scores, boundary_mask)
        later = torch.zeros_like(rewards[:, 0])
        for index in range(rewards.shape[1] - 1, -1, -1):
            later = torch.where(rewards[:, index].abs() < self.THRESHOLD, self.DECAY * later, rewards[:, index])
            rewards[:, index] = later
        return rewards.masked_fill(~boundary_mask[:, 1:], 0.0)


class MinimumToGo:
    """Min-form credit (PURE, arXiv 2504.15275): a segment is worth the worst that comes from it on, in place of the
    sum. A minimum lies below the mean; the mean over the batch is taken off.
    """

    def token_advantages(self, normalized: Tensor, segment_mask: Tensor, ends: Tensor, length: int) -> Tensor:
        rewards = normalized.masked_fill(~segment_mask, torch.inf)
        credit = rewards.flip(1).cummin(1).values.flip(1)
        return segment_credit(credit - credit[segment_mask].mean(), segment_mask, ends, length)


class RankedRewards:
    """Ranks of r among all segments of the same prompt, brought to mean 0 and deviation 1, in place of z-scores: an
    outlier counts no more than its place.
    """

    def token_advantages(self, normalized: Tensor, segment_mask: Tensor, ends: Tensor, length: int) -> Tensor:
        ranked = torch.zeros_like(normalized)
        for first in range(0, len(normalized), NUM_GENERATIONS):
            mask = segment_mask[first : first + NUM_GENERATIONS]
            values = normalized[first : first + NUM_GENERATIONS][mask]
            ranks = (values.unsqueeze(0) < values.unsqueeze(1)).sum(dim=1) / 1.0  # ties share the lowest
            ranks += (values.unsqueeze(0) == values.unsqueeze(1)).sum(dim=1) / 2
            ranked[first : first + NUM_GENERATIONS][mask] = (ranks - ranks.mean()) / (ranks.std() + 1e-4)
        return super().token_advantages(ranked, segment_mask, ends, length)


class AveragedPolicy:
    """J of the exponential average of the policy's weights over the steps so far, in place of the newest weights: less
    noise from single steps, at the price of lagging behind. The average stands in for the policy while answers are
    scored, and only then.
    """

    DECAY = 0.7
    """Weight of the earlier average; the newest weights have the rest."""

    _average: dict[str, Tensor] | None = None

    def _measure(self, rollout: Rollout) -> BatchScores:
        weights = dict(self.model.named_parameters())
        newest = {name: weight.detach().clone() for name, weight in weights.items()}
        if self._average is None:
            self._average = {name: weight.clone() for name, weight in newest.items()}
        for name, weight in newest.items():
            self._average[name].lerp_(weight, 1 - self.DECAY)
        try:
            _assign(weights, self._average)
            return super()._measure(rollout)
        finally:
            _assign(weights, newest)


@torch.no_grad()
def _assign(weights: dict[str, Tensor], values: dict[str, Tensor]) -> None:
    for name, weight in weights.items():
        weight.copy_(values[name])


def last_segments(mask: Tensor) -> Tensor:
    """(B, S) bool: the last unmasked, left-aligned column of each row."""
    return mask & (mask.long().cumsum(dim=1) == mask.sum(dim=1, keepdim=True))


def shuffle(rewards: Tensor, mask: Tensor) -> Tensor:
    """(B, S) `rewards` permuted at random within the unmasked, left-aligned columns of each row."""
    keys = torch.rand(rewards.shape, device=rewards.device).masked_fill(~mask, 2.0)  # masked columns stay last
    return rewards.gather(1, keys.argsort(dim=1))
