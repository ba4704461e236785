"""What is reported of an evaluation: accuracy over several samples of each problem, and what it cost in tokens."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import numpy as np

from .records import Record

FAILURES = ("timeout", "failure")
"""Outcomes that are no verdict: the verifier ran out of time, or broke. They count as wrong and are shown."""


@dataclass(frozen=True)
class Figures:
    """
    Metrics of one task. `None`: not defined, for example the thinking tokens of right answers if none is right.

    Attributes:
        problems: N.
        samples: n, completions of each problem.
        accuracy: avg@n, the expected pass@1: mean over problems of the share of right completions, in [0, 1].
        standard_error: of `accuracy`; see `clustered_standard_error`.
        pass_at: k → pass@k, for the powers of two up to n and n itself.
        majority: maj@n; `None` for programs, which do not vote.
        thinking_tokens, thinking_tokens_right, thinking_tokens_wrong: mean tokens up to the end-of-thinking marker,
            all of them where there is none.
        completion_tokens: mean tokens of a completion.
        tokens_per_correct: tokens of all completions divided by the number of right ones.
        backtracks: segments of a thought that turn back (`repro_trl.thinking.BACKTRACK_PHRASES`), per completion.
        backtracking_rate: share of all segments that turn back.
        truncation_rate: share of completions that were cut off at the token limit.
        outcomes: how often each outcome of verification occurred, failures of the verifier included.
    """

    problems: int
    samples: int
    accuracy: float
    standard_error: float | None
    pass_at: dict[int, float]
    majority: float | None
    thinking_tokens: float
    thinking_tokens_right: float | None
    thinking_tokens_wrong: float | None
    completion_tokens: float
    tokens_per_correct: float | None
    backtracks: float
    backtracking_rate: float
    truncation_rate: float
    outcomes: dict[str, int]

    @property
    def verifier_failures(self) -> int:
        """Completions without a verdict."""
        return sum(self.outcomes.get(outcome, 0) for outcome in FAILURES)


def pass_at_k(n: int, correct: int, k: int) -> float:
    """
    Probability that at least one of k samples is right, drawn without replacement from n of which `correct` are: the
    unbiased estimator 1 - C(n - c, k) / C(n, k) of Chen et al. 2021 (arXiv 2107.03374). 1 ≤ k ≤ n, 0 ≤ correct ≤ n.
    """
    if not 1 <= k <= n or not 0 <= correct <= n:
        raise ValueError(
            f"pass@{k} of {correct} correct samples among {n}: k must be in 1..n, the correct ones in 0..n."
        )
    return 1 - math.comb(n - correct, k) / math.comb(n, k)


def majority_score(votes: Sequence[str | None], right: Sequence[bool]) -> float:
    """
    Probability that majority voting over the samples of one problem gives a right answer, ties broken at random.

    Right samples agree with the ground truth and so with each other: they are one candidate, however each is written.
    Wrong ones agree when their votes (n normalised answers) are the same text. A wrong sample without a vote abstains.
    """
    wrong_votes = Counter(vote for vote, ok in zip(votes, right, strict=True) if not ok and vote is not None)
    count = sum(right)
    most_wrong = max(wrong_votes.values(), default=0)
    if count == 0 or count < most_wrong:
        return 0.0
    rivals = sum(votes == count for votes in wrong_votes.values())
    return 1 / (1 + rivals)


def clustered_standard_error(shares: Sequence[float]) -> float | None:
    """
    Standard error of the mean of `shares`, one share of right completions for each problem.

    Samples of one problem are correlated, so problems, not completions, are the independent draws: this is the
    cluster-robust standard error with problems as clusters and the correction N / (N - 1). `None` for one problem.
    """
    if len(shares) < 2:
        return None
    return float(np.std(shares, ddof=1) / math.sqrt(len(shares)))


def compute_figures(records: Iterable[Record], votes: bool = True) -> Figures:
    """
    Metrics of one task's records, which have the same number of samples of each problem.

    Args:
        records: in any order.
        votes: whether answers can be voted on; programs cannot.

    Raises:
        ValueError: no records, or problems with different numbers of samples.
    """
    by_problem = _by_problem(records)
    sizes = {len(samples) for samples in by_problem.values()}
    if len(sizes) != 1:
        raise ValueError(f"Every problem needs the same number of samples, 1 or more; found {sorted(sizes)}.")
    (n,) = sizes
    everything = [record for samples in by_problem.values() for record in samples]
    counts = [sum(record.right for record in samples) for samples in by_problem.values()]
    shares = [count / n for count in counts]
    majorities = [majority_score([r.vote for r in rows], [r.right for r in rows]) for rows in by_problem.values()]
    ks = sorted({2**power for power in range(n.bit_length()) if 2**power <= n} | {n})
    segments = sum(record.segments for record in everything)
    right = [record for record in everything if record.right]
    tokens = sum(record.completion_tokens for record in everything)
    return Figures(
        problems=len(by_problem),
        samples=n,
        accuracy=_mean(shares),
        standard_error=clustered_standard_error(shares),
        pass_at={k: _mean([pass_at_k(n, count, k) for count in counts]) for k in ks},
        majority=_mean(majorities) if votes else None,
        thinking_tokens=_mean([record.thinking_tokens for record in everything]),
        thinking_tokens_right=_mean([record.thinking_tokens for record in right]),
        thinking_tokens_wrong=_mean([record.thinking_tokens for record in everything if not record.right]),
        completion_tokens=tokens / len(everything),
        tokens_per_correct=tokens / len(right) if right else None,
        backtracks=_mean([record.backtracks for record in everything]),
        backtracking_rate=sum(record.backtracks for record in everything) / max(segments, 1),
        truncation_rate=_mean([record.truncated for record in everything]),
        outcomes=dict(sorted(Counter(record.outcome for record in everything).items())),
    )


@dataclass(frozen=True)
class Comparison:
    """
    Two models on the same problems; differences are second minus first.

    Attributes:
        problems: N pairs.
        difference: of avg@n, the mean over problems of the difference of the shares of right completions.
        standard_error: of `difference`, from the differences by problem, so that the difficulty of problems cancels
            out. `None` for one problem.
        better, worse: problems with a higher and a lower share than before.
        thinking_tokens: difference of the mean thinking tokens.
        thinking_tokens_error: its standard error, from the problems' differences.
    """

    problems: int
    difference: float
    standard_error: float | None
    better: int
    worse: int
    thinking_tokens: float
    thinking_tokens_error: float | None

    @property
    def p_value(self) -> float | None:
        """Two-sided, of no difference in accuracy, by the normal approximation. `None` without a standard error."""
        if not self.standard_error:
            return None
        return math.erfc(abs(self.difference) / self.standard_error / math.sqrt(2))


def compare(first: Iterable[Record], second: Iterable[Record]) -> Comparison:
    """
    Compare two models' records of one task, paired by problem: a `ValueError` if they are not of the same problems.
    The numbers of samples may differ.
    """
    before, after = _by_problem(first), _by_problem(second)
    alone = sorted(before.keys() ^ after.keys())
    if alone or not before:
        raise ValueError(
            f"Two models must be compared on the same problems; {len(alone)} are in one evaluation only"
            + (f", such as {alone[0]!r}." if alone else ", and none is in both.")
        )
    shares, tokens = (
        [_mean([read(r) for r in after[problem]]) - _mean([read(r) for r in before[problem]]) for problem in before]
        for read in (attrgetter("right"), attrgetter("thinking_tokens"))
    )
    return Comparison(
        problems=len(shares),
        difference=_mean(shares),
        standard_error=clustered_standard_error(shares),
        better=sum(share > 0 for share in shares),
        worse=sum(share < 0 for share in shares),
        thinking_tokens=_mean(tokens),
        thinking_tokens_error=clustered_standard_error(tokens),
    )


def _by_problem(records: Iterable[Record]) -> dict[str, list[Record]]:
    by_problem: dict[str, list[Record]] = {}
    for record in records:
        by_problem.setdefault(record.problem, []).append(record)
    return by_problem


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def as_json(figures: Figures | Comparison) -> dict[str, Any]:
    """Fields as JSON holds them."""
    fields = dict(vars(figures))
    if isinstance(figures, Figures):
        fields["pass_at"] = {str(k): value for k, value in figures.pass_at.items()}
        fields["verifier_failures"] = figures.verifier_failures
    else:
        fields["p_value"] = figures.p_value
    return fields
