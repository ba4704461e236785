"""Controls, rivals and forms of credit by themselves, on made-up rewards."""

import pytest
import torch

from study import signals


def test_shuffling_keeps_each_completions_rewards():
    torch.manual_seed(0)
    rewards, mask = torch.randn(40, 6), torch.arange(6) < torch.arange(40)[:, None] % 7
    shuffled = signals.shuffle(rewards.masked_fill(~mask, 0.0), mask)
    assert not shuffled[~mask].any() and not torch.equal(shuffled, rewards.masked_fill(~mask, 0.0))
    for row in range(40):
        assert sorted(shuffled[row][mask[row]].tolist()) == sorted(rewards[row][mask[row]].tolist())


def test_constants_know_only_the_place():
    mask = torch.tensor([[True] * 5, [True, True, True, False, False], [True, True, False, False, False]])
    found = signals.ConstantRewards().segment_rewards(torch.randn(3, 5), torch.randn(3, 5), mask)
    expected = [[0.35, 0.02, 0.02, 0.5], [0.35, 0.5, 0, 0], [0.5, 0, 0, 0]]
    torch.testing.assert_close(found, torch.tensor(expected))


def test_propagated_changes_pay_what_comes_next():
    probabilities = torch.tensor([[0.1, 0.1, 0.11, 0.5, 0.5, 0.4, 0.4], [0.2, 0.2, 0.6, 0.6, 0.0, 0.0, 0.0]])
    mask = torch.tensor([[True] * 7, [True] * 4 + [False] * 3])
    found = signals.PropagatedChanges().segment_rewards(probabilities.clamp(min=1e-6).log(), None, mask)
    decay = signals.PropagatedChanges.DECAY
    expected = [[0.39 * decay**2, 0.39 * decay, 0.39, -0.1 * decay, -0.1, 0], [0.4 * decay, 0.4, 0, 0, 0, 0]]
    torch.testing.assert_close(found, torch.tensor(expected), atol=1e-5, rtol=0)


def test_min_form_credit_is_the_worst_to_come():
    normalized = torch.tensor([[1.0, -2.0, 3.0, 0.5], [2.0, 1.0, 0.0, 0.0]])
    mask = torch.tensor([[True] * 4, [True, True, False, False]])
    ends = torch.tensor([[1, 2, 4, 5], [3, 4, 4, 4]])
    found = signals.MinimumToGo().token_advantages(normalized, mask, ends, 6)
    worst = [[-2, -2, 0.5, 0.5, 0.5], [1, 1, 1, 1]]
    mean = (-2 - 2 + 0.5 + 0.5 + 1 + 1) / 6  # one value a segment
    torch.testing.assert_close(found[0], torch.tensor([value - mean for value in worst[0]] + [0.0]))
    torch.testing.assert_close(found[1], torch.tensor([value - mean for value in worst[1]] + [0.0, 0.0]))


def test_answers_are_scored_by_the_averaged_policy_and_by_nothing_else():
    seen = []

    class Scorer:
        def _measure(self, rollout):
            seen.append(self.model.weight.item())
            if rollout is None:
                raise KeyboardInterrupt

    trainer = type("Averaged", (signals.AveragedPolicy, Scorer), {})()
    trainer.model = torch.nn.Linear(1, 1, bias=False)
    for weight in (1.0, 2.0, 3.0):
        trainer.model.weight.data.fill_(weight)
        if weight < 3:
            trainer._measure("rollout")
        else:
            with pytest.raises(KeyboardInterrupt):
                trainer._measure(None)
        assert trainer.model.weight.item() == weight
    decay = signals.AveragedPolicy.DECAY
    second = decay + 2 * (1 - decay)
    assert seen == pytest.approx([1.0, second, decay * second + 3 * (1 - decay)])


def test_ranks_forget_how_far_an_outlier_lies():
    spread = []

    class Recorder:
        def token_advantages(self, normalized, *args):
            spread.append(normalized)

    ranked = type("Ranked", (signals.RankedRewards, Recorder), {})()
    torch.manual_seed(0)
    rewards, mask = torch.randn(16, 5), torch.arange(5) < torch.arange(16)[:, None] % 5 + 1
    far = torch.where(rewards == rewards[mask].max(), 100.0, rewards)
    for values in (rewards, far):
        ranked.token_advantages(values.masked_fill(~mask, 0.0), mask, None, 0)
    torch.testing.assert_close(spread[0], spread[1])
    assert not spread[0][~mask].any()
    for first in (0, 8):
        group, kept = spread[0][first : first + 8], mask[first : first + 8]
        assert group[kept].mean().abs() < 1e-5 and abs(group[kept].std() - 1) < 1e-3
        assert (group[kept].argsort() == rewards[first : first + 8][kept].argsort()).all()
