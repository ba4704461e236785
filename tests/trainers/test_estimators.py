"""The outcome estimators: brute-force comparison, limits, edge cases."""

import math
import random
import statistics

import pytest
import torch
from random_rows import NAN, random_mask, random_values

from repro_trl.trainers.estimators import (
    discounted_returns,
    gae,
    masked_moments,
    masked_whiten,
    sequence_ratio_log_probs,
)


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
        expected = torch.zeros_like(values)
        expected[mask] = (values[mask] - mean) / scale
        torch.testing.assert_close(masked_whiten(values, mask), expected, atol=1e-9, rtol=1e-9)


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
