"""Branches that are read in several forwards, against one forward and against replay."""

import pytest
import torch
from tiny_models import ARCHITECTURES, tiny_model

from repro_trl.method import shared_prefix
from repro_trl.method.objective import answer_log_probs

VOCABULARY, BOUNDARIES = 61, 11


def inputs(seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    prompt_mask = torch.arange(6) >= torch.tensor([[0], [3]])
    completion_mask = torch.arange(40) < torch.tensor([[40], [17]])
    boundaries = torch.stack([torch.randperm(18, generator=generator)[:BOUNDARIES].sort().values for _ in range(2)])
    mask = torch.arange(BOUNDARIES) < torch.tensor([[BOUNDARIES], [4]])
    answer_mask = torch.arange(5) < torch.tensor([[5], [2]])
    return {
        "prompt_ids": torch.randint(2, VOCABULARY, (2, 6), generator=generator) * prompt_mask,
        "prompt_mask": prompt_mask,
        "completion_ids": torch.randint(2, VOCABULARY, (2, 40), generator=generator) * completion_mask,
        "completion_mask": completion_mask,
        "boundaries": boundaries,
        "boundary_mask": mask,
        "answer_ids": torch.randint(2, VOCABULARY, (2, 5), generator=generator) * answer_mask,
        "answer_mask": answer_mask,
    }


def count_calls(model) -> list[int]:
    calls = []
    model.register_forward_pre_hook(lambda *_: calls.append(1))
    return calls


@pytest.mark.parametrize("per_pass", [1, 3, 10])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_branches_in_several_forwards(architecture, per_pass, monkeypatch):
    # transformers' sdpa refuses Gemma 2's capped logits
    attention = "eager" if architecture == "gemma2" else "sdpa"
    model = tiny_model(architecture, attention, vocab_size=VOCABULARY)
    whole = answer_log_probs(model, **inputs())
    replayed = answer_log_probs(model, **inputs(), method="replay")
    monkeypatch.setattr(shared_prefix, "BRANCHES_PER_PASS", per_pass)
    calls = count_calls(model)
    parts = answer_log_probs(model, **inputs())
    assert len(calls) == 1 + -(-BOUNDARIES // per_pass)
    torch.testing.assert_close(parts, whole, atol=1e-5, rtol=0)
    torch.testing.assert_close(parts, replayed, atol=1e-4, rtol=0)


def test_the_number_of_forwards_hangs_on_the_boundaries_alone(monkeypatch):
    monkeypatch.setattr(shared_prefix, "BRANCHES_PER_PASS", 4)
    model = tiny_model("qwen3", vocab_size=VOCABULARY)
    numbers = []
    for masked in (False, True):
        given = inputs(1)
        if masked:
            given["boundary_mask"] = torch.zeros_like(given["boundary_mask"])
            given["answer_ids"], given["answer_mask"] = given["answer_ids"][:, :1], given["answer_mask"][:, :1]
        calls = count_calls(model)
        answer_log_probs(model, **given)
        numbers.append(len(calls))
    assert numbers[0] == numbers[1] == 1 + 3


def test_masks_are_bounded(monkeypatch):
    sizes = []
    build = shared_prefix.branch_attention_mask

    def measured(*args):
        mask = build(*args)
        sizes.append(mask.shape)
        return mask

    monkeypatch.setattr(shared_prefix, "branch_attention_mask", measured)
    model = tiny_model("qwen3", vocab_size=VOCABULARY)
    given = inputs(2)
    given["boundaries"] = torch.arange(40).expand(2, -1) % 17
    given["boundary_mask"] = torch.ones(2, 40, dtype=torch.bool)
    answer_log_probs(model, **given)
    assert [size[2] for size in sizes] == [32 * 5, 8 * 5]
