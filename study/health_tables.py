"""The tables of `docs/results.md` on the starting policies, and on where they are asked for the answer."""

from collections import defaultdict

from .figures import ALGORITHMS, NOT_RUN, TASKS, Results, health_records, health_values, number, table
from .grid import OTHERS
from .health import NEUTRAL
from .intervals import MIN_SEEDS, Interval, interval, paired

AS_GOOD = 0.02
"""A loss of AUC or accuracy below which one form is as good as another."""


def health_table(results: Results) -> str:
    """Is each starting policy what the study needs?"""
    rows = []
    for task in TASKS:
        found = health_records(results, task).values()
        if not found:
            continue
        aucs = [
            number(interval([record["objective auc"][form] for record in found]), "accuracy")
            for form in ("repro", "recipe")
        ]
        shares = [
            number(interval([record[name] for record in found]), "halfway") for name in ("beyond k", "longer gain")
        ]
        neutral = interval([sum(record["labels"].get(label, 0) for label in NEUTRAL) for record in found])
        settled = []
        for form in ("repro", "recipe"):
            columns = zip(*(record["objective by steps"][form] for record in found), strict=False)
            settled.append(", ".join(f"{interval(column).mean:.2f}" for column in columns))
        rows.append([task, *aucs, shares[0], number(neutral, "accuracy"), shares[1], *settled])
    head = [
        *("task", "J, right or wrong: paper's form", "recipe", "more than k starts", "neutral segments"),
        *("accuracy of longer thoughts", "J after 0, 1, … right steps: paper's form", "recipe"),
    ]
    return table(head, rows)


def signal_table(results: Results) -> str:
    """AUC of r of RePro and of its rivals, on the same scored completions."""
    by_arm: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for (task, algorithm, _, _), record in results.cells.items():
        if algorithm == "health":
            for arm, kinds in record["auc"].items():
                for kind, value in kinds.items():
                    by_arm[task, arm][kind].append(value)
    rows = [
        [task, arm, *(number(interval(found[kind]), "accuracy") for kind in ("useful", "inner", "step"))]
        for (task, arm), found in sorted(by_arm.items(), key=lambda item: TASKS.index(item[0][0]))
    ]
    return table(["task", "signal", "useful", "useful, inner", "right or wrong"], rows)


def auto_table(results: Results) -> str:
    """What `repro_answer_prefix="auto"` finds, and what it is worth against the paper's form."""
    rows = []
    for task in TASKS:
        records = health_records(results, task).values()
        if not records:
            continue
        forms: dict[str, int] = defaultdict(int)
        for record in records:
            chosen = record["auto"]["chosen"]
            forms["none" if chosen is None else f"`{chosen['prefix']!r}`"] += 1
        found = ", ".join(f"{form} ({count} of {len(records)})" for form, count in forms.items())
        rows.append([task, found, *auto_verdicts(results, task), _auto_elsewhere(results, task)])
    head = ["task", "prefix found in the first batch, of seeds", "J, right or wrong: auto − paper's form"]
    head += ["r of useful segments: auto − paper's form", "accuracy after training: auto − paper's form"]
    head += ["the same, other algorithms"]
    return table(head, rows)


def auto_verdicts(results: Results, task: str) -> list[str]:
    """AUC of J, AUC of r and accuracy: the paper's form with "auto" less without it, each with its verdict."""
    differences = [
        paired(
            health_values(results, task, "objective auc", "auto"),
            health_values(results, task, "objective auc", "repro"),
        ),
        paired(_useful(results, task, "prefix auto"), _useful(results, task, "repro")),
        results.difference(task, "grpo", "prefix auto", "repro", "accuracy"),
    ]
    return [f"{number(found, 'accuracy', True)} ({verdict_not_worse(found)})" for found in differences]


def _auto_elsewhere(results: Results, task: str) -> str:
    lines = []
    for algorithm in OTHERS:
        found = results.difference(task, algorithm, "prefix auto", "repro", "accuracy")
        if found is not None:
            lines.append(f"{ALGORITHMS[algorithm]}: {number(found, 'accuracy', True)} ({verdict_not_worse(found)})")
    return "<br>".join(lines) or NOT_RUN


def _useful(results: Results, task: str, arm: str) -> dict[int, float]:
    return {seed: kinds["useful"] for seed, kinds in health_values(results, task, "auc", arm).items()}


def verdict_not_worse(difference: Interval | None) -> str:
    """ "better": the whole interval lies above 0. "worse": below 0. "as good": above −`AS_GOOD`. Else "unclear"."""
    if difference is None:
        return NOT_RUN
    if difference.n < MIN_SEEDS:
        return f"unclear, {difference.n} seed{'s' * (difference.n > 1)}"
    if difference.low > 0:
        return "better"
    if difference.high < 0:
        return "worse"
    return "as good" if difference.low > -AS_GOOD else "unclear"
