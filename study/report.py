"""
Tables, plot and verdicts of `docs/results.md`, made of the raw results: no figure on that page is typed by hand.

    python study/report.py            # rewrites what stands between the markers, and docs/results.svg
    python study/report.py --check    # fails where the page is not what the raw results give

Needs the extra `study` (scipy, matplotlib).
"""

import argparse
import re
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[0:1] = [str(ROOT), str(ROOT / "examples")]  # so that `study` and `pocket` are found from anywhere

from study import records  # noqa: E402
from study.arms import ALGORITHMS as ALGORITHM_SETTINGS  # noqa: E402
from study.arms import ARMS  # noqa: E402
from study.grid import ABLATION_SEEDS, CONTROLS, PARTS, SEEDS, rates  # noqa: E402
from study.intervals import UNCLEAR, Interval, all_of, interval, paired, verdict_better, verdict_equal  # noqa: E402
from study.tuning import by_setting  # noqa: E402

PAGE, PLOT = ROOT / "docs" / "results.md", ROOT / "docs" / "results.svg"
TASKS = ("digits", "search")
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

TUNED = ("accuracy", "thinking_tokens", "backtracks")
NOT_RUN = "not run"

Values = dict[int, float]  # by seed


class Results:
    """The raw records, by what the tables ask for."""

    def __init__(self, all_records: list[dict[str, Any]]) -> None:
        self.records = all_records
        self.cells = {(r["task"], r["algorithm"], r["arm"], r["seed"]): r for r in all_records if not r["overrides"]}

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

    def pooled_gain(self, algorithms: list[str], arm: str, other: str, measure: str) -> Interval | None:
        """Mean gain over tasks and algorithms, one value per seed, over the seeds that all of them have."""
        gains: dict[int, list[float]] = defaultdict(list)
        pairs = [(task, algorithm) for task in TASKS for algorithm in algorithms]
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


# ------------------------------------------------------------------------------------------------------------- tables


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


def start_table(results: Results) -> str:
    names = ["accuracy", "thinking_tokens", "backtracks", "segments", "truncated"]
    rows = []
    for task in TASKS:
        found = [mean_of(results.values(task, "start", "start", name)) for name in names]
        digits = ["accuracy", "thinking_tokens", "backtracks", "thinking_tokens", "accuracy"]
        rows.append([task, *(number(value, digit) for value, digit in zip(found, digits, strict=True))])
    return table(["task", "accuracy", "thinking tokens", "backtracks", "segments", "truncated"], rows)


def main_table(results: Results) -> str:
    rows = []
    for task in TASKS:
        for algorithm, name in ALGORITHMS.items():
            for arm in ("plain", "repro"):
                values = {m: results.values(task, algorithm, arm, m) for m in MEASURES}
                seeds = str(len(values["accuracy"]))
                label = name if arm == "plain" else "+ RePro"
                rows.append([task, label, seeds, *(number(mean_of(values[m]), m) for m in MEASURES)])
    return table(["task", "", "seeds", *MEASURES.values()], rows)


def paired_table(results: Results) -> str:
    rows = []
    for task in TASKS:
        for algorithm, name in ALGORITHMS.items():
            row = [task, name]
            for measure in MEASURES:
                gain = results.gain(task, algorithm, "repro", "plain", measure)
                difference = results.difference(task, algorithm, "repro", "plain", measure)
                row.append(f"{number(difference, measure, True)} ({verdict_better(gain, MARGINS[measure])})")
            rows.append(row)
    return table(["task", "RePro − plain", *MEASURES.values()], rows)


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
    ]
    rows = []
    for task in TASKS:
        for arm, other in pairs:
            row = [task, f"{arm} − {other}"]
            for measure in MEASURES:
                gain = results.gain(task, "grpo", arm, other, measure)
                difference = results.difference(task, "grpo", arm, other, measure)
                verdict = verdict_better(gain, MARGINS[measure])
                row.append(f"{number(difference, measure, True)} ({verdict})")
            rows.append(row)
    return table(["task", "paired difference", *MEASURES.values()], rows)


def ablation_table(results: Results) -> str:
    arms = sorted({arm for _, algorithm, arm, _ in results.cells if algorithm == "grpo"})
    rows = []
    for task in TASKS:
        for arm in arms:
            if arm in {"plain", "repro", *CONTROLS}:
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


# ------------------------------------------------------------------------------------------------------------ verdicts


def claims_table(results: Results) -> str:
    """Each claim of the paper, its verdict by the rules of `intervals.py`, and the figures behind it."""
    rows: list[list[str]] = []

    def gains(claim: str, measure: str, algorithms: list[str]) -> None:
        found = results.pooled_gain(algorithms, "repro", "plain", measure)
        pairs = [(task, algorithm) for task in TASKS for algorithm in algorithms]
        single = [verdict_better(results.gain(*pair, "repro", "plain", measure), MARGINS[measure]) for pair in pairs]
        # Pooled gains are in units of the margin, so that tasks of different length weigh alike.
        verdict = verdict_better(found, 1.0)
        text = "–" if found is None else f"{found.mean:+.2f} ± {found.half_width:.2f} of {MARGINS[measure]:g}"
        counts = ", ".join(f"{single.count(name)} {name}" for name in dict.fromkeys(single))
        if all(results.gain(*pair, "repro", "plain", measure) is None for pair in pairs):
            rows.append([claim, NOT_RUN, ""])
        else:
            rows.append([claim, f"**{verdict}**", f"{text}; single pairs: {counts}"])

    for algorithm, name in ALGORITHMS.items():
        gains(f"accuracy rises under {name}", "accuracy", [algorithm])
    gains("accuracy rises, all algorithms", "accuracy", list(ALGORITHMS))
    gains("accuracy rises sooner, all algorithms", "learning", list(ALGORITHMS))
    gains("thinking gets shorter, all algorithms", "thinking_tokens", list(ALGORITHMS))
    gains("backtracking gets rarer, all algorithms", "backtracks", list(ALGORITHMS))

    def compare(claim: str, arm: str, other: str, measures: list[str], equal: bool = False) -> None:
        verdicts, figures = [], []
        for task in TASKS:
            for measure in measures:
                margin = MARGINS[measure]
                if equal:
                    verdict = verdict_equal(results.difference(task, "grpo", arm, other, measure), margin)
                else:
                    verdict = verdict_better(results.gain(task, "grpo", arm, other, measure), margin)
                difference = results.difference(task, "grpo", arm, other, measure)
                verdicts.append(verdict)
                if difference is not None:
                    figures.append(f"{task} {MEASURES[measure]} {number(difference, measure, True)} ({verdict})")
        rows.append([claim, f"**{all_of(verdicts)}**" if figures else NOT_RUN, "; ".join(figures)])

    outcomes = ["accuracy", "thinking_tokens"]
    compare("the magnitude score alone helps (w = 0 against plain)", "w 0", "plain", outcomes)
    compare("the stability score alone helps (w = 1 against plain)", "w 1", "plain", outcomes)
    compare("magnitude counts for more (w = 0 against w = 1)", "w 0", "w 1", outcomes)
    compare("alpha matters little (0.05 against 0.1)", "alpha 0.05", "repro", outcomes, equal=True)
    compare("alpha matters little (0.3 against 0.1)", "alpha 0.3", "repro", outcomes, equal=True)
    compare("k matters little (1 against 2)", "k 1", "repro", outcomes, equal=True)
    compare("k matters little (all against 2)", "k all", "repro", outcomes, equal=True)
    credit = ["accuracy", "learning"]
    compare("credit: better than its own rewards shuffled", "repro", "shuffled", credit)
    compare("credit: better than constants without J", "repro", "constants", credit)
    compare("shortening comes from J: shorter than with constants", "repro", "constants", ["thinking_tokens"])
    compare("recipe: better than plain", "recipe", "plain", credit)
    compare("recipe: shorter thoughts than plain", "recipe", "plain", ["thinking_tokens"])
    compare("recipe: fewer backtracks than plain", "recipe", "plain", ["backtracks"])
    compare("recipe: better than the paper's form", "recipe", "repro", credit)
    compare("recipe, credit: better than its own rewards shuffled", "recipe", "recipe shuffled", credit)
    compare("recipe, credit: better than constants without J", "recipe", "recipe constants", credit)
    compare("recipe, shortening: shorter than with constants", "recipe", "recipe constants", ["thinking_tokens"])
    compare("recipe: better than a length penalty", "recipe", "length", credit)

    def known(claim: str, form: str, name: str) -> None:
        verdicts, figures = [], []
        for task in TASKS:
            found = start_aucs(results, task, form, name)
            verdict = UNCLEAR
            if found:
                auc = interval(found)
                verdict = verdict_better(Interval(auc.mean - 0.5, auc.half_width, auc.n), 0.05)
                figures.append(f"{task} AUC {number(auc, 'accuracy')} ({verdict})")
            verdicts.append(verdict)
        rows.append([claim, f"**{all_of(verdicts)}**" if figures else NOT_RUN, "; ".join(figures)])

    known("r of useful segments is above that of others (paper's form)", "repro", "useful")
    known("the same, inner segments only", "repro", "inner")
    known("r of useful segments is above that of others (recipe)", "recipe", "useful")
    known("the same, inner segments only", "recipe", "inner")

    def knows_more(claim: str, name: str) -> None:
        verdicts, figures = [], []
        for task in TASKS:
            ours, theirs = (dict(enumerate(start_aucs(results, task, form, name))) for form in ("recipe", "repro"))
            change = paired(ours, theirs)
            verdicts.append(verdict_better(change, 0.05))
            if change is not None:
                figures.append(f"{task} {number(change, 'accuracy', True)} ({verdicts[-1]})")
        rows.append([claim, f"**{all_of(verdicts)}**" if figures else NOT_RUN, "; ".join(figures)])

    knows_more("r of the recipe knows more than that of the paper's form (AUC)", "useful")
    knows_more("the same, inner segments only (AUC)", "inner")

    def nearer(claim: str, arm: str, other: str) -> None:
        verdicts, figures = [], []
        for task in TASKS:
            found = cosine_values(results, task)
            change = paired(found[arm], found[other]) if arm in found else None
            verdict = verdict_better(change, 0.01)
            verdicts.append(verdict)
            if change is not None:
                figures.append(f"{task} {number(change, 'accuracy', True)} ({verdict})")
        rows.append([claim, f"**{all_of(verdicts)}**" if figures else NOT_RUN, "; ".join(figures)])

    nearer("gradients: paper's form nearer than outcome alone", "repro", "outcome")
    nearer("gradients: paper's form nearer than its shuffled control", "repro", "shuffled")
    nearer("gradients: recipe nearer than outcome alone", "recipe", "outcome")
    nearer("gradients: recipe nearer than its shuffled control", "recipe", "recipe shuffled")
    return table(["claim", "verdict", "figures"], rows)


def provenance(results: Results) -> str:
    """Date, commits, versions and number of cells."""
    dates = sorted({record["date"] for record in results.records})
    commits = list(dict.fromkeys(record["commit"] for record in results.records))
    versions = {f"{name} {number}" for record in results.records for name, number in record["versions"].items()}
    hours = sum(record["seconds"] for record in results.records) / 3600
    return (
        f"{len(results.records)} cells, {hours:.1f} hours of one busy core, {dates[0]} to {dates[-1]}; commits "
        f"{', '.join(f'`{commit}`' for commit in commits)}; {', '.join(sorted(versions))}; "
        f"{', '.join(sorted({record['machine'] for record in results.records}))}. The whole grid has {len(SEEDS)} "
        f"seeds, {len(ABLATION_SEEDS)} for ablations."
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


SECTIONS = {
    "provenance": provenance,
    "coverage": coverage_table,
    "claims": claims_table,
    "start": start_table,
    "main": main_table,
    "paired": paired_table,
    "arms": lambda results: arms_table(results, ["plain", "repro", *CONTROLS]),
    "controls": control_table,
    "ablations": ablation_table,
    "auc": auc_table,
    "auc over time": auc_over_time_table,
    "cosines": cosine_table,
    "leads": leads_table,
    "traces": trace_table,
    "tuning": tuning_table,
    "rates": rates_table,
}


def fill(page: str, results: Results) -> str:
    """Replace what stands between `<!-- begin: NAME -->` and `<!-- end: NAME -->` for every section."""
    for name, make in SECTIONS.items():
        pattern = re.compile(rf"(<!-- begin: {name} -->\n).*?(<!-- end: {name} -->)", re.DOTALL)
        if not pattern.search(page):
            raise ValueError(f"{PAGE} has no markers for {name!r}.")
        content = make(results)
        page = pattern.sub(lambda match, content=content: f"{match[1]}\n{content}\n\n{match[2]}", page)
    return page


# ---------------------------------------------------------------------------------------------------------------- plot


def plot(results: Results, file: Path) -> None:
    """GRPO's arms along training, mean and 95% interval over seeds, and the AUC of r at the start."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "replicate"
    from matplotlib import pyplot

    tasks = [task for task in TASKS if start_aucs(results, task, "recipe", "useful")]
    size = (3.4 * (len(PLOTTED) + 1), 2.8 * len(tasks))
    figure, axes = pyplot.subplots(len(tasks), len(PLOTTED) + 1, figsize=size, layout="constrained", squeeze=False)
    for row, task in enumerate(tasks):
        for column, measure in enumerate(PLOTTED):
            plot_along_training(results, task, measure, axes[row][column])
        plot_aucs(results, task, axes[row][-1])
    axes[0][0].legend(fontsize=8, frameon=False)
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=8)
    figure.savefig(file, metadata={"Date": None})
    pyplot.close(figure)


PLOTTED = ("accuracy", "thinking_tokens", "backtracks", "objective_gain")
PLOTTED_ARMS = {
    "plain": ("GRPO", "#555555"),
    "repro": ("+ RePro", "#1f77b4"),
    "recipe": ("+ recipe", "#d62728"),
    "recipe constants": ("+ constants, no J", "#2ca02c"),
}


def plot_along_training(results: Results, task: str, measure: str, axis: Any) -> None:
    """Points with intervals: held-out problems. Thin lines: the rollouts of each step."""
    start = list(results.values(task, "start", "start", measure).values())
    for shift, (arm, (name, colour)) in enumerate(PLOTTED_ARMS.items()):
        found = [r for (*cell, _), r in results.cells.items() if tuple(cell) == (task, "grpo", arm)]
        if not found:
            continue
        if measure in ("accuracy", "thinking_tokens", "backtracks"):
            curves = [record["curve"] for record in found]
            means = [sum(curve[step][measure] for curve in curves) / len(curves) for step in range(len(curves[0]))]
            axis.plot(range(1, len(means) + 1), means, color=colour, linewidth=0.8, alpha=0.5)
        by_step = {0: start}
        for step in found[0]["evaluations"]:
            by_step[int(step)] = [record["evaluations"][step][measure] for record in found]
        points = [interval(values) for values in by_step.values()]
        widths = [point.half_width if point.n > 1 else 0 for point in points]
        places = [step + 0.2 * shift for step in by_step]  # so that intervals do not cover each other
        means = [point.mean for point in points]
        style = {"markersize": 3, "linewidth": 1.4, "capsize": 2, "elinewidth": 0.8}
        axis.set_xticks(list(by_step))
        axis.errorbar(places, means, widths, color=colour, marker="o", label=name, **style)
    axis.set_title(f"{task}: {MEASURES[measure]}", fontsize=10)
    axis.set_xlabel("step", fontsize=9)


def plot_aucs(results: Results, task: str, axis: Any) -> None:
    """Bars: how well r tells useful segments from others at the start."""
    kinds = {"useful": "useful against others", "inner": "the same, inner", "step": "right against wrong"}
    colours = {"repro": "#1f77b4", "recipe": "#d62728"}
    for offset, (form, colour) in zip((-0.2, 0.2), colours.items(), strict=True):
        found = [interval(start_aucs(results, task, form, name)) for name in kinds]
        places = [index + offset for index in range(len(kinds))]
        widths = [value.half_width if value.n > 1 else 0 for value in found]
        label = {"repro": "paper's form", "recipe": "recipe"}[form]
        axis.barh(places, [value.mean for value in found], xerr=widths, color=colour, height=0.36, label=label)
    axis.set_yticks(range(len(kinds)), kinds.values())
    axis.axvline(0.5, color="black", linewidth=0.8, linestyle=":")
    axis.set_xlim(0.4, 1)
    axis.invert_yaxis()
    axis.legend(fontsize=8, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.1), ncol=2)
    axis.set_title(f"{task}: AUC of r at the start", fontsize=10)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=records.CELLS_FILE, help="default: %(default)s")
    parser.add_argument("--check", action="store_true", help="change nothing; fail where the page is out of date")
    options = parser.parse_args()
    results = Results(records.read(options.results))
    page = PAGE.read_text()
    filled = fill(page, results)
    if options.check:
        if filled != page:
            sys.exit(f"{PAGE} is not what {options.results} gives: run report.py.")
        return
    PAGE.write_text(filled)
    plot(results, PLOT)


if __name__ == "__main__":
    main()
