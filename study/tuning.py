"""What the cells of the grid's part "tuning" say the settings should be; `arms.py` holds them.

    PYTHONPATH=examples python -m study.tuning          # after: python study/run.py --parts tuning

They run on seeds that nothing else uses, so that no result that is reported has had a say in them. What has not been
tuned yet takes over GRPO's learning rate of the same task.
"""

from collections import defaultdict
from collections.abc import Iterable
from statistics import mean
from typing import Any

from . import records
from .arms import ALGORITHMS, ARMS
from .grid import ALPHA_TASKS, TUNING_SEEDS, tuning
from .tasks import TASKS

TIE = 0.02
"""Accuracies that differ by less than this are taken as equal."""

Key = tuple[str, str, str, str, float]
"""Task, algorithm, arm, name and value of the setting."""


def settings_in_use() -> dict[str, float]:
    """What `arms.py` has, under the names that `chosen` uses."""
    found = {
        f"learning rate, {name}, {task}": algorithm.learning_rate[task]
        for name, algorithm in ALGORITHMS.items()
        for task in TASKS
    }
    found["alpha of the recipe"] = ARMS["recipe"].settings["repro_alpha"]
    return found | {f"length penalty, {task}": ARMS["length"].length_penalty[task] for task in TASKS}


def chosen(all_records: Iterable[dict[str, Any]]) -> dict[str, float]:
    """What the raw results choose, for the settings whose cells have all been run.

    The learning rate of each plain algorithm on each task: the lowest whose accuracy at the end is within `TIE` of the
    best, because the highest rates that do well on two seeds collapse on others. The recipe's alpha: that of the
    highest accuracy over the tasks that it is tuned on. The weight of the length penalty: that with which thoughts get
    as long as with RePro in the paper's form.
    """
    all_records = list(all_records)
    done = {records.cell_of(record).name for record in all_records}
    evaluations = by_setting(all_records)

    def is_done(arms: tuple[str, ...], tasks: tuple[str, ...], algorithm: str = "grpo") -> bool:
        wanted = [cell for cell in tuning() if cell.arm in arms and cell.task in tasks and cell.algorithm == algorithm]
        return all(cell.name in done for cell in wanted)

    found: dict[str, float] = {}
    for name in ALGORITHMS:
        for task in TASKS:
            if is_done(("plain",), (task,), name):
                rates = _means(evaluations, "accuracy", task, name, "plain", "learning_rate")
                found[f"learning rate, {name}, {task}"] = min(r for r in rates if rates[r] > max(rates.values()) - TIE)
    if is_done(("recipe",), ALPHA_TASKS):
        alphas = [_means(evaluations, "accuracy", task, "grpo", "recipe", "repro_alpha") for task in ALPHA_TASKS]
        found["alpha of the recipe"] = max(alphas[0], key=lambda alpha: sum(values[alpha] for values in alphas))
    for task in TASKS:
        if is_done(("length", "repro"), (task,)):
            (target,) = _means(evaluations, "thinking_tokens", task, "grpo", "repro", "repro_alpha").values()
            penalties = _means(evaluations, "thinking_tokens", task, "grpo", "length", "length_penalty")
            found[f"length penalty, {task}"] = min(penalties, key=lambda weight: abs(penalties[weight] - target))
    return found


def by_setting(all_records: Iterable[dict[str, Any]]) -> dict[Key, list[dict[str, Any]]]:
    """The evaluations at the end of training of the tuning seeds."""
    found: dict[Key, list[dict[str, Any]]] = defaultdict(list)
    for record in all_records:
        if record["seed"] in TUNING_SEEDS:
            last = list(record["evaluations"].values())[-1]
            for name, value in record["overrides"].items():
                found[record["task"], record["algorithm"], record["arm"], name, value].append(last)
    return found


def _means(evaluations: dict[Key, list[dict[str, Any]]], measure: str, *cell: str) -> dict[float, float]:
    """Means over seeds, by the value of the setting."""
    return {
        value: mean(last[measure] for last in found)
        for (*place, value), found in evaluations.items()
        if tuple(place) == cell
    }


if __name__ == "__main__":
    choice = chosen(records.read(records.CELLS_FILE))
    for name, used in settings_in_use().items():
        remark = "not tuned" if name not in choice else "" if choice[name] == used else f"tuned: {choice[name]:g}"
        print(f"{name}: {used:g}" + (f"   ({remark})" if remark else ""))
