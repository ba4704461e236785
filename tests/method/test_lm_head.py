"""Logits reduced to log-probabilities and entropies, in chunks; fused and adapted LM heads."""

import math

import pytest
import torch
import trl
from objective_oracle import (
    TOLERANCE,
    VOCAB_SIZE,
    assert_all_equal_oracle,
    prompts_and_completions,
    ragged_batch,
)
from packaging.version import Version
from peft import LoraConfig, get_peft_model
from tiny_models import tiny_model
from torch import nn

from repro_trl.method import lm_head
from repro_trl.method.objective import METHODS, answer_log_probs
from repro_trl.method.shared_prefix import prefix_pass


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


def test_logits_are_reduced_in_chunks_without_a_seam(monkeypatch):
    model = tiny_model("llama", vocab_size=VOCAB_SIZE)
    batch = ragged_batch()
    positions = torch.arange(24).expand(4, -1)
    inputs = {**prompts_and_completions(batch), "positions": positions, "position_mask": positions >= 0}
    objective, entropies = answer_log_probs(model, **batch), prefix_pass(model, **inputs).entropies
    monkeypatch.setattr("repro_trl.method.lm_head._CHUNK_ELEMENTS", 7 * VOCAB_SIZE)
    torch.testing.assert_close(answer_log_probs(model, **batch), objective, rtol=0, atol=1e-6)
    torch.testing.assert_close(prefix_pass(model, **inputs).entropies, entropies, rtol=0, atol=1e-6)
