"""The tables of `docs/results.md`."""

from collections import defaultdict

from . import records
from .arms import ALGORITHMS as ALGORITHM_SETTINGS
from .arms import ARMS
from .figures import (
    ALGORITHMS,
    DIGITS,
    MARGINS,
    MEASURES,
    TASKS,
    Results,
    cosine_values,
    mean_of,
    measure_of,
    number,
    table,
)
from .grid import (
    ABLATION_SEEDS,
    AUTO,
    CONTROLS,
    LONGER,
    LONGER_CONTROLS,
    LONGER_STEPS,
    MORE_SEEDS,
    PARTS,
    RIVALS,
    SEEDS,
    rates,
)
from .intervals import interval, paired, verdict_better
from .tuning import by_setting

TUNED = ("accuracy", "thinking_tokens", "backtracks")


def start_table(results: Results) -> str:
    names = ["accuracy", "thinking_tokens", "backtracks", "segments", "truncated"]
    rows = []
    for task in TASKS:
        found = [mean_of(results.values(task, "start", "start", name)) for name in names]
        if found[0] is None:
            continue
        digits = ["accuracy", "thinking_tokens", "backtracks", "thinking_tokens", "accuracy"]
        rows.append([task, *(number(value, digit) for value, digit in zip(found, digits, strict=True))])
    return table(["task", "accuracy", "thinking tokens", "backtracks", "segments", "truncated"], rows)


def main_table(results: Results) -> str:
    rows = []
    for task in TASKS:
        for algorithm, name in ALGORITHMS.items():
            for arm, label in {"plain": name, "repro": "+ RePro", "recipe": "+ recipe"}.items():
                values = {m: results.values(task, algorithm, arm, m) for m in MEASURES}
                if values["accuracy"]:
                    seeds = str(len(values["accuracy"]))
                    rows.append([task, label, seeds, *(number(mean_of(values[m]), m) for m in MEASURES)])
    return table(["task", "", "seeds", *MEASURES.values()], rows)


def paired_table(results: Results) -> str:
    rows = []
    for task in TASKS:
        for algorithm, name in ALGORITHMS.items():
            for arm, label in {"repro": "RePro", "recipe": "recipe"}.items():
                rows += difference_rows(results, task, algorithm, arm, "plain", f"{name}, {label} − plain")
    return table(["task", "paired difference", "seeds", *MEASURES.values()], rows)


def difference_rows(results: Results, task: str, algorithm: str, arm: str, other: str, label: str) -> list[list[str]]:
    """One row with the paired differences and their verdicts; none where no seed has both arms."""
    row = [task, label]
    for measure in MEASURES:
        difference = results.difference(task, algorithm, arm, other, measure)
        if difference is None:
            return []
        verdict = verdict_better(results.gain(task, algorithm, arm, other, measure), MARGINS[measure])
        row += [str(difference.n)] * (len(row) == 2) + [f"{number(difference, measure, True)} ({verdict})"]
    return [row]


def arms_table(results: Results, arms: list[str]) -> str:
    """GRPO: means of some arms."""
    rows = []
    for task in TASKS:
        for arm in arms:
            values = {m: results.values(task, "grpo", arm, m) for m in MEASURES}
            if values["accuracy"]:
                seeds = str(len(values["accuracy"]))
                rows.append([task, arm, seeds, *(number(mean_of(values[m]), m) for m in MEASURES)])
    return table(["task", "arm", "seeds", *MEASURES.values()], rows)


def control_table(results: Results) -> str:
    pairs = [
        ("repro", "plain"),
        ("repro", "shuffled"),
        ("repro", "constants"),
        ("repro", "length"),
        ("recipe", "plain"),
        ("recipe", "repro"),
        ("recipe", "recipe shuffled"),
        ("recipe", "recipe constants"),
        ("recipe", "length"),
        ("vps", "plain"),
        ("vps", "vps shuffled"),
        ("recipe", "vps"),
        ("recipe", "vsrm"),
    ]
    rows = []
    for task in TASKS:
        for arm, other in pairs:
            rows += difference_rows(results, task, "grpo", arm, other, f"{arm} − {other}")
    return table(["task", "paired difference", "seeds", *MEASURES.values()], rows)


def ablation_table(results: Results) -> str:
    arms = sorted({arm for _, algorithm, arm, _ in results.cells if algorithm == "grpo"})
    rows = []
    for task in TASKS:
        for arm in arms:
            if arm in {"plain", "repro", *CONTROLS, *AUTO, *RIVALS}:
                continue
            other = "recipe" if arm.startswith("recipe") else "repro"
            found = [results.difference(task, "grpo", arm, other, measure) for measure in MEASURES]
            if found[0] is not None:
                cells = [number(value, measure, True) for value, measure in zip(found, MEASURES, strict=True)]
                rows.append([task, f"{arm} − {other}", str(found[0].n), *cells])
    return table(["task", "paired difference", "seeds", *MEASURES.values()], rows)


def auc_table(results: Results) -> str:
    """AUCs at the start, of every arm."""
    by_arm: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for (task, algorithm, _, _), record in results.cells.items():
        if algorithm == "instruments":
            for arm, found in record["auc"].items():
                for kind, values in found.items():
                    for name, value in values.items():
                        by_arm[task, arm][f"{kind} {name}"].append(value)
    columns = ["r useful", "r inner", "r step", "total useful", "total step"]
    rows = [
        [task, arm, *(number(interval(found[c]), "accuracy") if c in found else "" for c in columns)]
        for (task, arm), found in sorted(by_arm.items(), key=lambda item: TASKS.index(item[0][0]))
    ]
    head = [
        "task",
        "arm",
        "r: useful",
        "r: useful, inner",
        "r: right or wrong",
        "total: useful",
        "total: right or wrong",
    ]
    return table(head, rows)


def auc_over_time_table(results: Results) -> str:
    """AUCs along the training of GRPO's arms, by the same measuring stick for all."""
    columns = ["auc repro", "auc recipe", "auc repro total", "auc recipe total", "auc outcome"]
    rows = []
    for task in TASKS:
        for algorithm, arm in (("start", "start"), ("grpo", "plain"), ("grpo", "repro"), ("grpo", "recipe")):
            by_step: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
            for (*cell, _), record in results.cells.items():
                if tuple(cell[:3]) == (task, algorithm, arm):
                    for step, found in record["evaluations"].items():
                        for column in columns:
                            if found[column]["useful"] is not None:
                                by_step[step][column].append(found[column]["useful"])
            for step in sorted(by_step, key=int):
                cells = [number(interval(by_step[step][c]), "accuracy") for c in columns]
                rows.append([task, arm, step, *cells])
    head = [
        "task",
        "policy",
        "step",
        "r, paper's form",
        "r, recipe",
        "total, paper's form",
        "total, recipe",
        "outcome",
    ]
    return table(head, rows)


SHUFFLED_OF = {"repro": "shuffled", "recipe": "recipe shuffled", "labels": "labels shuffled"}


def cosine_table(results: Results) -> str:
    rows = []
    for task in TASKS:
        whole, thought = (cosine_values(results, task, part) for part in ("cosines", "thought cosines"))
        for arm in whole:
            cells = []
            for found in (whole, thought):
                change = paired(found[arm], found["outcome"]) if arm != "outcome" else None
                shuffled = paired(found[arm], found[SHUFFLED_OF[arm]]) if arm in SHUFFLED_OF else None
                cells += [number(mean_of(found[arm]), "accuracy")]
                cells += [number(x, "accuracy", True) if x else "" for x in (change, shuffled)]
            rows.append([task, arm, *cells])
    less = ["less outcome alone", "less its shuffled control"]
    return table(["task", "arm", "cosine", *less, "thoughts alone: cosine", *less], rows)


def leads_table(results: Results) -> str:
    """What the segments of each label add to the cosine of the recipe's process gradient with the outcome's."""
    rows = []
    for task in TASKS:
        found = cosine_values(results, task, "leads")
        seeds = next(iter(found.values()), {})
        found["all"] = {seed: sum(values[seed] for values in found.values()) for seed in seeds}
        rows += [[task, label, number(mean_of(values), "accuracy", True)] for label, values in found.items()]
    return table(["task", "segments", "share of the cosine"], rows)


def longer_table(results: Results) -> str:
    """Three times the steps: means over seeds, and how much accuracy still rises."""
    found: dict[tuple[str, str], list[dict]] = defaultdict(list)
    for record in results.longer().records:
        found[record["task"], record["arm"]].append(record)
    rows = []
    order = (*LONGER, *LONGER_CONTROLS)
    for (task, arm), group in sorted(
        found.items(), key=lambda item: (TASKS.index(item[0][0]), order.index(item[0][1]))
    ):
        measures = ("halfway", "accuracy", "thinking_tokens", "backtracks")
        figures = [number(interval([measure_of(record, m) for record in group]), m) for m in measures]
        third = LONGER_STEPS // 3
        rises = [
            sum(step["accuracy"] for step in record["curve"][-third:]) / third
            - sum(step["accuracy"] for step in record["curve"][-2 * third : -third]) / third
            for record in group
        ]
        rows.append([task, arm, str(len(group)), *figures, number(interval(rises), "accuracy", True)])
    head = ["task", "arm", "seeds", "accuracy halfway", "accuracy", "thinking tokens", "backtracks"]
    return table([*head, "last third of the steps less the second"], rows) if rows else "Not run yet."


def longer_paired_table(results: Results) -> str:
    """Three times the steps: paired differences, with verdicts by the rules for the other runs."""
    longer, rows = results.longer(), []
    pairs = [(arm, "plain") for arm in (*LONGER, *LONGER_CONTROLS) if arm != "plain"]
    pairs += [("recipe", "repro"), ("repro", "constants"), ("repro", "shuffled")]
    pairs += [("recipe", "recipe constants"), ("recipe", "recipe shuffled")]
    for task in TASKS:
        for arm, other in pairs:
            rows += difference_rows(longer, task, "grpo", arm, other, f"{arm} − {other}")
    return table(["task", "paired difference", "seeds", *MEASURES.values()], rows)


def rates_table(results: Results) -> str:
    """The part "rates": each seed by itself, because means hide a collapse."""
    found = {records.cell_of(record).name: record for record in results.records}
    values: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for cell in rates():
        if cell.name in found:
            accuracy = measure_of(found[cell.name], "accuracy")
            rate = f"{cell.overrides['learning_rate']:g}"
            values[cell.task, rate, cell.arm].append(f"{accuracy:.{DIGITS['accuracy']}f}")
    rows = [[*key, *accuracies] for key, accuracies in sorted(values.items())]
    return table(["task", "learning rate", "arm", *(f"seed {seed}" for seed in SEEDS)], rows)


def tuning_table(results: Results) -> str:
    """Means over the tuning seeds; what `arms.py` took is bold."""
    found = by_setting(results.records)
    rows = []
    for (task, algorithm, arm, name, value), last in sorted(
        found.items(), key=lambda item: (*item[0][1:4], item[0][0], item[0][4])
    ):
        used = {
            "learning_rate": ALGORITHM_SETTINGS[algorithm].learning_rate[task],
            "length_penalty": ARMS[arm].length_penalty.get(task),
            "repro_alpha": (ARMS[arm].settings or {}).get("repro_alpha"),
        }[name]
        setting = f"{name} = {value:g}"
        means = [interval([one[measure] for one in last]).mean for measure in TUNED]
        figures = [f"{mean:.{DIGITS[measure]}f}" for mean, measure in zip(means, TUNED, strict=True)]
        rows.append([task, algorithm, arm, f"**{setting}**" if value == used else setting, str(len(last)), *figures])
    head = ["task", "algorithm", "arm", "setting", "seeds", *(MEASURES[measure] for measure in TUNED)]
    return table(head, rows)


def provenance(results: Results) -> str:
    """Date, commits, versions and number of cells."""
    dates = sorted({record["date"] for record in results.records})
    commits = list(dict.fromkeys(record["commit"] for record in results.records))
    versions = {f"{name} {number}" for record in results.records for name, number in record["versions"].items()}
    hours = sum(record["seconds"] for record in results.records) / 3600
    return (
        f"{len(results.records)} cells, {hours:.1f} hours on shared cores, {dates[0]} to {dates[-1]}; commits "
        f"{', '.join(f'`{commit}`' for commit in commits)}; {', '.join(sorted(versions))}; "
        f"{'; '.join(sorted({record['machine'] for record in results.records}))}. The whole grid has {len(SEEDS)} "
        f"seeds, {len(ABLATION_SEEDS)} for ablations, {len(SEEDS) + len(MORE_SEEDS)} for the headline arms of GRPO."
    )


def coverage_table(results: Results) -> str:
    """How much of each part of the grid is done."""
    done = {records.cell_of(record).name for record in results.records}
    rows = []
    for part, cells in PARTS.items():
        names = [(cell.task, cell.name in done) for cell in cells()]
        counts = [
            f"{sum(is_done for name, is_done in names if name == task)} of {sum(name == task for name, _ in names)}"
            for task in TASKS
        ]
        rows.append([part, *counts])
    return table(["cells done", *TASKS], rows)


def trace_table(results: Results) -> str:
    """One completion, segment by segment, under both forms; and how J moves where the thought is closed."""
    parts = []
    for (task, algorithm, _, _), record in results.cells.items():
        if algorithm != "trace":
            continue
        moves = {form: record["last step of J"][form] for form in ("paper", "recipe")}
        parts.append(
            f"{task}: at the last boundary J moves by {moves['paper']['mean']:+.2f} nats per token on average in the "
            f"paper's form, and falls in {moves['paper']['share that falls']:.0%} of the completions; with the recipe "
            f"by {moves['recipe']['mean']:+.2f}, and in {moves['recipe']['share that falls']:.0%}."
        )
        for example in record["examples"]:
            rows = [
                [f"`{segment['text']}`", segment["label"]]
                + [f"{segment[name]:+.2f}" for name in ("J paper", "r paper", "credit paper")]
                + [f"{segment[name]:+.2f}" for name in ("J recipe", "r recipe", "credit recipe")]
                for segment in example["segments"]
            ]
            head = ["segment", "what it did", "J after it", "r", "Ã", "J after it, recipe", "r, recipe", "Ã, recipe"]
            verdict = "right" if example["correct"] else "wrong"
            parts.append(
                f"{task}: `{example['problem']}`, answer given `{example['given']}` ({verdict}); J before any thought "
                f"{example['J_0 paper']:+.2f} and, recipe, {example['J_0 recipe']:+.2f}\n\n{table(head, rows)}"
            )
    return "\n\n".join(parts)
