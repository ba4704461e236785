"""Figures held against brute force."""

import itertools
import math
import random
from fractions import Fraction

import numpy as np
import pytest

from repro_trl.evaluation.figures import clustered_standard_error, compare, compute_figures, majority_score, pass_at_k
from repro_trl.evaluation.records import Record


def record(
    problem="0", sample=0, outcome="right", vote=None, thinking=10, tokens=12, segments=2, backtracks=0, cut=False
):
    return Record(problem, sample, "", tokens, thinking, segments, backtracks, cut, outcome, vote, "")


def random_records(seed, problems=5, samples=4):
    rng = random.Random(seed)
    return [
        record(
            str(problem),
            sample,
            outcome=rng.choice(["right", "wrong", "wrong", "no answer", "timeout"]),
            vote=rng.choice(["1", "2", "3"]),
            thinking=rng.randrange(50),
            tokens=50 + rng.randrange(50),
            segments=1 + rng.randrange(5),
            backtracks=rng.randrange(2),
            cut=rng.random() < 0.2,
        )
        for problem in range(problems)
        for sample in range(samples)
    ]


@pytest.mark.parametrize("n", range(1, 8))
def test_pass_at_k_is_the_share_of_subsets_with_a_right_sample(n):
    for correct, k in itertools.product(range(n + 1), range(1, n + 1)):
        subsets = list(itertools.combinations([index < correct for index in range(n)], k))
        assert pass_at_k(n, correct, k) == pytest.approx(float(Fraction(sum(map(any, subsets)), len(subsets))))


def test_pass_at_k_of_large_n_is_exact():
    assert pass_at_k(2000, 1, 1000) == pytest.approx(0.5)
    assert pass_at_k(2000, 0, 7) == 0 and pass_at_k(2000, 2000, 1) == 1


@pytest.mark.parametrize(("n", "correct", "k"), [(4, 1, 0), (4, 1, 5), (4, 5, 1), (4, -1, 1), (0, 0, 1)])
def test_pass_at_k_out_of_range(n, correct, k):
    with pytest.raises(ValueError, match=f"pass@{k}"):
        pass_at_k(n, correct, k)


def brute_force_majority(votes, right):
    """Count the ballots; among the candidates with most of them each is elected once."""
    ballots = ["RIGHT" if ok else vote for vote, ok in zip(votes, right, strict=True) if ok or vote is not None]
    if not ballots:
        return 0.0
    most = max(ballots.count(candidate) for candidate in ballots)
    elected = sorted({candidate for candidate in ballots if ballots.count(candidate) == most})
    return elected.count("RIGHT") / len(elected)


def test_majority_of_every_small_election():
    # Each sample is right, wrong with one of two votes, or abstains.
    kinds = [("a", True), ("b", True), ("c", False), ("d", False), (None, False)]
    for n in range(1, 6):
        for samples in itertools.product(kinds, repeat=n):
            votes, right = zip(*samples, strict=True)
            assert majority_score(votes, right) == pytest.approx(brute_force_majority(votes, right))


@pytest.mark.parametrize("seed", range(20))
def test_the_standard_error_is_the_cluster_robust_one(seed):
    # Sandwich estimator of a regression on a constant: residuals are summed within clusters before they are squared.
    rng = np.random.default_rng(seed)
    problems, samples = int(rng.integers(2, 9)), int(rng.integers(1, 7))
    right = rng.random((problems, samples)) < rng.random((problems, 1))
    residuals = right - right.mean()
    meat = sum(float(row.sum()) ** 2 for row in residuals)
    sandwich = meat / right.size**2 * problems / (problems - 1)
    assert clustered_standard_error(right.mean(axis=1)) == pytest.approx(math.sqrt(sandwich))


def test_the_standard_error_is_that_of_repeated_draws_of_problems():
    rng = np.random.default_rng(0)
    shares = rng.beta(0.5, 0.5, size=(4000, 40))  # 4000 benchmarks of 40 problems
    spread = shares.mean(axis=1).std()
    assert np.mean([clustered_standard_error(row) for row in shares]) == pytest.approx(spread, rel=0.05)


def test_one_problem_has_no_standard_error():
    assert clustered_standard_error([0.5]) is None
    assert compute_figures([record()]).standard_error is None


@pytest.mark.parametrize("seed", range(5))
def test_figures_of_random_records_by_hand(seed):
    records = random_records(seed)
    figures = compute_figures(random.Random(seed).sample(records, len(records)))
    right = [r for r in records if r.outcome == "right"]
    wrong = [r for r in records if r.outcome != "right"]
    by_problem = [[r for r in records if r.problem == str(p)] for p in range(5)]
    assert (figures.problems, figures.samples) == (5, 4)
    assert figures.accuracy == pytest.approx(len(right) / 20)
    assert sorted(figures.pass_at) == [1, 2, 4]
    assert figures.pass_at[1] == pytest.approx(figures.accuracy)
    assert figures.pass_at[4] == pytest.approx(sum(any(r.right for r in group) for group in by_problem) / 5)
    assert figures.majority == pytest.approx(
        sum(brute_force_majority([r.vote for r in g], [r.right for r in g]) for g in by_problem) / 5
    )
    assert figures.thinking_tokens == pytest.approx(sum(r.thinking_tokens for r in records) / 20)
    if right and wrong:
        assert figures.thinking_tokens_right == pytest.approx(sum(r.thinking_tokens for r in right) / len(right))
        assert figures.thinking_tokens_wrong == pytest.approx(sum(r.thinking_tokens for r in wrong) / len(wrong))
        assert figures.tokens_per_correct == pytest.approx(sum(r.completion_tokens for r in records) / len(right))
    assert figures.backtracks == pytest.approx(sum(r.backtracks for r in records) / 20)
    assert figures.backtracking_rate == pytest.approx(
        sum(r.backtracks for r in records) / sum(r.segments for r in records)
    )
    assert figures.truncation_rate == pytest.approx(sum(r.truncated for r in records) / 20)
    assert sum(figures.outcomes.values()) == 20
    assert figures.verifier_failures == sum(r.outcome == "timeout" for r in records)


def test_nothing_right_and_nothing_written():
    figures = compute_figures(
        [record(str(i), outcome="no answer", thinking=0, tokens=1, segments=0) for i in range(3)]
    )
    assert figures.accuracy == 0 and figures.tokens_per_correct is None and figures.thinking_tokens_right is None
    assert figures.backtracking_rate == 0 and figures.majority == 0
    assert compute_figures([record()], votes=False).majority is None


def test_unequal_numbers_of_samples_are_refused():
    with pytest.raises(ValueError, match=r"\[1, 2\]"):
        compute_figures([record("0"), record("1", 0), record("1", 1)])
    with pytest.raises(ValueError, match="1 or more"):
        compute_figures([])


def test_a_comparison_pairs_by_problem():
    # Very unlike problems, every one a little better: the paired error is far below that of either accuracy.
    first, second = [], []
    for problem in range(8):
        for sample in range(8):
            first.append(record(str(problem), sample, "right" if sample < problem else "wrong", thinking=20))
            second.append(record(str(problem), sample, "right" if sample <= problem else "wrong", thinking=15))
    result = compare(first, reversed(second))
    assert result.difference == pytest.approx(1 / 8) and result.standard_error == 0
    assert (result.problems, result.better, result.worse) == (8, 8, 0)
    assert result.thinking_tokens == -5 and result.p_value is None
    assert compute_figures(first).standard_error > 0.1


def test_a_comparison_by_hand():
    before = [record("a", 0, "right"), record("b", 0, "wrong"), record("c", 0, "wrong"), record("d", 0, "wrong")]
    after = [record("d", 0, "right"), record("c", 0, "wrong"), record("b", 0, "right"), record("a", 0, "wrong")]
    result = compare(before, after)
    differences = np.array([-1, 1, 0, 1])
    assert result.difference == pytest.approx(0.25)
    assert result.standard_error == pytest.approx(differences.std(ddof=1) / 2)
    assert (result.better, result.worse) == (2, 1)
    assert result.p_value == pytest.approx(math.erfc(0.25 / result.standard_error / math.sqrt(2)))


def test_other_problems_cannot_be_compared():
    with pytest.raises(ValueError, match="2 are in one evaluation only, such as 'a'"):
        compare([record("a")], [record("b")])
