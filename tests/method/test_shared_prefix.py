"""The prefix pass and the branch passes over its cache."""

import pytest
import torch
from objective_oracle import (
    MODELS,
    TOLERANCE,
    VOCAB_SIZE,
    answers,
    counted,
    full_log_probs,
    oracle,
    prompts_and_completions,
    ragged_batch,
)
from tiny_models import tiny_model

from repro_trl.method.objective import answer_log_probs
from repro_trl.method.shared_prefix import branch_pass, prefix_pass


@pytest.mark.parametrize(
    ("architecture", "attention"), [m for m in MODELS if m[0] in ("llama", "gemma2", "mistral", "gpt2")]
)
@pytest.mark.parametrize("keep_cache", [True, False])
def test_entropies(architecture, attention, keep_cache):
    model = tiny_model(architecture, attention, VOCAB_SIZE)
    batch = ragged_batch()
    lengths = batch["completion_mask"].sum(1)
    position_mask = torch.arange(8) < torch.tensor([8, 3, 0, 1])[:, None]
    positions = (torch.rand(4, 8) * lengths[:, None]).long() * position_mask
    prefix = prefix_pass(
        model, **prompts_and_completions(batch), positions=positions, position_mask=position_mask, temperature=0.8,
        keep_cache=keep_cache,
    )  # fmt: skip
    assert (prefix.cache is not None) == keep_cache

    expected = torch.zeros(4, 8)
    for row, n in position_mask.nonzero().tolist():
        prompt = batch["prompt_ids"][row][batch["prompt_mask"][row]]
        seen = torch.cat([prompt, batch["completion_ids"][row, : positions[row, n]]])
        log_probs = full_log_probs(model, seen, batch["prompt_ids"].shape[1] - len(prompt), 0.8)[-1]
        expected[row, n] = torch.distributions.Categorical(logits=log_probs).entropy()
    torch.testing.assert_close(prefix.entropies, expected, **TOLERANCE)
    assert prefix.entropies.dtype == torch.float32
    assert expected[position_mask].std() > 0.05


def test_a_prefix_with_entropies_serves_several_branch_passes():
    model = tiny_model("gemma3", vocab_size=VOCAB_SIZE)
    batch = ragged_batch()
    everywhere = torch.arange(24).expand(4, -1)
    prefix = prefix_pass(model, **prompts_and_completions(batch), positions=everywhere, position_mask=everywhere >= 0)
    first, second = (branch_pass(model, prefix, **answers(batch)) for _ in range(2))
    torch.testing.assert_close(first, oracle(model, batch), **TOLERANCE)
    assert torch.equal(first, second)
    assert prefix.cache.get_seq_length() == 6 + 24


@pytest.mark.parametrize("contents", ["ragged", "no boundary", "no answer", "zero-width answer"])
def test_calls_follow_from_shapes_and_only_read_rows_reach_the_head(contents):
    model = tiny_model("qwen3", vocab_size=VOCAB_SIZE)
    batch = ragged_batch()
    if contents == "no boundary":
        batch["boundary_mask"][:] = False
    elif contents == "no answer":
        batch["answer_mask"][:] = False
    elif contents == "zero-width answer":
        batch |= {name: batch[name][:, :0] for name in ("answer_ids", "answer_mask")}
    rows, branches = batch["boundaries"].shape
    last = int((batch["boundaries"] * batch["boundary_mask"]).max())
    read = int((batch["boundary_mask"][:, :, None] & batch["answer_mask"][:, None]).sum())
    assert (read > 0) == (contents == "ragged")

    with counted(model) as counts:
        answer_log_probs(model, **batch)
    assert counts["calls"] == 2
    assert counts["tokens"] == rows * (6 + last) + rows * branches * max(batch["answer_ids"].shape[1], 1)
    # One row stands in where none is read: the prefix pass asks for no entropy here.
    assert counts["head_rows"] == 1 + max(read, 1)

    with counted(model) as counts:
        answer_log_probs(model, **batch, method="replay")
    assert counts["calls"] == branches
    assert counts["head_rows"] == read + (6 if read == 0 else int((~batch["boundary_mask"].any(0)).sum()))


def test_entropies_send_only_their_rows_to_the_head():
    model = tiny_model("llama", vocab_size=VOCAB_SIZE)
    batch = ragged_batch()
    position_mask = torch.arange(5) < torch.tensor([5, 0, 2, 1])[:, None]
    with counted(model) as counts:
        prefix_pass(
            model, **prompts_and_completions(batch), positions=torch.zeros(4, 5, dtype=torch.long),
            position_mask=position_mask,
        )  # fmt: skip
    assert counts == {"calls": 1, "tokens": 4 * (6 + 24), "head_rows": 8}
