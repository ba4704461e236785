"""Models that cannot share a prefix: each is refused with its reason, and replayed."""

import pytest
import torch
import transformers
from objective_oracle import TOLERANCE, VOCAB_SIZE, oracle, ragged_batch
from packaging.version import Version
from peft import PrefixTuningConfig, PromptTuningConfig, get_peft_model
from tiny_models import tiny_model
from transformers import AutoConfig, AutoModelForCausalLM

from repro_trl.method.branch_attention import unsupported_reason
from repro_trl.method.objective import answer_log_probs


@pytest.mark.parametrize(
    ("model_type", "settings", "reason"),
    [
        ("opt", {"word_embed_proj_dim": 32, "ffn_dim": 48}, "positions"),
        ("bloom", {}, "position ids"),
        ("falcon", {"alibi": True}, "position ids"),
        ("mamba", {"state_size": 4}, "recurrent"),
        ("lfm2", {"layer_types": ["conv", "full_attention"], "num_key_value_heads": 2}, "conv"),
        (
            "gpt_neo",
            {"num_layers": 2, "attention_types": [[["global", "local"], 1]], "window_size": 5},
            "its own attention masks",
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


def test_gradient_checkpointing_is_named_where_it_costs_the_cache():
    """From transformers 5.24 it does not: without gradients nothing is checkpointed, and the cache stays."""
    model = tiny_model("llama", vocab_size=VOCAB_SIZE).train()
    model.gradient_checkpointing_enable()
    if Version(transformers.__version__) >= Version("5.24"):
        batch = ragged_batch()
        expected = oracle(model, batch)
        torch.testing.assert_close(answer_log_probs(model, **batch), expected, **TOLERANCE)
        return
    with pytest.raises(ValueError, match="gradient checkpointing"):
        answer_log_probs(model, **ragged_batch())
