"""`repro_answer_prefix="auto"` for `score` and `inspect`: where the model gives its answer, from given completions."""

import itertools
import sys
from collections.abc import Iterable, Sequence

import torch

from ..method.answer_forms import (
    FormEvidence,
    best_separation,
    candidate_forms,
    describe_choice,
    frequent_texts,
    own_texts,
)
from ..method.measure import ask_forms, scoring_mode
from ..method.token_text import readable_text
from ..verifier import verify_answer
from .scorer import CompletionScorer

# Completions that are looked at; each is asked for its answer in some 50 forms, at two places.
_COMPLETIONS = 64

Group = tuple[list[int], Sequence[list[int]], Sequence[str | None]]


def search_form(scorer: CompletionScorer, groups: Iterable[Group], command: str) -> None:
    """
    Set the scorer's form to the best one for the first completions of the groups, and say which on stderr.

    Without enough right and wrong completions the paper's form stays, and that is said.

    Args:
        scorer: its settings have `repro_answer_prefix="auto"`.
        groups: the completions of one prompt each: prompt ids, completions, ground truths.
        command: speaks.
    """
    settings, tokenizer = scorer.settings, scorer.tokenizer
    taken = list(itertools.takewhile(_Count(_COMPLETIONS), groups))
    think_end = settings.repro_think_end
    texts = [readable_text(tokenizer, ids, think_end) for _, completions, _ in taken for ids in completions]
    counts = own_texts(texts, settings.repro_answer_template, settings.repro_think_end)
    evidence = FormEvidence(
        candidate_forms(
            settings.repro_answer_template,
            settings.repro_think_end,
            frequent_texts(counts, len(texts)),
            settings.repro_prefix_candidates or (),
        )
    )
    for prompt_ids, completions, answers in taken:
        _ask(scorer, evidence, prompt_ids, completions, answers)
    found = evidence.separations()
    if found is None:
        print(
            f"repro-trl {command}: repro_answer_prefix='auto' found too few right or too few wrong completions among "
            f"the first {len(texts)}: the answer is asked for in the paper's form.",
            file=sys.stderr,
        )
        return
    scorer.reader.form = best_separation(found)[0].form
    print(f"repro-trl {command}: {describe_choice(found, evidence.count)}.", file=sys.stderr)


class _Count:
    """True until so many completions have been seen."""

    def __init__(self, most: int) -> None:
        self._left = most

    def __call__(self, group: Group) -> bool:
        is_open = self._left > 0
        self._left -= len(group[1])
        return is_open


def _ask(
    scorer: CompletionScorer,
    evidence: FormEvidence,
    prompt_ids: list[int],
    completions: Sequence[list[int]],
    answers: Sequence[str | None],
) -> None:
    batch, rows, _ = scorer.read(prompt_ids, completions, answers)
    reader, think_end = scorer.reader, scorer.settings.repro_think_end
    for first in range(0, len(rows), scorer.batch_size):
        part = rows[first : first + scorer.batch_size]
        asked = [reader.encode_forms(row, answers[row.index], evidence.forms) for row in part]
        with scoring_mode(scorer.model, scorer.method):
            values = ask_forms(scorer.model, batch, part, asked, scorer.temperature, scorer.method)
        texts = [readable_text(scorer.tokenizer, completions[row.index], think_end) for row in part]
        right = [verify_answer(text, answers[row.index], think_end) for text, row in zip(texts, part, strict=True)]
        evidence.add(values, torch.tensor(right, dtype=torch.bool))
