"""What the cells of the grid's part "tuning" say the settings should be; `arms.py` holds them.

    cd examples && python -m replicate.tuning          # after: python replicate/run.py --parts tuning

They run on seeds that nothing else uses, so that no result that is reported has had a say in them.
"""

from collections import defaultdict
from collections.abc import Iterable
from statistics import mean
from typing import Any

from . import records
from .arms import ALGORITHMS, ARMS
from .grid import TUNING_SEEDS, tuning
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
    """What the raw results choose.

    The learning rate of each plain algorithm on each task: the lowest whose accuracy at the end is within `TIE` of the
    best, because the highest rates that do well on two seeds collapse on others. The recipe's alpha: that of the
    highest accuracy over both tasks. The weight of the length penalty: that with which thoughts get as long as with
    RePro in the paper's form.

    Raises:
        ValueError: cells of the part are missing.
    """
    all_records = [record for record in all_records if record["seed"] in TUNING_SEEDS]
    done = {records.cell_of(record).name for record in all_records}
    missing = [cell.name for cell in tuning() if cell.name not in done]
    if missing:
        raise ValueError(f"{len(missing)} cells are missing, such as {missing[0]!r}: run run.py --parts tuning first.")
    accuracy, tokens = _means(all_records, "accuracy"), _means(all_records, "thinking_tokens")
    found: dict[str, float] = {}
    for name in ALGORITHMS:
        for task in TASKS:
            rates = _values(accuracy, task, name, "plain", "learning_rate")
            found[f"learning rate, {name}, {task}"] = min(r for r in rates if rates[r] > max(rates.values()) - TIE)
    alphas = [_values(accuracy, task, "grpo", "recipe", "repro_alpha") for task in TASKS]
    found["alpha of the recipe"] = max(alphas[0], key=lambda alpha: sum(values[alpha] for values in alphas))
    for task in TASKS:
        (target,) = _values(tokens, task, "grpo", "repro", "repro_alpha").values()
        penalties = _values(tokens, task, "grpo", "length", "length_penalty")
        found[f"length penalty, {task}"] = min(penalties, key=lambda weight: abs(penalties[weight] - target))
    return found


def _means(all_records: Iterable[dict[str, Any]], measure: str) -> dict[Key, float]:
    """Means over seeds, at the end of training."""
    found: dict[Key, list[float]] = defaultdict(list)
    for record in all_records:
        for name, value in record["overrides"].items():
            last = list(record["evaluations"].values())[-1]
            found[record["task"], record["algorithm"], record["arm"], name, value].append(last[measure])
    return {key: mean(values) for key, values in found.items()}


def _values(means: dict[Key, float], *cell: str) -> dict[float, float]:
    return {value: result for (*found, value), result in means.items() if tuple(found) == cell}


if __name__ == "__main__":
    used = settings_in_use()
    for name, value in chosen(records.read(records.CELLS_FILE)).items():
        print(f"{name}: {value:g}" + ("" if used[name] == value else f"   (arms.py has {used[name]:g})"))
