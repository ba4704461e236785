"""The raw results by what tables, verdicts and plot ask for, and how numbers are written."""

from collections import defaultdict
from typing import Any

from . import tasks
from .grid import LONGER_STEPS
from .intervals import MIN_SEEDS, Interval, interval, paired

TASKS = tuple(tasks.TASKS)
ALGORITHMS = {
    "grpo": "GRPO",
    "reinforce_pp": "REINFORCE++",
    "reinforce_pp_baseline": "REINFORCE++ Baseline",
    "ppo": "PPO",
}
MEASURES = {
    "accuracy": "accuracy",
    "halfway": "accuracy halfway",
    "learning": "accuracy while training",
    "thinking_tokens": "thinking tokens",
    "backtracks": "backtracks",
    "objective_gain": "J gain",
}
DIGITS = {"accuracy": 3, "halfway": 3, "learning": 3, "thinking_tokens": 1, "backtracks": 2, "objective_gain": 2}
BETTER = {"accuracy": 1, "halfway": 1, "learning": 1, "thinking_tokens": -1, "backtracks": -1, "objective_gain": 1}
MARGINS = {
    "accuracy": 0.02,
    "halfway": 0.02,
    "learning": 0.02,
    "thinking_tokens": 1.0,
    "backtracks": 0.1,
    "objective_gain": 0.05,
}
"""The least difference that would matter."""

NOT_RUN = "not run"

Values = dict[int, float]  # by seed


class Results:
    """The raw records, by what the tables ask for."""

    def __init__(self, all_records: list[dict[str, Any]]) -> None:
        self.records = all_records
        self.cells = {(r["task"], r["algorithm"], r["arm"], r["seed"]): r for r in all_records if not r["overrides"]}

    def longer(self) -> "Results":
        """Those of the runs with three times the steps."""
        overrides = {"max_steps": LONGER_STEPS}
        return Results([r | {"overrides": {}} for r in self.records if r["overrides"] == overrides])

    def values(self, task: str, algorithm: str, arm: str, measure: str) -> Values:
        """A measure at the end of training, for each seed. `halfway`: accuracy after half of the steps; `learning`:
        its mean over the rollouts of all steps.
        """
        found = {}
        for (*cell, seed), record in self.cells.items():
            if tuple(cell) == (task, algorithm, arm):
                found[seed] = measure_of(record, measure)
        return found

    def difference(self, task: str, algorithm: str, arm: str, other: str, measure: str) -> Interval | None:
        """Paired difference arm − other."""
        return paired(self.values(task, algorithm, arm, measure), self.values(task, algorithm, other, measure))

    def gain(self, task: str, algorithm: str, arm: str, other: str, measure: str) -> Interval | None:
        """The paired difference, positive where arm is better."""
        difference = self.difference(task, algorithm, arm, other, measure)
        return difference if difference is None or BETTER[measure] > 0 else -difference

    def pairs(self, algorithms: list[str], arm: str, other: str) -> list[tuple[str, str]]:
        """Tasks and algorithms on which both arms have as many seeds as a verdict takes."""
        pairs = [(task, algorithm) for task in TASKS for algorithm in algorithms]
        found = {pair: self.difference(*pair, arm, other, "accuracy") for pair in pairs}
        return [pair for pair, difference in found.items() if difference is not None and difference.n >= MIN_SEEDS]

    def pooled_gain(self, algorithms: list[str], arm: str, other: str, measure: str) -> Interval | None:
        """Mean gain over the tasks and algorithms that were run, one value for each seed that all of them have."""
        gains: dict[int, list[float]] = defaultdict(list)
        pairs = self.pairs(algorithms, arm, other)
        for task, algorithm in pairs:
            ours, theirs = (self.values(task, algorithm, name, measure) for name in (arm, other))
            for seed in ours.keys() & theirs.keys():
                gains[seed].append(BETTER[measure] * (ours[seed] - theirs[seed]) / MARGINS[measure])
        complete = [sum(values) / len(values) for values in gains.values() if len(values) == len(pairs)]
        return interval(complete) if complete else None


def measure_of(record: dict[str, Any], measure: str) -> float:
    """One number of one cell."""
    if measure == "learning":
        curve = [step["accuracy"] for step in record["curve"]]
        return sum(curve) / len(curve)
    if measure == "halfway":
        return next(iter(record["evaluations"].values()))["accuracy"]
    return list(record["evaluations"].values())[-1][measure]


def table(head: list[str], rows: list[list[str]]) -> str:
    """Markdown."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def number(found: Interval | None, measure: str, sign: bool = False) -> str:
    """Mean ± half-width."""
    if found is None:
        return "–"
    digits = DIGITS[measure]
    mean = f"{found.mean:{'+' if sign else ''}.{digits}f}"
    return mean if found.n == 1 else f"{mean} ± {found.half_width:.{digits}f}"


def mean_of(values: Values) -> Interval | None:
    """Over seeds."""
    return interval(list(values.values())) if values else None


def start_aucs(results: Results, task: str, form: str, name: str) -> list[float]:
    """AUC of r at the start, one value per seed. `form`: "repro" or "recipe"."""
    found = [
        record["evaluations"]["0"][f"auc {form}"][name]
        for (cell_task, algorithm, _, _), record in results.cells.items()
        if (cell_task, algorithm) == (task, "start")
    ]
    return [value for value in found if value is not None]


def cosine_values(results: Results, task: str, part: str = "cosines") -> dict[str, Values]:
    """Mean cosine over the small batches of each seed, by arm. `part`: "cosines", "thought cosines" or, by label,
    "leads".
    """
    found: dict[str, Values] = defaultdict(dict)
    for (name, algorithm, _, seed), record in results.cells.items():
        if (name, algorithm) == (task, "instruments"):
            for arm, values in record[part].items():
                found[arm][seed] = sum(values) / len(values)
    return found


def health_records(results: Results, task: str) -> dict[int, dict[str, Any]]:
    """By seed, the cells of the part "health"."""
    return {
        seed: record
        for (cell_task, algorithm, _, seed), record in results.cells.items()
        if (cell_task, algorithm) == (task, "health")
    }


def health_values(results: Results, task: str, name: str, key: str) -> Values:
    """By seed, a value of the cells of the part "health"."""
    return {seed: record[name][key] for seed, record in health_records(results, task).items()}
