"""
Where a policy is asked for the answer (METHOD §3): texts to put before it, and which of them the policy answers after.

The right one can be read off outcomes: it is the one whose J at the last boundary best separates completions with a
right answer from those with a wrong one.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..thinking import split_thought

# Closings that people use to make a model answer at once, after a blank line or after the end-of-thinking marker.
CLOSINGS = (
    "Final Answer:",  # s1's budget forcing (arXiv 2501.19393)
    "Final answer: ",
    "**Final Answer**\n\n",  # how R1-like models head their last paragraph; probes of Dynasor (arXiv 2412.20993)
    "The final answer is ",  # Minerva's prompts (arXiv 2206.14858)
    "The answer is ",  # chain-of-thought prompts (arXiv 2201.11903)
    "Therefore, the answer is ",  # zero-shot chain of thought (arXiv 2205.11916)
)

_LONGEST_OWN_TEXT = 80  # characters
_OWN_TEXTS = 4
# Share of the completions with an answer that must have written a text for it to be a candidate.
_OWN_SHARE = 0.1


@dataclass(frozen=True)
class AnswerForm:
    """
    The form in which an answer is scored.

    Attributes:
        prefix: text between the partial thought and the answer; not scored.
        template: `str.format` template of the scored answer.
    """

    prefix: str
    template: str

    def __str__(self) -> str:
        return f"{self.prefix!r} + {self.template.format(answer='…')}"


@dataclass(frozen=True)
class Separation:
    """
    How well J with one form separates right completions from wrong ones.

    Attributes:
        form: the form.
        auc: chance that J at the last boundary of a right completion is above that of a wrong one, ties counted half.
        error: its standard error.
        objective: mean J of right completions over both asked boundaries, nats per token.
    """

    form: AnswerForm
    auc: float
    error: float
    objective: float


def template_opening(template: str) -> str:
    """What an answer template writes before the answer, such as `\\boxed{`."""
    return template.format(answer="\0").split("\0")[0]


def candidate_forms(
    template: str, think_end: str | None, own_texts: Iterable[str] = (), more: Iterable[str] = ()
) -> list[AnswerForm]:
    """
    The forms to try, each once, the paper's first.

    Args:
        template: `repro_answer_template`.
        think_end: the end-of-thinking marker, if the policy has one.
        own_texts: what the policy itself wrote before its answers (`own_texts`).
        more: prefixes of the user's.
    """
    prefixes = ["", *more, *own_texts]
    closings = [start + closing for start in ("\n\n", "") for closing in CLOSINGS]
    if think_end:
        prefixes += [think_end, f"{think_end}\n\n", f"\n{think_end}\n\n", f"\n\n{think_end}\n\n"]
        closings = [f"{think_end}\n\n{closing}" for closing in CLOSINGS] + closings
    prefixes += closings
    opening = template_opening(template)
    forms = [AnswerForm(prefix, template) for prefix in prefixes]
    if opening.strip():
        # Only the bare answer is scored where the policy is given the opening of the template, too,
        forms += [AnswerForm(prefix + opening, "{answer}") for prefix in prefixes]
        # or a text after which people write a bare answer.
        forms += [AnswerForm(prefix, "{answer}") for prefix in [*more, *closings]]
    return list(dict.fromkeys(forms))


def own_texts(completions: Sequence[str], template: str, think_end: str | None) -> Counter[str]:
    """
    How often completions have each short text before their answer, from the end-of-thinking marker on.

    Without a marker, or where other text stands between, it is the text from the start of the answer's line on.

    Args:
        completions: text as the policy wrote it, special tokens included.
        template: `repro_answer_template`, whose opening tells where an answer begins.
        think_end: the marker.
    """
    opening = template_opening(template).strip()
    found: Counter[str] = Counter()
    if not opening:
        return found
    for completion in completions:
        has_marker = bool(think_end) and think_end in completion
        text, found_opening, _ = split_thought(completion, think_end)[1].rpartition(opening)
        if not found_opening:
            continue
        if has_marker and len(text) <= _LONGEST_OWN_TEXT:
            found[think_end + text] += 1
        else:
            line = text.rpartition("\n")[2]
            if 0 < len(line) <= _LONGEST_OWN_TEXT:
                found["\n\n" + line] += 1
    return found


def frequent_texts(counts: Counter[str], num_completions: int) -> list[str]:
    """The few texts that enough of the completions have, the most frequent first; ties in alphabetical order."""
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [text for text, count in ranked[:_OWN_TEXTS] if count >= max(2, _OWN_SHARE * num_completions)]


def area_under_curve(values: Tensor, positive: Tensor) -> tuple[float, float]:
    """
    Chance that a positive's value is above a negative's, ties counted half, and its standard error.

    The error is that of Hanley & McNeil (1982).

    Args:
        values: (N,) float.
        positive: (N,) bool.

    Returns:
        Both NaN without a positive or without a negative.
    """
    above, below = values[positive].double(), values[~positive].double()
    if not len(above) or not len(below):
        return math.nan, math.nan
    difference = above.unsqueeze(1) - below
    auc = ((difference > 0).double() + 0.5 * (difference == 0).double()).mean().item()
    both_above, both_below = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    variance = auc * (1 - auc) + (len(above) - 1) * (both_above - auc**2) + (len(below) - 1) * (both_below - auc**2)
    return auc, math.sqrt(max(variance, 0.0) / (len(above) * len(below)))


def best_separation(candidates: Sequence[Separation]) -> tuple[Separation, Separation]:
    """
    The best form, and the runner-up.

    Areas within one standard error of the largest count as equal. Among these, the form with the highest J on right
    completions (rounded to a hundredth) is best, and then the one with the shortest prefix.
    """
    largest = max(candidates, key=lambda candidate: candidate.auc)

    def rank(candidate: Separation) -> tuple[bool, float, int]:
        within = candidate.auc >= largest.auc - largest.error
        score = round(candidate.objective, 2) if within else candidate.auc
        return within, score, -len(candidate.form.prefix)

    first, second, *_ = [*sorted(candidates, key=rank, reverse=True), candidates[0]]
    return first, second


class FormEvidence:
    """
    What is known so far of candidate forms: J of completions with each, and which completions are right.

    Attributes:
        forms: F of them, the paper's first.
    """

    # Right and wrong completions that a choice rests on at least.
    ENOUGH = 8

    def __init__(self, forms: Sequence[AnswerForm]) -> None:
        self.forms = list(forms)
        self._objective = torch.zeros(0, len(self.forms), 2)
        self._right = torch.zeros(0, dtype=torch.bool)

    def add(self, objective: Tensor, right: Tensor) -> None:
        """
        Further completions; NaN rows are left out.

        Args:
            objective: (N, F, 2) J: at the last boundary, and at the last segment start.
            right: (N,) bool, the verdicts.
        """
        # A verdict is made on the CPU, J where the model is.
        objective, right = objective.cpu(), right.cpu()
        known = objective.isfinite().all(dim=(1, 2))
        self._objective = torch.cat([self._objective, objective[known]])
        self._right = torch.cat([self._right, right[known]])

    @property
    def count(self) -> int:
        """Completions so far."""
        return len(self._right)

    def wants(self, right: Tensor) -> bool:
        """Whether completions with these (N,) verdicts would add to a kind of which there is too little."""
        num_right = int(self._right.sum())
        lacks_right, lacks_wrong = num_right < self.ENOUGH, self.count - num_right < self.ENOUGH
        return bool((lacks_right and right.any()) or (lacks_wrong and not right.all()))

    def separations(self) -> list[Separation] | None:
        """How well each form separates; None while there are too few right or too few wrong completions."""
        num_right = int(self._right.sum())
        if min(num_right, self.count - num_right) < self.ENOUGH:
            return None
        found = []
        for index, form in enumerate(self.forms):
            auc, error = area_under_curve(self._objective[:, index, 0], self._right)
            found.append(Separation(form, auc, error, self._objective[self._right, index].double().mean().item()))
        return found

    def state(self) -> list[list[Any]]:
        """All of it but the forms, as JSON."""
        return [self._objective.tolist(), self._right.tolist()]

    def restore(self, state: list[list[Any]]) -> None:
        """Take over what `state` returned."""
        objective, right = state
        self._objective = torch.tensor(objective).view(-1, len(self.forms), 2)
        self._right = torch.tensor(right, dtype=torch.bool)


def describe_choice(found: Sequence[Separation], count: int) -> str:
    """The form that is best and how it compares, in one line, for logs."""
    best, second = best_separation(found)
    return (
        f"using the answer form {best.form} (AUC {best.auc:.2f}, J {best.objective:.2f} on correct completions; "
        f"runner-up {second.form}, {second.auc:.2f}, {second.objective:.2f}; the paper's form {found[0].auc:.2f}, "
        f"{found[0].objective:.2f}; {count} completions)"
    )
