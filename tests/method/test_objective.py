"""The proxy objective: the shared way and replay against an oracle that scores one unpadded row at a time."""

import math
from contextlib import contextmanager

import pytest
import torch
import trl
from packaging.version import Version
from peft import LoraConfig, PrefixTuningConfig, PromptTuningConfig, get_peft_model
from tiny_models import ARCHITECTURES, tiny_model
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from repro_trl.method import lm_head
from repro_trl.method.branch_attention import unsupported_reason
from repro_trl.method.objective import METHODS, answer_log_probs, replay
from repro_trl.method.shared_prefix import branch_pass, prefix_pass

VOCAB_SIZE = 61
TOLERANCE = {"rtol": 0, "atol": 1e-4}
# Gemma 2 caps attention logits, which transformers' sdpa refuses.
MODELS = [
    (architecture, attention)
    for architecture in ARCHITECTURES
    for attention in ("sdpa", "eager")
    if (architecture, attention) != ("gemma2", "sdpa")
]


def ragged_batch(
    seed: int = 0, rows: int = 4, prompt: int = 6, length: int = 24, boundaries: int = 6, answer: int = 5
) -> dict[str, Tensor]:
    """Row 0 fills every shape; the others are shorter in each, down to one prompt token and no boundary."""
    generator = torch.Generator().manual_seed(seed)

    def left_aligned(width: int, least: int) -> Tensor:
        sizes = torch.randint(least, width + 1, (rows, 1), generator=generator)
        sizes[0] = width
        return torch.arange(width) < sizes

    def tokens(mask: Tensor) -> Tensor:
        return torch.randint(2, VOCAB_SIZE, mask.shape, generator=generator) * mask

    prompt_mask, completion_mask = left_aligned(prompt, 1).flip(1), left_aligned(length, 1)
    boundary_mask, answer_mask = left_aligned(boundaries, 0), left_aligned(answer, 1)
    lengths = completion_mask.sum(1, keepdim=True)
    places = (torch.rand(boundary_mask.shape, generator=generator) * (lengths + 1)).long()
    places[:, :1] = 0
    places[:, 1:2] = lengths
    return {
        "prompt_ids": tokens(prompt_mask),
        "prompt_mask": prompt_mask,
        "completion_ids": tokens(completion_mask),
        "completion_mask": completion_mask,
        "boundaries": places.sort(1).values * boundary_mask,
        "boundary_mask": boundary_mask,
        "answer_ids": tokens(answer_mask),
        "answer_mask": answer_mask,
    }


def prompts_and_completions(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: batch[name] for name in ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask")}


def answers(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in batch.items() if name not in prompts_and_completions(batch)}


@torch.no_grad()
def full_log_probs(model: nn.Module, token_ids: Tensor, first_position: int | None, temperature: float) -> Tensor:
    """(T, V) log-probabilities after each of T unpadded tokens, with no selection of rows."""
    inputs = {} if first_position is None else {"position_ids": first_position + torch.arange(len(token_ids))[None]}
    logits = model(input_ids=token_ids[None], use_cache=False, **inputs).logits
    return (logits[0, -len(token_ids) :].float() / temperature).log_softmax(-1)


def oracle(model: nn.Module, batch: dict[str, Tensor], temperature: float = 1.0, positions: bool = True) -> Tensor:
    """METHOD §3 word for word. TRL's positions count left padding, so row r's first token has the number of pads."""
    boundaries = batch["boundaries"]
    scored_mask = batch.get("scored_mask", batch["answer_mask"])
    result = torch.zeros(boundaries.shape)
    for row, t in batch["boundary_mask"].nonzero().tolist():
        prompt = batch["prompt_ids"][row][batch["prompt_mask"][row]]
        prefix = torch.cat([prompt, batch["completion_ids"][row, : boundaries[row, t]]])
        per_boundary = batch["answer_ids"].dim() == 3
        ids, mask, scored = (
            tensor[row, t] if per_boundary else tensor[row]
            for tensor in (batch["answer_ids"], batch["answer_mask"], scored_mask)
        )
        answer, scored = ids[mask], scored[mask]
        pads = batch["prompt_ids"].shape[1] - len(prompt) if positions else None
        log_probs = full_log_probs(model, torch.cat([prefix, answer]), pads, temperature)
        chosen = log_probs[len(prefix) - 1 : -1].gather(1, answer[:, None])[:, 0][scored]
        if len(chosen) > 0:
            result[row, t] = chosen.mean()
    return result


def assert_all_equal_oracle(model: nn.Module, batch: dict[str, Tensor], temperature: float = 1.0) -> None:
    expected = oracle(model, batch, temperature)
    for method in METHODS:
        actual = answer_log_probs(model, **batch, temperature=temperature, method=method)
        assert actual.dtype == torch.float32
        torch.testing.assert_close(actual, expected, **TOLERANCE, msg=lambda text, method=method: f"{method}: {text}")


@contextmanager
def counted(model: PreTrainedModel):
    """Counts calls of the model, the tokens it reads and the rows its LM head computes."""
    counts = {"calls": 0, "tokens": 0, "head_rows": 0}

    def count_call(module, args, kwargs, output):
        counts["calls"] += 1
        counts["tokens"] += kwargs["input_ids"].numel()

    def count_rows(module, args, output):
        counts["head_rows"] += output.shape[:-1].numel()

    handles = [
        model.register_forward_hook(count_call, with_kwargs=True),
        model.get_output_embeddings().register_forward_hook(count_rows),
    ]
    yield counts
    for handle in handles:
        handle.remove()


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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_reduced_logits(monkeypatch, dtype, temperature):
    monkeypatch.setattr(lm_head, "_CHUNK_ELEMENTS", 3 * 50)  # several chunks, the last one shorter
    logits = (5 * torch.randn(10, 50)).to(dtype)
    logits[1] += 1e3  # far from 0
    logits[2, 1:] = -1e30  # certain
    logits[3, ::2] = -math.inf  # forbidden tokens
    logits[4] = 0.0
    targets = torch.randint(50, (10,))
    targets[2], targets[3] = 0, 1
    before = logits.clone()
    exact = torch.distributions.Categorical(logits=logits.double() / temperature)
    entropies = torch.special.entr(exact.probs).sum(-1)
    torch.testing.assert_close(lm_head.entropies_of(logits, temperature).double(), entropies, atol=1e-4, rtol=1e-5)
    log_probs = lm_head.log_probs_of(logits, targets, temperature)
    torch.testing.assert_close(log_probs.double(), exact.log_prob(targets), atol=1e-4, rtol=1e-5)
    assert torch.equal(logits, before)
    logits[5, 0] = math.nan  # is not hidden
    assert lm_head.entropies_of(logits, temperature).isnan().nonzero().flatten().tolist() == [5]


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


@pytest.mark.parametrize("method", METHODS)
def test_no_boundaries_need_no_call(method):
    model = tiny_model("llama", vocab_size=VOCAB_SIZE)
    batch = ragged_batch(boundaries=0)
    with counted(model) as counts:
        assert answer_log_probs(model, **batch, method=method).shape == (4, 0)
    assert counts["calls"] == 0


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


# TRL has its fused LM head since 1.15.
has_fused_lm_head = pytest.mark.skipif(Version(trl.__version__) < Version("1.15"), reason="no fused LM head")


@has_fused_lm_head
def test_a_fused_lm_head_changes_nothing():
    from trl.trainer.utils import add_fused_lm_head

    model = tiny_model("gemma2", "eager", VOCAB_SIZE)
    batch = ragged_batch()
    plain = answer_log_probs(model, **batch)
    add_fused_lm_head(model, temperature=0.5, outputs=("log_probs", "entropy"))
    for method in METHODS:
        torch.testing.assert_close(answer_log_probs(model, **batch, method=method), plain, **TOLERANCE)


@pytest.mark.parametrize("fused", [False, pytest.param(True, marks=has_fused_lm_head)])
def test_lora(fused):
    model = tiny_model("qwen3", vocab_size=VOCAB_SIZE)
    batch = ragged_batch()
    plain = answer_log_probs(model, **batch)
    if fused:
        from trl.trainer.utils import add_fused_lm_head

        add_fused_lm_head(model)
    config = LoraConfig(target_modules=["q_proj", "v_proj", "lm_head"], r=4, task_type="CAUSAL_LM")
    model = get_peft_model(model, config).eval()
    torch.testing.assert_close(answer_log_probs(model, **batch), plain, **TOLERANCE)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter)
    assert_all_equal_oracle(model, batch)
    assert (answer_log_probs(model, **batch) - plain).abs().max() > 0.1


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


def test_logits_are_reduced_in_chunks_without_a_seam(monkeypatch):
    model = tiny_model("llama", vocab_size=VOCAB_SIZE)
    batch = ragged_batch()
    positions = torch.arange(24).expand(4, -1)
    inputs = {**prompts_and_completions(batch), "positions": positions, "position_mask": positions >= 0}
    objective, entropies = answer_log_probs(model, **batch), prefix_pass(model, **inputs).entropies
    monkeypatch.setattr("repro_trl.method.lm_head._CHUNK_ELEMENTS", 7 * VOCAB_SIZE)
    torch.testing.assert_close(answer_log_probs(model, **batch), objective, rtol=0, atol=1e-6)
    torch.testing.assert_close(prefix_pass(model, **inputs).entropies, entropies, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("model_type", "settings", "reason"),
    [
        ("opt", {"word_embed_proj_dim": 32, "ffn_dim": 48}, "positions"),
        ("bloom", {}, "positions"),
        ("falcon", {"alibi": True}, "positions"),
        ("mamba", {"state_size": 4}, "recurrent"),
        ("lfm2", {"layer_types": ["conv", "full_attention"], "num_key_value_heads": 2}, "conv"),
        (
            "gpt_neo",
            {"attention_types": [[["global", "local"], 1]], "window_size": 5, "num_layers": 2},
            "masks of its own",
        ),
    ],
)
def test_models_that_cannot_share_are_refused_and_replayed(model_type, settings, reason):
    common = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "initializer_range": 0.3}
    config = AutoConfig.for_model(model_type, vocab_size=VOCAB_SIZE, pad_token_id=0, **common, **settings)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    batch = ragged_batch()
    assert reason in unsupported_reason(model)
    with pytest.raises(ValueError, match=r'exactly: .*method="replay"'):
        answer_log_probs(model, **batch, method="shared")
    # All but GPT-Neo count from the first real token, by the mask or because they only know distances.
    expected = oracle(model, batch, positions=model_type == "gpt_neo")
    torch.testing.assert_close(answer_log_probs(model, **batch, method="replay"), expected, **TOLERANCE)


@pytest.mark.parametrize("rope_type", ["dynamic", "longrope"])
def test_rotary_embeddings_that_depend_on_the_length_are_refused(rope_type):
    model = tiny_model("llama", vocab_size=VOCAB_SIZE)
    model.config.rope_parameters = {**model.config.rope_parameters, "rope_type": rope_type}
    assert rope_type in unsupported_reason(model)


@pytest.mark.parametrize("attention", ["flash_attention_2", "flex_attention"])
def test_attention_without_a_mask_per_branch_is_refused(attention):
    model = tiny_model("llama", vocab_size=VOCAB_SIZE)
    assert unsupported_reason(model) is None
    model.config._attn_implementation_internal = attention
    assert attention in unsupported_reason(model)


@pytest.mark.parametrize("config", [PromptTuningConfig, PrefixTuningConfig])
def test_prompt_learning_is_refused_and_replayed(config):
    model = tiny_model("llama", vocab_size=VOCAB_SIZE)
    model = get_peft_model(model, config(task_type="CAUSAL_LM", num_virtual_tokens=3)).eval()
    batch = ragged_batch()
    # Left padding comes between virtual and real tokens and pushes them apart, as in TRL; the oracle has none.
    batch["prompt_ids"], batch["prompt_mask"] = (
        batch["prompt_ids"][:1].repeat(4, 1),
        batch["prompt_mask"][:1].repeat(4, 1),
    )
    assert "before the prompt" in unsupported_reason(model)
    expected = oracle(model, batch, positions=False)
    torch.testing.assert_close(answer_log_probs(model, **batch, method="replay"), expected, **TOLERANCE)


def test_gradient_checkpointing_is_named():
    model = tiny_model("llama", vocab_size=VOCAB_SIZE).train()
    model.gradient_checkpointing_enable()
    with pytest.raises(ValueError, match="gradient checkpointing"):
        answer_log_probs(model, **ragged_batch())


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
