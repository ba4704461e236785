"""Means and 95% intervals over seeds, and the rules by which the report gives its verdicts."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy.stats import t as student_t

SEEN, NOT_SEEN, UNCLEAR = "seen", "not seen", "unclear"
MIN_SEEDS = 3
"""Fewer seeds than this give no verdict."""


@dataclass(frozen=True)
class Interval:
    """Mean of n values and half the width of its 95% interval (Student's t); infinite for one value."""

    mean: float
    half_width: float
    n: int

    @property
    def low(self) -> float:
        """Lower end."""
        return self.mean - self.half_width

    @property
    def high(self) -> float:
        """Upper end."""
        return self.mean + self.half_width

    def __neg__(self) -> "Interval":
        return Interval(-self.mean, self.half_width, self.n)


def interval(values: Sequence[float]) -> Interval:
    """95% interval of the mean."""
    n = len(values)
    if n == 0:
        raise ValueError("no values to take the mean of")
    mean = math.fsum(values) / n
    if n == 1:
        return Interval(mean, math.inf, 1)
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    return Interval(mean, float(student_t.ppf(0.975, n - 1)) * deviation / math.sqrt(n), n)


def paired(treated: Mapping[int, float], control: Mapping[int, float]) -> Interval | None:
    """Difference treated − control over the seeds that both have; `None` without any."""
    seeds = sorted(treated.keys() & control.keys())
    return interval([treated[seed] - control[seed] for seed in seeds]) if seeds else None


def verdict_better(gain: Interval | None, margin: float) -> str:
    """Is there a gain? `gain` is positive where the claim holds; `margin` is the least gain that would matter.

    "seen": the whole interval lies above 0. "not seen": the whole interval lies below the margin. Else "unclear".
    """
    if gain is None or gain.n < MIN_SEEDS:
        return UNCLEAR
    return SEEN if gain.low > 0 else NOT_SEEN if gain.high < margin else UNCLEAR


def verdict_equal(difference: Interval | None, margin: float) -> str:
    """Does it matter little? "seen": the whole interval lies within ±margin. "not seen": it lies wholly on one side of
    0, and the mean beyond the margin. Else "unclear".
    """
    if difference is None or difference.n < MIN_SEEDS:
        return UNCLEAR
    if -margin < difference.low and difference.high < margin:
        return SEEN
    beyond = difference.low > 0 or difference.high < 0
    return NOT_SEEN if beyond and abs(difference.mean) > margin else UNCLEAR


def all_of(verdicts: Sequence[str]) -> str:
    """ "seen" where all are seen, "not seen" where none is seen and not all are unclear, else "unclear"."""
    if verdicts and all(verdict == SEEN for verdict in verdicts):
        return SEEN
    if SEEN not in verdicts and NOT_SEEN in verdicts:
        return NOT_SEEN
    return UNCLEAR
