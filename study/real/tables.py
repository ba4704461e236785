"""Tables of the real model for `docs/results.md`, from the raw results."""

import functools
from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any

import numpy as np

from ..figures import Results, table
from ..records import RESULTS_DIR, read
from .separation import AFTER_TURN, BARE, BOX, OPENED_BOX, forms
from .training import ARMS, START, Plan, cell_of

SEPARATION_FILE = RESULTS_DIR / "real_separation.jsonl"
TRAINING_FILE = RESULTS_DIR / "real_training.jsonl"
SEEDS = (0, 1)
NUM_RESAMPLES = 2000
NAMES = {START: "start", "plain": "GRPO", "repro": "+ RePro", "recipe": "+ recipe"}

Record = dict[str, Any]


class Separations:
    """What J tells of the completions, with 95% intervals from resampling problems, each with all its completions.

    Args:
        problems: records of the kind "problem".
    """

    def __init__(self, problems: Sequence[Record]) -> None:
        self.completions = [completion for record in problems for completion in record["completions"]]
        self.first = [record["first"] for record in problems for _ in record["completions"]]
        self.right = np.array([completion["right"] for completion in self.completions])
        place = np.repeat(np.arange(len(problems)), [len(record["completions"]) for record in problems])
        draws = np.random.default_rng(0).integers(len(problems), size=(NUM_RESAMPLES, len(problems)))
        counts = np.stack([np.bincount(draw, minlength=len(problems)) for draw in draws])
        # How often each completion is in each resample; the first one is what was measured.
        self.weights = np.concatenate([np.ones((1, len(place))), counts[:, place]])

    def objective(self, place: str, form: int) -> np.ndarray:
        """(N,) J of each completion at a place, "before", "end" or "turn", in a form."""
        return np.array([completion[place][form] for completion in self.completions])

    def gain(self, form: int) -> np.ndarray:
        """(N,) J at the end less J before the first token."""
        return self.objective("end", form) - np.array(self.first)[:, form]

    def auc(self, values: np.ndarray) -> np.ndarray:
        """(1 + R,) chance that a right completion's value is above a wrong one's, ties counted half."""
        above, below = values[self.right, None], values[None, ~self.right]
        wins = (above > below) + 0.5 * (above == below)
        right, wrong = self.weights[:, self.right], self.weights[:, ~self.right]
        return ((right @ wins) * wrong).sum(axis=1) / (right.sum(axis=1) * wrong.sum(axis=1))

    def mean(self, values: np.ndarray, chosen: np.ndarray) -> np.ndarray:
        """(1 + R,) mean of the chosen completions' values."""
        weights = self.weights[:, chosen]
        return weights @ values[chosen] / weights.sum(axis=1)


def _interval(values: np.ndarray, sign: bool = False) -> str:
    low, high = np.percentile(values[1:], [2.5, 97.5])
    form = "+.2f" if sign else ".2f"
    return f"{values[0]:{form}} [{low:{form}}, {high:{form}}]"


@functools.cache
def _problems() -> list[Record]:
    return [record for record in read(SEPARATION_FILE) if record["kind"] == "problem"]


@functools.cache
def _separations() -> Separations:
    return Separations(_problems())


def _given(prefix: str) -> str:
    return f"`{prefix!r}`" if prefix else "nothing"


def separation_table(results: Results) -> str:
    """AUC and gain of J by prefix and by what is scored."""
    if not _problems():
        return ""
    found, rows = _separations(), []
    for index, (prefix, scored) in enumerate(forms()):
        rows.append(
            [
                _given(prefix) + (" (paper)" if (prefix, scored) == ("", BOX) else ""),
                scored,
                _interval(found.auc(found.objective("end", index))),
                _interval(found.auc(found.objective("before", index))),
                _interval(found.mean(found.gain(index), found.right), sign=True),
                _interval(found.mean(found.gain(index), ~found.right), sign=True),
            ]
        )
    columns = ["given", "scored", "AUC at the end", "AUC before the last paragraph", "J gain, right", "J gain, wrong"]
    return table(columns, rows)


def turn_table(results: Results) -> str:
    """What the end-of-turn token changes, on completions that have one."""
    if not _problems():
        return ""
    problems = [
        record | {"completions": [completion for completion in record["completions"] if completion["ended"]]}
        for record in _problems()
    ]
    found, rows, places = Separations(problems), [], list(forms().values())
    for index, form in enumerate(AFTER_TURN):
        values = found.objective("end", places.index(form)), found.objective("turn", index)
        areas, means = [found.auc(one) for one in values], [found.mean(one, found.right) for one in values]
        rows.append([_given(form.prefix), f"`{form.template.format(answer='…')}`", *map(_interval, [*areas, *means])])
    columns = ["given", "scored", "AUC before the token", "after it", "J, right, before the token", "after it"]
    return table(columns, rows)


def difference_table(results: Results) -> str:
    """What scoring only the bare answer changes in the AUC at the end."""
    if not _problems():
        return ""
    found, places = _separations(), {form: index for index, form in enumerate(forms())}
    rows = []
    for prefix in dict.fromkeys(prefix for prefix, _ in places):
        for name, place in (("at the end", "end"), ("before the last paragraph", "before")):
            whole, *others = (
                found.auc(found.objective(place, places[prefix, scored])) for scored in (BOX, OPENED_BOX, BARE)
            )
            rows.append([_given(prefix), name, *(_interval(other - whole, sign=True) for other in others)])
    return table(["given", "asked", "opened box − whole box", "no box − whole box"], rows)


def completions_line(results: Results) -> str:
    """What was sampled, in a sentence."""
    if not _problems():
        return "Not run yet: `python study/real/run.py separation`."
    completions = _separations().completions
    record = _problems()[0]
    ended = fmean(completion["ended"] for completion in completions)
    return (
        f"{len(completions)} completions of {len(_problems())} problems; {_separations().right.mean():.2f} are right, "
        f"{ended:.2f} end within {record['plan']['max_new_tokens']} tokens, "
        f"{fmean(len(completion['ids']) for completion in completions):.0f} tokens and "
        f"{fmean(completion['segments'] for completion in completions):.1f} segments on average; "
        f"{record['date']}, torch {record['versions']['torch']}, {record['machine']}."
    )


def auto_line(results: Results) -> str:
    """What `repro_answer_prefix="auto"` takes, in a sentence."""
    found = [record for record in read(SEPARATION_FILE) if record["kind"] == "auto"]
    if not found:
        return ""
    (record,) = found
    if not record["candidates"]:
        return f"`auto` finds too few right or too few wrong completions among {record['count']}."
    chosen = record["candidates"][0]
    (paper,) = [one for one in record["candidates"] if (one["prefix"], one["template"]) == ("", "\\boxed{{{answer}}}")]
    best = max(record["candidates"], key=lambda one: one["auc"])
    ties = sum(one["auc"] == best["auc"] for one in record["candidates"])
    largest = f"that of {_named(best)}" if ties == 1 else f"{best['auc']:.2f}, that of {ties} candidates"
    return (
        f"Of {len(record['candidates'])} candidates on {record['count']} completions, `auto` takes {_named(chosen)}. "
        f"The largest area is {largest}; the paper's form has {paper['auc']:.2f} ± {paper['error']:.2f}."
    )


def _named(candidate: Record) -> str:
    scored = candidate["template"].format(answer="…")
    return f"`{candidate['prefix']!r}` before `{scored}` (AUC {candidate['auc']:.2f} ± {candidate['error']:.2f})"


def _runs() -> dict[tuple[str, int], Record]:
    return {
        (record["arm"], record["seed"]): record for record in read(TRAINING_FILE) if cell_of(record).plan == Plan()
    }


def training_line(results: Results) -> str:
    """What was trained, in a sentence."""
    runs, plan = _runs(), Plan()
    wanted = [(arm, seed) for seed in SEEDS for arm in (START, *ARMS)]
    missing = ", ".join(f"`{arm}/{seed}`" for arm, seed in wanted if (arm, seed) not in runs)
    return (
        f"{plan.steps} steps of {plan.prompts_per_step} × {plan.num_generations} completions of at most "
        f"{plan.max_new_tokens} tokens; then {plan.num_evaluated} × {plan.num_generations} held-out completions. "
        + (f"Not run yet: {missing}." if missing else "All runs are done.")
    )


MEASURES = {
    "accuracy": ("accuracy", ".3f"),
    "thinking_tokens": ("thinking tokens", ".1f"),
    "segments": ("segments", ".1f"),
    "backtracks": ("backtracks", ".2f"),
    "truncated": ("truncated", ".3f"),
    "objective_auc repro": ("J, right or wrong: paper's form", ".2f"),
    "objective_auc recipe": ("recipe's form", ".2f"),
    "objective_gain repro": ("J gain: paper's form", "+.2f"),
    "objective_gain recipe": ("recipe's form", "+.2f"),
}


def training_table(results: Results) -> str:
    """Held-out figures after training: the mean, and each seed."""
    runs, rows = _runs(), []
    for arm, name in NAMES.items():
        found = [runs[arm, seed]["evaluation"] for seed in SEEDS if (arm, seed) in runs]
        if found:
            columns = ([one[measure] for one in found] for measure in MEASURES)
            rows.append([name, *(_seeds(c, f) for c, (_, f) in zip(columns, MEASURES.values(), strict=True))])
    return table(["", *(name for name, _ in MEASURES.values())], rows) if rows else ""


def _seeds(values: list[float | None], form: str) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "–"
    each = ", ".join("–" if value is None else f"{value:{form}}" for value in values)
    return f"{fmean(known):{form}} ({each})"


CURVES = {
    "accuracy": ("accuracy", ".2f"),
    "thinking_tokens": ("thinking tokens", ".0f"),
    "objective_gain": ("J gain", "+.2f"),
    "objective_auc": ("J, right or wrong, so far", ".2f"),
    "advantage_share": ("share of the process advantage", ".2f"),
}


def curve_table(results: Results) -> str:
    """Figures of the rollouts of each step, means over the seeds."""
    runs, rows = _runs(), []
    for measure, (name, form) in CURVES.items():
        for arm in ARMS:
            curves = [runs[arm, seed]["curve"] for seed in SEEDS if (arm, seed) in runs]
            steps = [[step[measure] for step in at_step if measure in step] for at_step in zip(*curves, strict=True)]
            if any(steps):
                rows.append([name, NAMES[arm], *(f"{fmean(values):{form}}" if values else "–" for values in steps)])
    return table(["", "", *(f"{step + 1}" for step in range(Plan().steps))], rows) if rows else ""


SECTIONS: dict[str, Callable[[Results], str]] = {
    "real completions": completions_line,
    "real separation": separation_table,
    "real differences": difference_table,
    "real turn": turn_table,
    "real auto": auto_line,
    "real training": training_line,
    "real runs": training_table,
    "real curves": curve_table,
}
"""Beside those of the toy tasks; they read raw results of their own."""
