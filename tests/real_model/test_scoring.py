"""Boundaries, entropies and J on a real model's own completions."""

import random

import pytest
import torch
from objective_oracle import full_log_probs
from segment_oracle import brute_force, uses_table
from tiny_tokenizers import TEXTS

from repro_trl.generation import prompt_ids
from repro_trl.method.completions import CompletionReader
from repro_trl.method.measure import choose_method, score_rows, scoring_mode
from repro_trl.method.objective import answer_log_probs
from repro_trl.method.segments import find_segment_starts
from repro_trl.viewing.scorer import ScoringSettings

pytestmark = pytest.mark.real_model

DELIMITERS = ("\n\n", "\n", ". ", "\n\nThe", "is", " ")
MARKERS = (None, "</think>", "The answer is", "\\boxed", ".\n\n", "1")


def test_boundaries_are_those_of_brute_force(tokenizer, completions):
    found = 0
    for completion in completions:
        find = brute_force(tokenizer, completion.ids)
        for delimiter in DELIMITERS:
            for marker in MARKERS:
                expected = find(delimiter, marker)
                assert find_segment_starts(tokenizer, completion.ids, delimiter, marker) == expected
                found += len(expected[0])
    assert found > 500


def test_blank_lines_are_found_however_they_are_merged(tokenizer):
    assert uses_table(tokenizer), "the decoder is understood, and nothing is decoded twice"
    rng, spans = random.Random(1), set()
    ends = [".\n\n", ":\n\n", "\n\n", "\n\n\n", " \n\n", ".\n \n\n", "\n\n\n\n", "}\n\n", "!\n\n- ", "\n\n1. "]
    for _ in range(60):
        text = "".join(rng.choice(TEXTS).strip()[: rng.randint(0, 30)] + rng.choice(ends) for _ in range(4)) + "So"
        ids = tokenizer.encode(text, add_special_tokens=False)
        assert tokenizer.decode(ids) == text
        starts, end = find_segment_starts(tokenizer, ids, "\n\n", None)
        assert (starts, end) == brute_force(tokenizer, ids)("\n\n", None) and end == len(ids)
        spans |= {tokenizer.decode(ids[start - 2 : start]) for start in starts}
    # One token, two tokens, and one with more than the blank line were all among them.
    assert {len(tokenizer.encode(end, add_special_tokens=False)) for end in ends[:4]} == {1, 2}
    assert len(spans) > 10


def batch_of(tokenizer, chosen):
    """Prompts and completions, padded as TRL pads them, and the rows to be scored."""
    reader = CompletionReader(tokenizer, ScoringSettings(repro_think_end=None, repro_answer_prefix="The answer is "))
    prompts = [prompt_ids(tokenizer, completion.prompt) for completion in chosen]
    sizes = [max(map(len, prompts)), max(len(completion.ids) for completion in chosen)]
    batch = {}
    for name, width, texts in zip(("prompt", "completion"), sizes, (prompts, [c.ids for c in chosen]), strict=True):
        pads = [[0] * (width - len(ids)) for ids in texts]
        left = name == "prompt"
        batch[f"{name}_ids"] = torch.tensor([p + i if left else i + p for p, i in zip(pads, texts, strict=True)])
        marks = [[1] * len(ids) for ids in texts]
        batch[f"{name}_mask"] = torch.tensor([p + i if left else i + p for p, i in zip(pads, marks, strict=True)])
    rows = [reader.row(i, *reader.cut(completion.ids), completion.answer) for i, completion in enumerate(chosen)]
    return batch, rows


@pytest.fixture(scope="module")
def chosen(completions):
    """Two of different prompts, with the most segments."""
    ranked = sorted(completions, key=lambda completion: -completion.text.count("\n\n"))
    return [ranked[0], next(one for one in ranked if len(str(one.prompt)) != len(str(ranked[0].prompt)))]


def test_shared_is_replay(model, tokenizer, chosen):
    assert choose_method(model, ScoringSettings()) == ("shared", None)
    batch, rows = batch_of(tokenizer, chosen)
    found = {}
    for method in ("shared", "replay"):
        with scoring_mode(model, method), torch.no_grad():
            found[method] = score_rows(model, batch, rows, None, 6, 0.8, method)
    shared, replay = found.values()
    assert shared.boundary_mask.sum() > 6 and torch.equal(shared.boundaries, replay.boundaries)
    torch.testing.assert_close(shared.objective, replay.objective, rtol=0, atol=1e-4)
    torch.testing.assert_close(shared.entropies, replay.entropies, rtol=0, atol=1e-4)


def test_objective_and_entropy_are_those_of_the_definition(model, tokenizer, chosen):
    batch, rows = batch_of(tokenizer, chosen[:1])
    with scoring_mode(model, "shared"), torch.no_grad():
        found = score_rows(model, batch, rows, None, len(rows[0].starts) + 2, 0.8, "shared")
    prompt = torch.tensor(prompt_ids(tokenizer, chosen[0].prompt))
    ids = torch.tensor(chosen[0].ids)
    log_probs = full_log_probs(model, torch.cat([prompt, ids]), None, 0.8)
    for place, start in enumerate(rows[0].starts, start=1):
        before = log_probs[len(prompt) + start - 1]
        entropy = -(before.exp() * before).sum()
        torch.testing.assert_close(found.entropies[0, place], entropy, rtol=0, atol=1e-4)
    answer, end = rows[0].answer, rows[0].end
    scored = torch.tensor(answer.scored)
    asked = torch.cat([prompt, ids, torch.tensor(answer.ids)])
    rows_of_answer = full_log_probs(model, asked, None, 0.8)[len(prompt) + end - 1 : -1]
    expected = rows_of_answer.gather(1, torch.tensor(answer.ids)[:, None])[:, 0][scored].mean()
    torch.testing.assert_close(found.objective[0, len(rows[0].starts) + 1], expected, rtol=0, atol=1e-4)


def test_many_branches_of_a_long_text_are_those_of_replay(model, tokenizer, chosen):
    """Other answers at every boundary, more of them than one call takes."""
    ids = torch.tensor([chosen[0].ids])
    prompt = torch.tensor([prompt_ids(tokenizer, chosen[0].prompt)])
    bounds = torch.arange(0, 34)[None].clamp(max=ids.shape[1])
    answers = [tokenizer.encode(f"{number}", add_special_tokens=False) for number in range(10, 10 + bounds.shape[1])]
    arguments = (
        prompt,
        torch.ones_like(prompt).bool(),
        ids,
        torch.ones_like(ids).bool(),
        bounds,
        torch.ones_like(bounds).bool(),
        torch.tensor([answers]),
        torch.ones(1, len(answers), 2).bool(),
    )
    with torch.no_grad(), scoring_mode(model, "shared"):
        shared = answer_log_probs(model, *arguments)
    few = torch.tensor([0, 13, 33])
    picked = (*arguments[:4], *(tensor[:, few] for tensor in arguments[4:]))
    with torch.no_grad():
        replayed = answer_log_probs(model, *picked, method="replay")
    torch.testing.assert_close(shared[:, few], replayed, rtol=0, atol=1e-4)
