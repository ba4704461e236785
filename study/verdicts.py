"""Verdicts on claims, by the rules of `intervals.py`."""

from .figures import (
    ALGORITHMS,
    MARGINS,
    MEASURES,
    NOT_RUN,
    TASKS,
    Results,
    cosine_values,
    number,
    start_aucs,
    table,
)
from .intervals import UNCLEAR, Interval, all_of, interval, paired, verdict_better, verdict_equal


def claims_table(results: Results) -> str:
    """Each claim of the paper, its verdict by the rules of `intervals.py`, and the figures behind it."""
    rows: list[list[str]] = []

    def gains(claim: str, measure: str, algorithms: list[str]) -> None:
        found = results.pooled_gain(algorithms, "repro", "plain", measure)
        pairs = results.pairs(algorithms, "repro", "plain")
        single = [verdict_better(results.gain(*pair, "repro", "plain", measure), MARGINS[measure]) for pair in pairs]
        # Pooled gains are in units of the margin, so that tasks of different length weigh alike.
        verdict = verdict_better(found, 1.0)
        text = "–" if found is None else f"{found.mean:+.2f} ± {found.half_width:.2f} of {MARGINS[measure]:g}"
        counts = ", ".join(f"{single.count(name)} {name}" for name in dict.fromkeys(single))
        if not pairs:
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
                if difference is not None:
                    verdicts.append(verdict)
                    figures.append(f"{task} {MEASURES[measure]} {number(difference, measure, True)} ({verdict})")
        rows.append([claim, f"**{all_of(verdicts)}**" if figures else NOT_RUN, "; ".join(figures)])

    outcomes = ["accuracy", "thinking_tokens"]
    compare("the magnitude score alone helps (w = 0 against plain)", "w 0", "plain", outcomes)
    compare("the stability score alone helps (w = 1 against plain)", "w 1", "plain", outcomes)
    compare("magnitude counts for more (w = 0 against w = 1)", "w 0", "w 1", outcomes)
    compare("alpha matters little (0.05 against 0.1)", "alpha 0.05", "repro", outcomes, equal=True)
    compare("alpha matters little (0.3 against 0.1)", "alpha 0.3", "repro", outcomes, equal=True)
    compare("k matters little (1 against that of the paper's form)", "k 1", "repro", outcomes, equal=True)
    compare("k matters little (all against that of the paper's form)", "k all", "repro", outcomes, equal=True)
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

    compare("GRPO-VPS's signal: better than plain", "vps", "plain", credit)
    compare("GRPO-VPS's signal: shorter thoughts than plain", "vps", "plain", ["thinking_tokens"])
    compare("GRPO-VPS's signal, credit: better than its own rewards shuffled", "vps", "vps shuffled", credit)
    compare("recipe: better than with GRPO-VPS's signal", "recipe", "vps", credit)
    compare("recipe: better than with VSRM's signal", "recipe", "vsrm", credit)
    compare("min-form credit helps the paper's form", "min form", "repro", credit)
    compare("min-form credit helps the recipe", "recipe min form", "recipe", credit)
    compare("ranks in place of z-scores help the recipe", "recipe ranks", "recipe", credit)
    compare("J of an averaged policy helps the recipe", "recipe averaged", "recipe", credit)

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
            if change is not None:
                verdicts.append(verdict_better(change, 0.01))
                figures.append(f"{task} {number(change, 'accuracy', True)} ({verdicts[-1]})")
        rows.append([claim, f"**{all_of(verdicts)}**" if figures else NOT_RUN, "; ".join(figures)])

    nearer("gradients: paper's form nearer than outcome alone", "repro", "outcome")
    nearer("gradients: paper's form nearer than its shuffled control", "repro", "shuffled")
    nearer("gradients: recipe nearer than outcome alone", "recipe", "outcome")
    nearer("gradients: recipe nearer than its shuffled control", "recipe", "recipe shuffled")
    return table(["claim", "verdict", "figures"], rows)
