"""The table that the page opens with: claims × regimes, with the controls beside each verdict."""

from .figures import DIGITS, MARGINS, NOT_RUN, TASKS, Results, health_values, mean_of, start_aucs, table
from .grid import OTHERS
from .intervals import MIN_SEEDS, SEEN, Interval, interval, verdict_better

BEHAVIOUR = {
    "accuracy rises": "accuracy",
    "it rises sooner": "learning",
    "thinking gets shorter": "thinking_tokens",
    "backtracking gets rarer": "backtracks",
}
CONTROLS_OF = {
    "repro": {"constants": "constants", "shuffled": "shuffled"},
    "recipe": {"recipe constants": "constants", "recipe shuffled": "shuffled"},
    "vps": {"vps shuffled": "shuffled"},
}
"""By arm: its controls, and what they are called in a cell."""

AUC_MARGIN = 0.05
"""The least distance of an AUC from 0.5 that would matter."""


def regimes_table(results: Results) -> str:
    """One row for each claim, one column for each task; below each verdict what the controls do."""
    rows = []
    longer = results.longer()
    at_the_end = {claim: measure for claim, measure in BEHAVIOUR.items() if measure != "learning"}
    for name, form in (("paper's form", "repro"), ("recipe", "recipe")):
        aucs = [mean_of(health_values(results, task, "objective auc", form)) for task in TASKS]
        rows.append([name, "J at the end of the thought tells right from wrong", *map(_auc, aucs)])
        found = [start_aucs(results, task, form, "useful") for task in TASKS]
        aucs = [interval(values) if values else None for values in found]
        rows.append([name, "useful segments earn more than others", *map(_auc, aucs)])
        for claim, measure in BEHAVIOUR.items():
            rows.append([name, claim, *(behaviour_cell(results, task, form, measure) for task in TASKS)])
        for claim, measure in at_the_end.items():
            cells = [_counts(results, task, OTHERS, form, measure) for task in TASKS]
            rows.append([name, f"{claim}, the other algorithms", *cells])
        for claim, measure in at_the_end.items():
            cells = [behaviour_cell(longer, task, form, measure) for task in TASKS]
            rows.append([name, f"{claim}, three times the steps", *cells])
    for claim, measure in BEHAVIOUR.items():
        cells = [behaviour_cell(results, task, "vps", measure) for task in TASKS]
        rows.append(["GRPO-VPS's signal", claim, *cells])
    shown = [row for row in rows if set(row[2:]) != {NOT_RUN}]
    return table(["", "claim", *TASKS], shown)


def behaviour_cell(results: Results, task: str, arm: str, measure: str) -> str:
    """The verdict of an arm of GRPO against the plain algorithm, and those of its controls against it."""
    lines, also = [], []
    for name, label in {arm: "", **CONTROLS_OF[arm]}.items():
        difference = results.difference(task, "grpo", name, "plain", measure)
        if difference is None:
            if not label:
                return NOT_RUN
            lines.append(f"{label}: {NOT_RUN}")
            continue
        verdict = verdict_better(results.gain(task, "grpo", name, "plain", measure), MARGINS[measure])
        also += [label] * (bool(label) and verdict == SEEN)
        verdict += _few(difference)
        lines.append(f"{label + ': ' if label else ''}{verdict}, {difference.mean:+.{DIGITS[measure]}f}")
    if all(line.endswith(NOT_RUN) for line in lines[1:]):
        lines[1:] = [f"controls: {NOT_RUN}"]
    verdict, figure = lines[0].split(", ")
    if verdict == SEEN and also:
        verdict += f", but so with {' and '.join(also)}"
    return "<br>".join([f"**{verdict}**, {figure}", *lines[1:]])


def _few(found: Interval) -> str:
    """A remark where there are too few seeds for a verdict."""
    return f" ({found.n} seed{'s' * (found.n > 1)})" if found.n < MIN_SEEDS else ""


def _auc(found: Interval | None) -> str:
    if found is None:
        return NOT_RUN
    verdict = verdict_better(Interval(found.mean - 0.5, found.half_width, found.n), AUC_MARGIN)
    return f"**{verdict}{_few(found)}**, AUC {found.mean:.2f}"


def _counts(results: Results, task: str, algorithms: list[str], arm: str, measure: str) -> str:
    """How many of the algorithms have each verdict."""
    gains = [results.gain(task, algorithm, arm, "plain", measure) for algorithm in algorithms]
    verdicts = [verdict_better(gain, MARGINS[measure]) for gain in gains if gain is not None and gain.n >= MIN_SEEDS]
    counts = [f"{verdicts.count(name)} {name}" for name in ("seen", "unclear", "not seen") if name in verdicts]
    return ", ".join(counts) or NOT_RUN
