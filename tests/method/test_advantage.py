"""METHOD §5 and the outcome estimators: worked numbers, brute-force comparison, edge cases."""

import math
import random
import statistics

import pytest
import torch

from repro_trl.method.advantage import normalize_rewards, reward_to_go, segment_credit
from repro_trl.method.process_reward import process_rewards
from repro_trl.trainers.estimators import (
    discounted_returns,
    gae,
    masked_moments,
    masked_whiten,
    sequence_ratio_log_probs,
)

NAN = torch.nan


def random_mask(rng: random.Random, batch: int, columns: int) -> torch.Tensor:
    """Padding at the right, holes in the middle, full and empty rows."""
    mask = torch.zeros(batch, columns, dtype=torch.bool)
    for row in mask:
        row[: rng.choice([0, columns, rng.randint(0, columns)])] = True
        if rng.random() < 0.5:
            row &= torch.tensor([rng.random() < 0.7 for _ in range(columns)], dtype=torch.bool)
    return mask


def random_values(rng: random.Random, mask: torch.Tensor, ties: bool = False) -> torch.Tensor:
    """Random values where unmasked, NaN elsewhere."""
    values = torch.full(mask.shape, NAN, dtype=torch.float64)
    for index in mask.nonzero().tolist():
        values[tuple(index)] = float(rng.randint(-1, 1)) if ties else rng.gauss(0.3, 2)
    return values


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


def gae_by_hand(
    rewards: torch.Tensor, values: torch.Tensor, mask: torch.Tensor, gamma: float, lam: float, bootstrap: list[float]
) -> torch.Tensor:
    result = torch.zeros_like(rewards)
    for b in range(len(rewards)):
        next_value, advantage = bootstrap[b], 0.0
        for t in reversed(range(rewards.shape[1])):
            if mask[b, t]:
                delta = rewards[b, t].item() + gamma * next_value - values[b, t].item()
                advantage = delta + gamma * lam * advantage
                next_value = values[b, t].item()
                result[b, t] = advantage
    return result


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_gae_brute_force(dtype: torch.dtype, tolerance: float):
    rng = random.Random(0)
    for _ in range(250):
        batch, columns = rng.randint(1, 6), rng.randint(0, 40)
        mask = random_mask(rng, batch, columns)
        rewards, values = random_values(rng, mask).to(dtype), random_values(rng, mask).to(dtype)
        gamma, lam = rng.choice([0.0, 0.9, 0.99, 1.0]), rng.choice([0.0, 0.5, 0.95, 1.0])
        expected = gae_by_hand(rewards, values, mask, gamma, lam, [0.0] * batch)
        actual = gae(rewards, values, mask, gamma, lam)
        assert actual.dtype == dtype
        # Relative to the sums that the recursion makes, of up to `columns` terms.
        torch.testing.assert_close(actual, expected, atol=tolerance * 5, rtol=tolerance)
        bootstrap = torch.tensor([rng.gauss(0, 2) for _ in range(batch)], dtype=dtype)
        expected = gae_by_hand(rewards, values, mask, gamma, lam, bootstrap.tolist())
        actual = gae(rewards, values, mask, gamma, lam, bootstrap)
        torch.testing.assert_close(actual, expected, atol=tolerance * 5, rtol=tolerance)


def test_gae_limits():
    rng = random.Random(1)
    mask = random_mask(rng, 8, 30)
    rewards, values = random_values(rng, mask), random_values(rng, mask)
    returns = discounted_returns(rewards, mask, 1.0)
    torch.testing.assert_close(gae(rewards, values, mask, 1.0, 1.0)[mask], (returns - values)[mask])
    full = torch.ones(8, 30, dtype=torch.bool)
    rewards, values = random_values(rng, full), random_values(rng, full)
    next_values = torch.cat([values[:, 1:], torch.zeros(8, 1)], dim=1)
    torch.testing.assert_close(gae(rewards, values, full, 0.9, 0.0), rewards + 0.9 * next_values - values)


def test_gae_skips_tool_tokens():
    torch.manual_seed(0)
    # The same episode with and without tool output between its tokens.
    rewards, values = torch.randn(1, 5), torch.randn(1, 5)
    dense = gae(rewards, values, torch.ones(1, 5, dtype=torch.bool), 0.9, 0.8, torch.tensor([0.7]))
    mask = torch.tensor([[True, True, False, False, True, False, True, True, False]])
    spread = [torch.full((1, 9), NAN).masked_scatter(mask, x) for x in (rewards, values)]
    actual = gae(*spread, mask, 0.9, 0.8, torch.tensor([0.7]))
    torch.testing.assert_close(actual[mask], dense[0])
    assert (actual[~mask] == 0).all()


def test_discounted_returns_brute_force():
    rng = random.Random(0)
    for _ in range(300):
        mask = random_mask(rng, rng.randint(1, 6), rng.randint(0, 40))
        rewards = random_values(rng, mask)
        gamma = rng.choice([0.0, 0.5, 0.99, 1.0])
        expected = torch.zeros_like(rewards)
        for b in range(len(mask)):
            total = 0.0
            for t in reversed(range(mask.shape[1])):
                if mask[b, t]:
                    total = rewards[b, t].item() + gamma * total
                    expected[b, t] = total
        torch.testing.assert_close(discounted_returns(rewards, mask, gamma), expected, atol=1e-12, rtol=0)


def test_masked_whiten_brute_force():
    rng = random.Random(0)
    for _ in range(200):
        mask = random_mask(rng, rng.randint(1, 6), rng.randint(1, 12))
        values = random_values(rng, mask, ties=rng.random() < 0.3)
        flat = values[mask].tolist()
        mean = statistics.fmean(flat) if flat else 0.0
        scale = math.sqrt((statistics.variance(flat) if len(flat) > 1 else 0.0) + 1e-8)
        for shift_mean in (True, False):
            expected = torch.zeros_like(values)
            expected[mask] = (values[mask] - mean) / scale + (0.0 if shift_mean else mean)
            actual = masked_whiten(values, mask, shift_mean=shift_mean)
            torch.testing.assert_close(actual, expected, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_whitening_is_global(processes: int):
    # Rows differ in level, one process is fully masked, and chunks have different widths: their sums must still merge.
    torch.manual_seed(0)
    values = torch.randn(8, 10) * 3 + 50 * torch.arange(8)[:, None] / 8
    mask = torch.rand(8, 10) < 0.6
    mask[6:] = False
    mask[:, 7:] = False
    expected = masked_whiten(values, mask)
    chunks = [
        (v[:, :width], m[:, :width])
        for v, m, width in zip(values.chunk(processes), mask.chunk(processes), [10, 7, 9, 8], strict=False)
    ]
    moments = torch.stack([masked_moments(*chunk) for chunk in chunks])
    for (chunk, chunk_mask), whole in zip(chunks, expected.chunk(processes), strict=True):
        actual = masked_whiten(chunk, chunk_mask, moments)
        torch.testing.assert_close(actual, whole[:, : chunk.shape[1]], atol=1e-6, rtol=1e-6)


def test_equal_values_whiten_to_zero():
    values, mask = torch.full((32, 50), 0.1), torch.ones(32, 50, dtype=torch.bool)
    assert masked_whiten(values, mask).abs().max() < 1e-6
    moments = torch.stack([masked_moments(values, mask), masked_moments(values[:7], mask[:7])])
    assert masked_whiten(values, mask, moments).abs().max() < 1e-6


def test_large_mean_loses_no_digits():
    torch.manual_seed(0)
    values, mask = torch.randn(64, 64), torch.ones(64, 64, dtype=torch.bool)
    shifted = (values + 4096) - 4096  # what float32 keeps of the values at that level
    # Half a unit in the last place of the mean is 2.4e-4; plain sums of squares would lose the variance.
    torch.testing.assert_close(masked_whiten(shifted + 4096, mask), masked_whiten(shifted, mask), atol=3e-4, rtol=0)


def test_sequence_ratio_is_that_of_the_sequence_and_its_gradient_that_of_the_token():
    torch.manual_seed(0)
    log_probs = torch.randn(3, 5, requires_grad=True)
    old = torch.randn(3, 5)
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 1, 0], [0, 0, 0, 0, 0]]).bool()
    ratio = torch.exp(log_probs - sequence_ratio_log_probs(log_probs, old, mask))
    for row in range(3):
        kept = mask[row].nonzero().flatten().tolist()
        mean = sum((log_probs[row, t] - old[row, t]).item() for t in kept) / max(len(kept), 1)
        for t in kept:
            assert ratio[row, t].item() == pytest.approx(math.exp(mean), rel=1e-5)
    weights = torch.randn(3, 5)
    (ratio * weights * mask).sum().backward()
    torch.testing.assert_close(log_probs.grad, (ratio * weights * mask).detach())
