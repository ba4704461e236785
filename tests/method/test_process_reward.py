"""METHOD §4: worked numbers, brute-force comparison, edge cases."""

import math
import random

import pytest
import torch

from repro_trl.method.process_reward import magnitude_score, process_rewards, scores, stability_score

# METHOD §7
OBJECTIVE = torch.tensor([[-4, -3, -3.5, -1, -0.2], [-4, -4.4, -2, torch.nan, torch.nan]])
MASK = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
MAGNITUDE = [0.238406, 0.364851, 0.296094, 0.755081, 0.950042]
STABILITY = [1, 0.666667, 0.833333, 0.9]
REWARDS = [[0.428366, -0.095214, 0.429755, 0.182131], [0.179551, 0.371210, 0, 0]]


def magnitude_by_hand(objective: list[float]) -> list[float]:
    first = objective[0]
    result = []
    for value in objective:
        if first == 0:
            result.append(1.0 if value == 0 else 0.0)
        else:
            gain = (value - first) / abs(first)  # Δ_t
            result.append(math.tanh(gain - 1) + 1)
    return result


def smooth_by_hand(objective: list[float], weight: float) -> list[float]:
    result = [objective[0]]
    for value in objective[1:]:
        result.append(weight * value + (1 - weight) * result[-1])
    return result


def stability_by_hand(objective: list[float]) -> list[float]:
    result = [0.0]
    for t in range(1, len(objective)):
        concordant = discordant = 0
        for i in range(t + 1):
            for j in range(i):
                concordant += objective[i] > objective[j]
                discordant += objective[i] < objective[j]
        tau = (concordant - discordant) / math.comb(t + 1, 2)
        result.append((tau + 1) / 2)
    return result


def rewards_by_hand(objective: list[float], weight: float, ema_weight: float | None) -> list[float]:
    magnitude = magnitude_by_hand(objective)
    stability = stability_by_hand(objective if ema_weight is None else smooth_by_hand(objective, ema_weight))
    score = [(1 - weight) * a + weight * b for a, b in zip(magnitude, stability, strict=True)]
    score[0] = 0.0
    return [score[j] - score[j - 1] for j in range(1, len(score))]


def random_batch(rng: random.Random, batch: int, columns: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Ragged rows with ties, constant rows, J_0 near and at 0, and rows without any boundary."""
    rows = []
    for _ in range(batch):
        length = rng.choice([0, 1, columns, rng.randint(0, columns)])
        kind = rng.choice(["plain", "ties", "constant", "tiny first", "zero first"])
        row = [-rng.uniform(0.01, 6) for _ in range(length)]
        if kind == "ties":
            row = [-float(rng.randint(0, 3)) for _ in range(length)]
        elif kind == "constant":
            row = row[:1] * length
        elif kind == "tiny first" and row:
            row[0] = -(10 ** -rng.uniform(3, 37))
        elif kind == "zero first" and row:
            row[0] = 0.0
        rows.append(row)
    objective = torch.full((batch, columns), torch.nan, dtype=torch.float64)
    mask = torch.zeros(batch, columns, dtype=torch.bool)
    for b, row in enumerate(rows):
        objective[b, : len(row)] = torch.tensor(row, dtype=torch.float64)
        mask[b, : len(row)] = True
    return objective, mask


def assert_rows(actual: torch.Tensor, expected: list[list[float]], tolerance: float) -> None:
    padded = torch.zeros_like(actual)
    for b, row in enumerate(expected):
        padded[b, : len(row)] = torch.tensor(row, dtype=actual.dtype)
    torch.testing.assert_close(actual, padded, atol=tolerance, rtol=0)


def test_worked_example():
    assert_rows(magnitude_score(OBJECTIVE, MASK)[:1], [MAGNITUDE], 1e-5)
    assert_rows(stability_score(OBJECTIVE, MASK)[:1, 1:], [STABILITY], 1e-5)
    assert_rows(process_rewards(OBJECTIVE, MASK, stability_weight=0.1), REWARDS, 1e-5)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-6)])
def test_brute_force(dtype: torch.dtype, tolerance: float):
    rng = random.Random(0)
    for _ in range(120):
        columns = rng.randint(1, 14)
        objective, mask = random_batch(rng, batch=25, columns=columns)
        objective = objective.to(dtype)
        rows = [row[m].tolist() for row, m in zip(objective, mask, strict=True)]
        weight = rng.choice([0.0, 0.1, 1.0, rng.random()])
        assert_rows(magnitude_score(objective, mask), [magnitude_by_hand(r) if r else [] for r in rows], tolerance)
        assert_rows(stability_score(objective, mask), [stability_by_hand(r) if r else [] for r in rows], tolerance)
        expected = [rewards_by_hand(r, weight, None) if r else [] for r in rows]
        actual = process_rewards(objective, mask, stability_weight=weight)
        assert actual.dtype == dtype and actual.shape == (25, columns - 1)
        assert_rows(actual, expected, 2 * tolerance)


def test_brute_force_smoothed():
    # Distinct values only: where smoothed values tie, their order depends on how the formula is rounded.
    rng = random.Random(1)
    for _ in range(100):
        columns, weight = rng.randint(1, 12), rng.choice([0.01, 0.3, 0.9, 1.0])
        rows = [[-rng.uniform(0.01, 6) for _ in range(columns)] for _ in range(20)]
        objective = torch.tensor(rows, dtype=torch.float64)
        mask = torch.ones(20, columns, dtype=torch.bool)
        smoothed = [stability_by_hand(smooth_by_hand(row, weight)) for row in rows]
        assert_rows(stability_score(objective, mask, ema_weight=weight), smoothed, 1e-12)
        expected = [rewards_by_hand(row, 0.1, weight) for row in rows]
        assert_rows(process_rewards(objective, mask, ema_weight=weight), expected, 1e-12)


def test_smoothing_makes_up_no_rises():
    torch.manual_seed(0)
    objective = torch.full((50, 12), -1.0) * torch.rand(50, 1)
    mask = torch.ones(50, 12, dtype=torch.bool)
    assert (stability_score(objective, mask, ema_weight=0.01)[:, 1:] == 0.5).all()


def test_rewards_add_up_to_the_last_score():
    torch.manual_seed(0)
    objective = -torch.rand(6, 9, dtype=torch.float64)
    lengths = torch.tensor([9, 1, 2, 5, 9, 3])
    mask = torch.arange(9) < lengths[:, None]
    last = scores(objective, mask).gather(1, lengths[:, None] - 1).squeeze(1)
    torch.testing.assert_close(process_rewards(objective, mask).sum(dim=1), last)
    assert (scores(objective, mask)[:, 0] == 0).all()


def test_baseline_score_of_no_gain():
    # METHOD §7: only the first reward changes, by S_0 = 0.9 (1 − tanh 1).
    no_gain = 0.9 * (1 - math.tanh(1))
    rewards = [[REWARDS[0][0] - no_gain, *REWARDS[0][1:]], [REWARDS[1][0] - no_gain, *REWARDS[1][1:]]]
    assert_rows(process_rewards(OBJECTIVE, MASK, baseline_score="magnitude"), rewards, 1e-5)
    unchanged = torch.full((2, 4), -3.0)
    mask = torch.tensor([[True] * 4, [True, True, False, False]])
    gains = process_rewards(unchanged, mask, stability_weight=0.0, baseline_score="magnitude")
    assert (gains.abs() < 1e-6).all(), "where nothing is gained, no segment earns anything"
    assert (process_rewards(unchanged, mask, stability_weight=0.0)[:, 0] > 0.2).all()


def test_unknown_baseline_score():
    with pytest.raises(ValueError, match="none"):
        process_rewards(OBJECTIVE, MASK, baseline_score="none")


def test_magnitude_range_and_monotonicity():
    objective = torch.cat([torch.tensor([-2.0]), torch.linspace(-40, 0, 1000)])[None]
    score = magnitude_score(objective, torch.ones_like(objective, dtype=torch.bool))[0]
    assert score[0].item() == pytest.approx(1 - math.tanh(1)) and score[-1].item() == 1
    assert (score >= 0).all() and (score[1:].diff() >= 0).all()


def test_first_objective_at_zero():
    tiny = torch.finfo(torch.float32).tiny
    objective = torch.tensor([[0.0, 0.0, -1e-30, -3.0], [-tiny, -tiny, 0.0, -2 * tiny], [1e-7, 1e-7, -1e-3, 0.0]])
    score = magnitude_score(objective, torch.ones_like(objective, dtype=torch.bool))
    expected = [[1, 1, 0, 0], [1 - math.tanh(1)] * 2 + [1, 1 - math.tanh(2)], [1, 1, 0, 1]]
    assert_rows(score, expected, 1e-6)


def test_infinite_objective():
    inf = math.inf
    objective = torch.tensor([[-1, -inf, -1, 0], [-inf, -2, -inf, 0], [-inf, -inf, -inf, -inf]])
    mask = torch.ones_like(objective, dtype=torch.bool)
    unchanged = 1 - math.tanh(1)
    expected = [[unchanged, 0, unchanged, 1], [unchanged, 1, unchanged, 1], [unchanged] * 4]
    assert_rows(magnitude_score(objective, mask), expected, 1e-6)
    expected = [stability_by_hand(row) for row in objective.tolist()]
    assert_rows(stability_score(objective, mask), expected, 1e-6)
    for ema_weight in (None, 0.01, 0.7, 1.0):
        assert process_rewards(objective, mask, ema_weight=ema_weight).isfinite().all()


@pytest.mark.parametrize("columns", [0, 1])
def test_without_segments(columns: int):
    objective, mask = torch.zeros(3, columns), torch.ones(3, columns, dtype=torch.bool)
    assert process_rewards(objective, mask, ema_weight=0.5).shape == (3, 0)
    assert process_rewards(objective[:0], mask[:0]).shape == (0, 0)


def test_many_boundaries():
    # Kendall's tau of a sorted, a reversed and a shuffled row with hundreds of boundaries.
    row = -torch.linspace(0.1, 5, 400, dtype=torch.float64)
    shuffled = row[torch.randperm(400, generator=torch.Generator().manual_seed(0))]
    objective = torch.stack([row.flip(0), row, shuffled])
    score = stability_score(objective, torch.ones(3, 400, dtype=torch.bool))
    assert (score[0, 1:] == 1).all() and (score[1] == 0).all()
    values = shuffled.tolist()
    pairs = [(i, j) for i in range(400) for j in range(i)]
    net = sum(1 if values[i] > values[j] else -1 for i, j in pairs)
    assert score[2, -1].item() == pytest.approx((net / len(pairs) + 1) / 2, abs=1e-12)


def test_inputs_stay_unchanged():
    objective, mask = OBJECTIVE.clone(), MASK.clone()
    process_rewards(objective, mask, ema_weight=0.3)
    torch.testing.assert_close(objective, OBJECTIVE, equal_nan=True)
    assert torch.equal(mask, MASK)


@pytest.mark.parametrize("weight", [-0.1, 1.01, math.nan])
def test_bad_stability_weight(weight: float):
    with pytest.raises(ValueError, match="stability_weight"):
        process_rewards(OBJECTIVE, MASK, stability_weight=weight)


@pytest.mark.parametrize("weight", [0.0, -0.5, 1.5, math.nan])
def test_bad_ema_weight(weight: float):
    with pytest.raises(ValueError, match="ema_weight"):
        process_rewards(OBJECTIVE, MASK, ema_weight=weight)
