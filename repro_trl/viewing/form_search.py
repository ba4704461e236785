"""`repro_answer_prefix="auto"` for `score` and `inspect`: where the model gives its answer, from given completions."""

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
from ..method.token_text import readable_text
from ..verifier import verify_answer
from .scorer import CompletionScorer

# Completions that are looked at; each is asked for its answer in some 50 forms, at two places.
_COMPLETIONS = 64

Group = tuple[list[int], Sequence[list[int]], Sequence[str | None]]
"""The completions of one prompt: prompt ids, completions, ground truths."""


def search_form(scorer: CompletionScorer, groups: Iterable[Group], command: str) -> None:
    """
    Set the scorer's form to the best one for the first completions of the groups, and say which on stderr.

    Without enough right and wrong completions the paper's form stays, and that is said.
    """
    settings, tokenizer = scorer.settings, scorer.tokenizer
    template, think_end = settings.repro_answer_template, settings.repro_think_end
    taken: list[tuple[Group, list[str]]] = []
    texts: list[str] = []
    for group in groups:
        written = [readable_text(tokenizer, ids, think_end) for ids in group[1]]
        taken.append((group, written))
        texts += written
        if len(texts) >= _COMPLETIONS:
            break
    frequent = frequent_texts(own_texts(texts, template, think_end), len(texts))
    evidence = FormEvidence(candidate_forms(template, think_end, frequent, settings.repro_prefix_candidates or ()))
    for (prompt_ids, completions, answers), written in taken:
        batch, rows, _ = scorer.read(prompt_ids, completions, answers)
        right = [bool(verify_answer(*pair, think_end)) for pair in zip(written, answers, strict=True)]
        evidence.add(
            scorer.ask_forms(batch, rows, answers, evidence.forms, scorer.batch_size),
            torch.tensor(right, dtype=torch.bool),
        )
    found = evidence.separations()
    if found is None:
        print(
            f"repro-trl {command}: repro_answer_prefix='auto' found too few correct or too few wrong completions "
            f"among the first {len(texts)}, so the paper's form is used.",
            file=sys.stderr,
        )
        return
    scorer.reader.form = best_separation(found)[0].form
    print(f"repro-trl {command}: {describe_choice(found, evidence.count)}.", file=sys.stderr)
