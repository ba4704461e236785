"""What a report compares: each quantity, where it is read, and its course over a run."""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from operator import attrgetter

from .completions import ThoughtStatistics
from .runs import EVALUATION_PREFIX, Run

HELD_OUT, TRAINING = "held out", "training"
TASK = "task "
"""Phases: the trainer's own evaluations, its training, and each task that `repro_trl.evaluation` measured meanwhile,
whose phase begins with this."""

LOGS, COMPLETIONS = "logs", "completions"

WINDOW = 5
"""Training figures of the start and the end of a run are means over the first and the last fifth of its points."""


@dataclass(frozen=True)
class Metric:
    """
    A quantity of a run.

    Attributes:
        key, label: its name in code, and for readers.
        unit: what it is counted in.
        decimals: digits after the point.
        log_key: its name in the log history, without "eval_"; `{accuracy}` is the accuracy reward. `None`: not logged.
        of_completions: reads it off logged completions. `None`: cannot be read off them.
        task_key: its name among the figures of a task. `None`: it is none of them.
    """

    key: str
    label: str
    unit: str
    decimals: int
    log_key: str | None = None
    of_completions: Callable[[ThoughtStatistics], float] | None = None
    task_key: str | None = None


def metrics(kinds: Mapping[str, object]) -> tuple[Metric, ...]:
    """All quantities, in the order of the report; `kinds` of backtrack in theirs."""
    of_kind = {kind: lambda statistics, kind=kind: statistics.backtracks_by_kind[kind] for kind in kinds}
    tokens, segments = "tokens", "segments per completion"
    in_all, right, wrong = map(attrgetter, ("thinking_tokens", "thinking_tokens_correct", "thinking_tokens_wrong"))
    return (
        Metric("accuracy", "accuracy", "share", 3, "rewards/{accuracy}/mean", attrgetter("accuracy"), "accuracy"),
        Metric("thinking_tokens", "thinking tokens", tokens, 1, "thinking_tokens", in_all, "thinking_tokens"),
        Metric("thinking_tokens_correct", "thinking tokens, correct", tokens, 1, None, right, "thinking_tokens_right"),
        Metric("thinking_tokens_wrong", "thinking tokens, wrong", tokens, 1, None, wrong, "thinking_tokens_wrong"),
        Metric("backtracks", "backtracks", segments, 3, "backtracks", attrgetter("backtracks"), "backtracks"),
        *(Metric(f"backtracks/{kind}", f"backtracks, {kind}", segments, 3, None, of_kind[kind]) for kind in kinds),
        Metric("truncated", "truncated", "share", 3, "completions/clipped_ratio", None, "truncation_rate"),
        Metric("objective_gain", "J gain", "nats per token", 3, "repro/objective_gain"),
        Metric("objective_auc", "J AUC", "correct against wrong", 3, "repro/objective_auc"),
        Metric("process_reward", "process reward", "per segment", 4, "repro/process_reward/mean"),
        Metric("empty_thoughts", "empty thoughts", "share", 3, None, attrgetter("empty_thoughts")),
    )


def phases(runs: Iterable[Run]) -> list[str]:
    """The phases that a report of these runs has: held out, the tasks that any run evaluated, training."""
    pattern = re.compile(rf"{EVALUATION_PREFIX}(.+)/accuracy")
    keys = dict.fromkeys(key for run in runs for entry in run.log for key in entry)
    return [HELD_OUT, *(f"{TASK}{match[1]}" for key in keys if (match := pattern.fullmatch(key))), TRAINING]


@dataclass(frozen=True)
class Course:
    """
    A quantity over the steps of one run in one phase: (step, value) pairs, at the steps at which the value is a finite
    number; which of LOGS and COMPLETIONS they are from; and the steps between which it was logged, with any value.
    """

    points: tuple[tuple[int, float], ...]
    source: str
    first_step: int
    last_step: int


def course(run: Run, metric: Metric, phase: str) -> Course | None:
    """
    The course of a quantity, or `None` where the run has no value of it.

    Logs cover every completion and go before completions, of which TRL keeps one generation batch a file; backtracks
    are the exception, so that their sum and their kinds are counted on the same texts with the same phrases.
    """
    readers = [_from_logs, _from_completions]
    if metric.key == "backtracks":
        readers.reverse()
    return next((found for read in readers if (found := read(run, metric, phase)) is not None), None)


def _from_logs(run: Run, metric: Metric, phase: str) -> Course | None:
    key = _log_key(run, metric, phase)
    # Of several evaluations at one step the last counts.
    return _course({entry["step"]: entry[key] for entry in run.log if key is not None and key in entry}, LOGS)


def _course(values: Mapping[int, float], source: str) -> Course | None:
    points = tuple((step, float(value)) for step, value in sorted(values.items()) if math.isfinite(value))
    return Course(points, source, min(values), max(values)) if points else None


def is_never_a_number(run: Run, metric: Metric, phase: str) -> bool:
    """Whether a quantity was logged, and each time as NaN or infinite."""
    key = _log_key(run, metric, phase)
    values = [entry[key] for entry in run.log if key is not None and key in entry]
    return bool(values) and not any(map(math.isfinite, values))


def _log_key(run: Run, metric: Metric, phase: str) -> str | None:
    if phase.startswith(TASK):
        return metric.task_key and f"{EVALUATION_PREFIX}{phase.removeprefix(TASK)}/{metric.task_key}"
    if metric.log_key is None or ("{accuracy}" in metric.log_key and run.accuracy_reward is None):
        return None
    key = metric.log_key.format(accuracy=run.accuracy_reward)
    return f"{EVALUATION_PREFIX}{key}" if phase == HELD_OUT else key


def _from_completions(run: Run, metric: Metric, phase: str) -> Course | None:
    if metric.of_completions is None or phase.startswith(TASK):
        return None
    statistics = run.held_out if phase == HELD_OUT else run.training
    return _course({step: metric.of_completions(statistics[step]) for step in statistics}, COMPLETIONS)


def start_and_end(course: Course, phase: str) -> tuple[float | None, float]:
    """
    Figures of the start and the end of a run. Evaluations: the first and the last. Training: means over the first and
    the last fifth of the points, at least one each. The start is `None` where there is one point only.
    """
    values = [value for _, value in course.points]
    width = max(1, len(values) // WINDOW) if phase == TRAINING else 1
    end = math.fsum(values[-width:]) / width
    return (math.fsum(values[:width]) / width if len(values) > 1 else None), end
