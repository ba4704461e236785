"""The proxy objective: the shared way and replay against an oracle that scores one unpadded row at a time."""

import pytest
import torch
from objective_oracle import (
    MODELS,
    VOCAB_SIZE,
    answers,
    assert_all_equal_oracle,
    counted,
    oracle,
    prompts_and_completions,
    ragged_batch,
)
from tiny_models import tiny_model
from torch.nn.parallel import DistributedDataParallel

from repro_trl.method.objective import METHODS, answer_log_probs, replay
from repro_trl.method.shared_prefix import branch_pass, prefix_pass


@pytest.mark.parametrize(("architecture", "attention"), MODELS)
def test_shared_and_replay_equal_the_oracle(architecture, attention):
    model = tiny_model(architecture, attention, VOCAB_SIZE)
    batch = ragged_batch()
    # J must differ from boundary to boundary by far more than the tolerance, or nothing is tested.
    assert oracle(model, batch)[0].std() > 0.1
    assert_all_equal_oracle(model, batch)


@pytest.mark.parametrize("seed", range(1, 9))
def test_random_ragged_batches(seed):
    model = tiny_model("qwen3_sliding", vocab_size=VOCAB_SIZE, seed=seed)
    assert_all_equal_oracle(model, ragged_batch(seed, rows=3, prompt=1 + seed, length=3 * seed, answer=seed))


@pytest.mark.parametrize("architecture", ["llama", "gemma3"])
@pytest.mark.parametrize(("boundaries", "answer"), [(1, 1), (2, 64), (31, 1), (31, 9)])
def test_extreme_shapes(architecture, boundaries, answer):
    model = tiny_model(architecture, vocab_size=VOCAB_SIZE)
    assert_all_equal_oracle(model, ragged_batch(rows=2, length=40, boundaries=boundaries, answer=answer))


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "mistral"])
@pytest.mark.parametrize("temperature", [0.6, 1.7])
def test_temperature_divides_the_logits(architecture, temperature):
    model = tiny_model(architecture, vocab_size=VOCAB_SIZE)
    batch = ragged_batch()
    assert_all_equal_oracle(model, batch, temperature)
    assert (oracle(model, batch, temperature) - oracle(model, batch)).abs().max() > 0.1


@pytest.mark.parametrize("architecture", ["llama", "gemma3"])
def test_unscored_tokens_are_given_but_not_averaged(architecture):
    model = tiny_model(architecture, vocab_size=VOCAB_SIZE)
    batch = ragged_batch()
    batch["scored_mask"] = (torch.arange(5) >= 2).repeat(4, 1)  # padding included, which must not count
    batch["scored_mask"][1] = False
    assert_all_equal_oracle(model, batch)
    assert (answer_log_probs(model, **batch)[1] == 0).all()


@pytest.mark.parametrize("architecture", ["llama", "gemma3"])
def test_answers_may_differ_by_boundary(architecture):
    model = tiny_model(architecture, vocab_size=VOCAB_SIZE)
    batch = ragged_batch()
    sizes = torch.randint(1, 6, batch["boundaries"].shape, generator=torch.Generator().manual_seed(7))
    batch["answer_mask"] = torch.arange(5) < sizes[..., None]
    batch["answer_ids"] = torch.randint(2, VOCAB_SIZE, batch["answer_mask"].shape) * batch["answer_mask"]
    batch["scored_mask"] = batch["answer_mask"] & (torch.arange(5) >= sizes[..., None] // 2)
    assert_all_equal_oracle(model, batch)


def test_the_same_answer_per_boundary_or_per_row():
    model = tiny_model("llama", vocab_size=VOCAB_SIZE)
    batch = ragged_batch()
    per_row = answer_log_probs(model, **batch)
    for name in ("answer_ids", "answer_mask"):
        batch[name] = batch[name][:, None].expand(-1, batch["boundaries"].shape[1], -1)
    torch.testing.assert_close(answer_log_probs(model, **batch), per_row, rtol=0, atol=0)


@pytest.mark.parametrize("method", METHODS)
def test_masked_boundaries_and_rows_without_answer_are_zero(method):
    model = tiny_model("llama", vocab_size=VOCAB_SIZE)
    batch = ragged_batch()
    batch["boundary_mask"][2] = False
    batch["boundaries"][2] = 10**6  # what a masked entry holds does not matter
    batch["answer_mask"][3] = False
    objective = answer_log_probs(model, **batch, method=method)
    assert (objective[2:] == 0).all()
    assert (objective[0] < 0).all()


@pytest.mark.parametrize("method", METHODS)
def test_no_boundaries_need_no_call(method):
    model = tiny_model("llama", vocab_size=VOCAB_SIZE)
    batch = ragged_batch(boundaries=0)
    with counted(model) as counts:
        assert answer_log_probs(model, **batch, method=method).shape == (4, 0)
    assert counts["calls"] == 0


@pytest.mark.parametrize("method", METHODS)
def test_the_model_is_left_as_it_was(method):
    model = tiny_model("llama", vocab_size=VOCAB_SIZE)
    batch = ragged_batch()
    before = model(batch["prompt_ids"]).logits
    objective = answer_log_probs(model, **batch, method=method)
    assert not objective.requires_grad
    assert not model.training
    assert torch.equal(model(batch["prompt_ids"]).logits, before)

    batch["answer_ids"][0, 0] = VOCAB_SIZE  # no such token
    with pytest.raises(IndexError):
        answer_log_probs(model, **batch, method=method)
    assert torch.equal(model(batch["prompt_ids"]).logits, before)


def test_padding_of_answers_stays_inside_a_table_of_positions():
    batch = ragged_batch(prompt=6, length=24, answer=5)
    batch["answer_mask"][0, 2:] = False
    batch["boundaries"][1:] = 0
    # The longest text ends where the table does; its answer is padded beyond that.
    assert_all_equal_oracle(tiny_model("gpt2", vocab_size=VOCAB_SIZE, max_position_embeddings=6 + 24 + 2), batch)


@pytest.mark.parametrize("method", METHODS)
def test_a_distributed_wrapper_is_called_itself(method, tmp_path):
    model = tiny_model("gemma3", vocab_size=VOCAB_SIZE)
    batch = ragged_batch()
    plain = answer_log_probs(model, **batch, method=method)
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        wrapped = DistributedDataParallel(model)
        calls = []
        wrapped.register_forward_hook(lambda *_: calls.append(1))
        assert torch.equal(answer_log_probs(wrapped, **batch, method=method), plain)
        assert len(calls) == (2 if method == "shared" else 6)
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize(
    ("architecture", "attention"), [m for m in MODELS if m[0] in ("llama", "gemma3", "gpt_neox", "mixtral")]
)
@pytest.mark.parametrize("precision", ["autocast", "bfloat16"])
def test_bfloat16(architecture, attention, precision):
    # Smaller weights than elsewhere: rounding to 8 bits moves the extreme logits of the others by whole nats.
    model = tiny_model(architecture, attention, VOCAB_SIZE, initializer_range=0.1)
    batch = ragged_batch()
    expected = answer_log_probs(model, **batch)
    if precision == "bfloat16":
        model = model.to(torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "autocast"):
        for method in METHODS:
            actual = answer_log_probs(model, **batch, method=method)
            assert actual.dtype == torch.float32
            torch.testing.assert_close(actual, expected, rtol=0, atol=0.1)
        positions = torch.zeros(4, 1, dtype=torch.long)
        prefix = prefix_pass(
            model, **prompts_and_completions(batch), positions=positions, position_mask=positions == 0
        )
    assert prefix.entropies.dtype == torch.float32
    assert ((prefix.entropies > 0) & (prefix.entropies < torch.log(torch.tensor(VOCAB_SIZE)))).all()


def test_bad_arguments():
    model = tiny_model("llama", vocab_size=VOCAB_SIZE)
    batch = ragged_batch()
    with pytest.raises(ValueError, match=r"method must be one of .*'fast'"):
        answer_log_probs(model, **batch, method="fast")
    no_prompt = {name: batch[name][:, :0] for name in ("prompt_ids", "prompt_mask")}
    for method in METHODS:
        with pytest.raises(ValueError, match="prompt_ids has no tokens"):
            answer_log_probs(model, **{**batch, **no_prompt}, method=method)
    positions = torch.zeros(4, 0, dtype=torch.long)
    inputs = {**prompts_and_completions(batch), "positions": positions, "position_mask": positions.bool()}
    with pytest.raises(ValueError, match="keep_cache=True"):
        branch_pass(model, prefix_pass(model, **inputs, keep_cache=False), **answers(batch))


def test_replay_is_the_public_reference():
    model = tiny_model("llama", vocab_size=VOCAB_SIZE)
    batch = ragged_batch()
    assert torch.equal(replay(model, **batch), answer_log_probs(model, **batch, method="replay"))
