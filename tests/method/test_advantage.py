"""METHOD §5: worked numbers, brute-force comparison, edge cases."""

import math
import random
import statistics

import pytest
import torch
from random_rows import NAN, random_mask, random_values

from repro_trl.method.advantage import normalize_rewards, reward_to_go, segment_credit
from repro_trl.method.process_reward import process_rewards


def normalize_per_index_by_hand(
    rewards: torch.Tensor, mask: torch.Tensor, groups: list[int], scale: str
) -> torch.Tensor:
    result = torch.zeros_like(rewards)
    for group in {0} if scale == "batch" else set(groups):
        rows = [b for b in range(len(groups)) if scale == "batch" or groups[b] == group]
        deviations = {}
        for s in range(rewards.shape[1]):
            values = [rewards[b, s].item() for b in rows if mask[b, s]]
            deviations |= {(b, s): rewards[b, s].item() - statistics.fmean(values) for b in rows if mask[b, s]}
        spread = math.sqrt(sum(d * d for d in deviations.values()) / max(len(deviations) - 1, 1)) + 1e-4
        for (b, s), deviation in deviations.items():
            result[b, s] = deviation / spread
    return result


def normalize_by_hand(rewards: torch.Tensor, mask: torch.Tensor, groups: list[int], scale: str) -> torch.Tensor:
    result = torch.zeros_like(rewards)
    for b in range(len(groups)):
        rows = [a for a in range(len(groups)) if scale == "batch" or groups[a] == groups[b]]
        values = [rewards[a, s].item() for a in rows for s in range(rewards.shape[1]) if mask[a, s]]
        for s in range(rewards.shape[1]):
            if mask[b, s] and scale == "none":
                result[b, s] = rewards[b, s]
            elif mask[b, s] and len(values) > 1:
                spread = statistics.stdev(values) + 1e-4
                result[b, s] = (rewards[b, s].item() - statistics.fmean(values)) / spread
    return result


def test_worked_example():
    objective = torch.tensor([[-4, -3, -3.5, -1, -0.2], [-4, -4.4, -2, NAN, NAN]])
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    rewards = process_rewards(objective, mask, stability_weight=0.1)
    normalized = normalize_rewards(rewards, mask[:, 1:], torch.tensor([7, 7]))
    expected = torch.tensor([[0.878448, -1.690090, 0.885262, -0.329512], [-0.342169, 0.598059, 0, 0]])
    torch.testing.assert_close(normalized, expected, atol=1e-5, rtol=0)
    ends = torch.tensor([[3, 5, 6, 9], [2, 7, 0, 0]])
    advantages = reward_to_go(normalized, mask[:, 1:], ends, 11)
    a = [-0.25589] * 3 + [-1.134339] * 2 + [0.555751] + [-0.329512] * 3 + [0] * 2
    b = [0.25589] * 2 + [0.598059] * 5 + [0] * 4
    torch.testing.assert_close(advantages, torch.tensor([a, b]), atol=1e-5, rtol=0)
    assert (advantages[0, 9:] == 0).all() and (advantages[1, 7:] == 0).all()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 2e-5)])
@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_normalize_rewards_brute_force(scale: str, dtype: torch.dtype, tolerance: float):
    rng = random.Random(0)
    for _ in range(150):
        batch, columns = rng.randint(1, 9), rng.randint(1, 6)
        mask = random_mask(rng, batch, columns)
        rewards = random_values(rng, mask, ties=rng.random() < 0.3).to(dtype)
        groups = [rng.choice([-(10**12), 0, 3, 10**12]) for _ in range(batch)]
        actual = normalize_rewards(rewards, mask, torch.tensor(groups), scale)
        expected = normalize_by_hand(rewards, mask, groups, scale)
        torch.testing.assert_close(actual, expected, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 2e-5)])
@pytest.mark.parametrize("scale", ["group", "batch"])
def test_centring_per_index_brute_force(scale: str, dtype: torch.dtype, tolerance: float):
    rng = random.Random(0)
    for _ in range(150):
        batch, columns = rng.randint(1, 9), rng.randint(1, 6)
        mask = random_mask(rng, batch, columns)
        rewards = random_values(rng, mask, ties=rng.random() < 0.3).to(dtype)
        groups = [rng.choice([-(10**12), 0, 3, 10**12]) for _ in range(batch)]
        actual = normalize_rewards(rewards, mask, torch.tensor(groups), scale, center="index")
        expected = normalize_per_index_by_hand(rewards, mask, groups, scale)
        torch.testing.assert_close(actual, expected, atol=tolerance, rtol=tolerance)


def test_centring_per_index_removes_what_comes_with_the_place():
    torch.manual_seed(0)
    rewards, place = torch.randn(8, 5, dtype=torch.float64), 10 * torch.randn(5, dtype=torch.float64)
    mask = torch.ones(8, 5, dtype=torch.bool)
    groups = torch.arange(8) // 4
    with_place = normalize_rewards(rewards + place, mask, groups, center="index")
    torch.testing.assert_close(with_place, normalize_rewards(rewards, mask, groups, center="index"))
    assert (with_place - normalize_rewards(rewards + place, mask, groups)).abs().max() > 0.5


def test_groups_do_not_mix_and_order_does_not_matter():
    torch.manual_seed(0)
    rewards = torch.randn(6, 4, dtype=torch.float64)
    mask = torch.ones(6, 4, dtype=torch.bool)
    groups = torch.tensor([5, 1, 5, 1, 1, 5])
    together = normalize_rewards(rewards, mask, groups)
    for group in (1, 5):
        rows = groups == group
        torch.testing.assert_close(together[rows], normalize_rewards(rewards[rows], mask[rows], groups[rows]))
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    torch.testing.assert_close(normalize_rewards(rewards[order], mask, groups[order]), together[order])


def test_equal_rewards_normalize_to_zero():
    # The divisor is 1e-4 here: a rounding error of float32 in the mean would come out as 1e-3.
    for value in (0.1, -1 / 3, 12345.678):
        rewards = torch.full((64, 11), value)
        mask = torch.ones(64, 11, dtype=torch.bool)
        for scale in ("group", "batch"):
            assert normalize_rewards(rewards, mask, torch.arange(64) // 8, scale).abs().max() < 1e-7


def test_small_groups_get_zero():
    rewards = torch.tensor([[0.5, NAN], [NAN, NAN], [0.2, 0.4]])
    mask = torch.tensor([[True, False], [False, False], [True, True]])
    normalized = normalize_rewards(rewards, mask, torch.tensor([0, 0, 1]))
    assert (normalized[:2] == 0).all() and (normalized[2] != 0).all()
    assert (normalize_rewards(rewards[:2], mask[:2], torch.tensor([0, 1]), "batch") == 0).all()
    empty = normalize_rewards(torch.zeros(3, 0), torch.zeros(3, 0, dtype=torch.bool), torch.tensor([0, 0, 1]))
    assert empty.shape == (3, 0)


def test_unknown_scale():
    with pytest.raises(ValueError, match="groups"):
        normalize_rewards(torch.zeros(1, 1), torch.ones(1, 1, dtype=torch.bool), torch.zeros(1), "groups")


def test_reward_to_go_brute_force():
    rng = random.Random(0)
    for _ in range(400):
        batch, columns, length = rng.randint(1, 5), rng.randint(0, 6), rng.randint(0, 12)
        mask = random_mask(rng, batch, columns)
        rewards = random_values(rng, mask)
        ends = torch.tensor([[rng.randint(0, length) for _ in range(columns)] for _ in range(batch)])
        ends = ends.reshape(batch, columns).long().masked_fill(~mask, 999)
        expected = torch.zeros(batch, length, dtype=torch.float64)
        for b in range(batch):
            for t in range(length):
                expected[b, t] = sum(rewards[b, j].item() for j in range(columns) if mask[b, j] and t < ends[b, j])
        actual = reward_to_go(rewards, mask, ends, length)
        torch.testing.assert_close(actual, expected, atol=1e-12, rtol=0)
        for b in range(batch):
            assert (actual[b, max(ends[b][mask[b]].tolist(), default=0) :] == 0).all()


@pytest.mark.parametrize("length", [0, 1, 12])
def test_segment_credit_brute_force(length: int):
    rng = random.Random(0)
    for _ in range(200):
        batch = rng.randint(1, 5)
        rows = [sorted(rng.sample(range(1, length + 1), rng.randint(0, min(length, 6)))) for _ in range(batch)]
        columns = max(len(row) for row in rows)
        mask = torch.arange(columns) < torch.tensor([[len(row)] for row in rows])
        rewards = random_values(rng, mask)
        ends = torch.tensor([row + [rng.choice([0, 999])] * (columns - len(row)) for row in rows]).long()
        expected = torch.zeros(batch, length, dtype=torch.float64)
        for b, row in enumerate(rows):
            for s, (start, end) in enumerate(zip([0, *row], row, strict=False)):
                expected[b, start:end] = rewards[b, s]
        actual = segment_credit(rewards, mask, ends, length)
        assert torch.equal(actual, expected)


def test_reward_to_go_adds_up_segment_credit():
    ends, rewards = torch.tensor([[3, 5, 6, 9]]), torch.tensor([[0.5, -1.5, 1.0, -0.25]])
    mask = torch.ones(1, 4, dtype=torch.bool)
    own, to_go = segment_credit(rewards, mask, ends, 11), reward_to_go(rewards, mask, ends, 11)
    last = ends[0] - 1
    torch.testing.assert_close(own[:, last].flip(1).cumsum(1).flip(1), to_go[:, last])
    assert not own[:, 9:].any()


@pytest.mark.parametrize("spread", [reward_to_go, segment_credit])
@pytest.mark.parametrize("end", [-1, 12])
def test_ends_outside_the_completion(spread, end: int):
    with pytest.raises(ValueError, match=str(end)):
        spread(torch.ones(1, 1), torch.ones(1, 1, dtype=torch.bool), torch.tensor([[end]]), 11)


def test_unknown_center():
    with pytest.raises(ValueError, match="segment"):
        normalize_rewards(torch.zeros(1, 1), torch.ones(1, 1, dtype=torch.bool), torch.zeros(1), center="segment")


def test_reward_to_go_is_constant_within_a_segment():
    torch.manual_seed(0)
    rewards = torch.randn(2, 5)
    ends = torch.tensor([[3, 9, 10, 40, 64], [1, 2, 3, 4, 50]])
    advantages = reward_to_go(rewards, torch.ones(2, 5, dtype=torch.bool), ends, 64)
    for b in range(2):
        for start, end in zip([0, *ends[b].tolist()], ends[b].tolist(), strict=False):
            assert advantages[b, start:end].unique().numel() == 1


@pytest.mark.parametrize("end", [6, -1])
def test_reward_to_go_refuses_ends_outside(end: int):
    with pytest.raises(ValueError, match="length=5"):
        reward_to_go(torch.zeros(1, 2), torch.ones(1, 2, dtype=torch.bool), torch.tensor([[2, end]]), 5)
