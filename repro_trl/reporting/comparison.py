"""The figures of a report: one row for each quantity and arm, what to think of them, and the curves behind them."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from re import Pattern

from ..thinking import BACKTRACK_PATTERNS
from .arms import Arm, Difference, Estimate, difference, estimate
from .flags import Flag, find_flags
from .metrics import COMPLETIONS, Metric, course, is_never_a_number, metrics, phases, start_and_end
from .runs import Run


@dataclass(frozen=True)
class Row:
    """
    A quantity of one arm in one phase.

    Attributes:
        start, end: over the runs that have the quantity (see `metrics.start_and_end`); `None` where no run has it, and
            `start` also where no run has two points.
        change: end minus start over the runs that have both.
        difference: of the ends from the first arm's; `None` for the first arm, or where one of both has no value.
        sources: where it was read for any arm, of `metrics.LOGS` and `metrics.COMPLETIONS`.
    """

    phase: str
    metric: Metric
    arm: Arm
    start: Estimate | None
    end: Estimate | None
    change: Estimate | None
    difference: Difference | None
    sources: frozenset[str]


@dataclass(frozen=True)
class Curve:
    """The values of an arm's runs at the steps they share, and their mean at each with its 95% interval."""

    steps: list[int]
    estimates: list[Estimate]
    runs: list[list[float]]

    @property
    def range(self) -> tuple[float, float]:
        """The smallest and the largest value of any run, to which pictures are cut."""
        return min(map(min, self.runs)), max(map(max, self.runs))

    @property
    def intervals(self) -> list[float | None]:
        """Half widths of the intervals that pictures show: from three runs on, since that of two tells nothing."""
        return [point.half_width if point.count >= 3 else None for point in self.estimates]


@dataclass(frozen=True)
class Comparison:
    """Everything a report shows. `flags` are (run name, flag); `notes` map a sentence to the runs it applies to."""

    arms: list[Arm]
    phases: list[str]
    metrics: tuple[Metric, ...]
    rows: list[Row]
    flags: list[tuple[str, Flag]]
    notes: dict[str, list[str]]

    def curve(self, metric: Metric, phase: str, arm: Arm) -> Curve | None:
        """The curve of a quantity, `None` where the arm's runs that have it share no step."""
        courses = [found for run in arm.runs if (found := course(run, metric, phase)) is not None]
        by_step = [dict(found.points) for found in courses]
        steps = sorted(set.intersection(*map(set, by_step))) if by_step else []
        if not steps:
            return None
        values = [[points[step] for step in steps] for points in by_step]
        return Curve(steps, [estimate(at_step) for at_step in zip(*values, strict=True)], values)


def compare(arms: Sequence[Arm], patterns: Mapping[str, Pattern[str]] = BACKTRACK_PATTERNS) -> Comparison:
    """
    Compare arms, all against the first.

    Args:
        arms: from `arms.group_runs`, or put together by hand.
        patterns: the kinds of backtrack that the runs were read with.
    """
    quantities = metrics(patterns)
    runs = [run for arm in arms for run in arm.runs]
    shown_phases = phases(runs)
    rows = [row for phase in shown_phases for metric in quantities for row in _rows(arms, metric, phase)]
    notes: dict[str, list[str]] = {}
    for run in runs:
        for note in run.notes:
            notes.setdefault(note, []).append(run.name)
    for run in runs:
        for note in _gaps(run, quantities, shown_phases):
            notes.setdefault(note, []).append(run.name)
    for phase, metric in {(row.phase, row.metric): None for row in rows if len(row.sources) > 1}:
        for run in runs:
            if (found := course(run, metric, phase)) is not None and found.source == COMPLETIONS:
                note = f"{metric.label} ({phase}) comes from logged completions, that of other runs from the logs"
                notes.setdefault(note, []).append(run.name)
    return Comparison(
        arms=list(arms),
        phases=shown_phases,
        metrics=quantities,
        rows=rows,
        flags=[(run.name, flag) for run in runs for flag in find_flags(run, quantities)],
        notes=notes,
    )


def _rows(arms: Sequence[Arm], metric: Metric, phase: str) -> list[Row]:
    rows = []
    courses = [[(run.seed, course(run, metric, phase)) for run in arm.runs] for arm in arms]
    sources = frozenset(found.source for of_arm in courses for _, found in of_arm if found is not None)
    for arm, of_arm in zip(arms, courses, strict=True):
        figures = [(seed, *start_and_end(found, phase)) for seed, found in of_arm if found is not None]
        ends = [(seed, end) for seed, _, end in figures]
        if arm is arms[0]:
            base = ends
        with_start = [(start, end) for _, start, end in figures if start is not None]
        rows.append(
            Row(
                phase=phase,
                metric=metric,
                arm=arm,
                start=_estimate([start for start, _ in with_start]),
                end=_estimate([end for _, end in ends]),
                change=_estimate([end - start for start, end in with_start]),
                difference=difference(ends, base) if base and ends and arm is not arms[0] else None,
                sources=sources,
            )
        )
    return rows if sources else []


def _estimate(values: Sequence[float]) -> Estimate | None:
    return estimate(values) if values else None


def _gaps(run: Run, quantities: Sequence[Metric], shown_phases: Sequence[str]) -> Iterator[str]:
    """Where a quantity was logged without being a number, first, last or always: its start or end is another step."""
    for phase in shown_phases:
        for metric in quantities:
            name = f"{metric.label} ({phase})"
            if is_never_a_number(run, metric, phase):
                yield f"{name} was logged, but never as a finite number"
            found = course(run, metric, phase)
            if found is None:
                continue
            first, last = found.points[0][0], found.points[-1][0]
            if last < found.last_step:
                yield (
                    f"{name} is not a number after step {last}, so its end is taken there and not at step "
                    f"{found.last_step}"
                )
            if first > found.first_step:
                yield (
                    f"{name} is not a number before step {first}, so its start is taken there and not at step "
                    f"{found.first_step}"
                )


def show_estimate(value: Estimate | None, decimals: int, signed: bool = False) -> str:
    """ "0.909 ± 0.041", or a dash where there is no value."""
    if value is None:
        return "–"
    sign = "+" if signed else ""
    text = f"{value.mean:{sign}.{decimals}f}"
    if value.half_width is None or math.isinf(value.half_width):
        return text
    return f"{text} ± {value.half_width:.{decimals}f}"


def show_difference(value: Difference | None, decimals: int) -> str:
    """The difference with its sign, and how it was taken: "(3 pairs)", "(unpaired)"; for single runs nothing."""
    if value is None:
        return "–"
    text = show_estimate(value.estimate, decimals, signed=True)
    if value.num_pairs:
        return f"{text} ({value.num_pairs} pairs)"
    return text if value.estimate.half_width is None else f"{text} (unpaired)"


def seed_of(run: Run) -> str:
    """ "seed 1", or "seed unknown"."""
    return f"seed {'unknown' if run.seed is None else run.seed}"


def counted_runs(row: Row) -> str:
    """ "3 runs", or "2 of 3 runs" where the others lack the quantity."""
    have, total = row.end.count if row.end is not None else 0, len(row.arm.runs)
    plural = "" if total == 1 else "s"
    return f"{total} run{plural}" if have == total else f"{have} of {total} run{plural}"


def label_of(row: Row) -> str:
    """Name of the quantity, starred where it was read off logged completions."""
    return f"{row.metric.label}*" if COMPLETIONS in row.sources else row.metric.label
