"""Architectures, and the choice between the shared method and replay."""

import pytest
import torch
from checked_runs import train
from peft import PromptTuningConfig
from pocket.make import make_tokenizer
from tiny_models import tiny_model
from tiny_runs import CheckedTrainer, losses
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from repro_trl.method.measure import Scorer
from repro_trl.method.objective import branch_pass


@pytest.mark.parametrize("architecture", ["gemma2", "gemma3", "mistral", "qwen3_moe", "gpt_neox"])
def test_architectures(tmp_path, dataset, architecture):
    tokenizer = make_tokenizer()
    attention = "eager" if architecture == "gemma2" else "sdpa"
    overrides = {"output_router_logits": False} if architecture == "qwen3_moe" else {}
    tiny_model(architecture, attention, len(tokenizer), **overrides).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    trainer = train(str(tmp_path / "model"), dataset, tmp_path)
    assert trainer._scorer.method == "shared"


def test_auto_proves_the_shared_method_once(tmp_path, policy, dataset, monkeypatch, caplog):
    compared, method_difference = [], Scorer.method_difference

    def compare(*args):
        compared.append(method_difference(*args))
        return compared[-1]

    monkeypatch.setattr(Scorer, "method_difference", compare)
    trainer = train(policy, dataset, tmp_path)
    assert trainer._scorer.method == "shared" and len(compared) == 1 and compared[0] < 1e-5
    assert "replay" not in caplog.text


def test_auto_falls_back_where_the_shared_method_is_wrong(tmp_path, policy, dataset, monkeypatch, caplog):
    def wrong(*args, **kwargs):
        return branch_pass(*args, **kwargs) * 1.01

    monkeypatch.setattr("repro_trl.method.measure.branch_pass", wrong)
    replayed = train(policy, dataset, tmp_path, repro_method="replay")
    assert "uses the slower 'replay'" not in caplog.text
    trainer = train(policy, dataset, tmp_path)
    assert trainer._scorer.method == "replay"
    assert caplog.text.count("uses the slower 'replay': on this model its results differ") == 1
    assert losses(trainer) == losses(replayed)


def test_auto_names_the_reason_for_replay_once(tmp_path, policy, dataset, caplog):
    prompt_tuning = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
    trainer = train(policy, dataset, tmp_path, model_args={"peft_config": prompt_tuning})
    assert trainer._scorer.method == "replay"
    assert caplog.text.count("uses the slower 'replay': PEFT's PROMPT_TUNING puts its own tokens") == 1
    with pytest.raises(ValueError, match="repro_method='shared' is not exact for this model"):
        train(policy, dataset, tmp_path, model_args={"peft_config": prompt_tuning}, repro_method="shared", max_steps=1)


def test_attention_without_masks_makes_way_while_scoring(tmp_path, policy, dataset, monkeypatch, caplog):
    shapes = set()

    def causal(module, query, key, value, attention_mask, **kwargs):
        shapes.add(None if attention_mask is None else attention_mask.dim())
        return ALL_ATTENTION_FUNCTIONS["sdpa"](module, query, key, value, None, is_causal=True, **kwargs)

    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS, "flex_attention", causal)
    monkeypatch.setitem(ALL_MASK_ATTENTION_FUNCTIONS, "flex_attention", lambda *args, **kwargs: None)
    model = AutoModelForCausalLM.from_pretrained(policy, attn_implementation="flex_attention")
    trainer = train(model, dataset, tmp_path, model_args={"processing_class": AutoTokenizer.from_pretrained(policy)})
    assert trainer._scorer.method == "shared" and "replay" not in caplog.text
    assert model.config._attn_implementation == "flex_attention"
    assert shapes == {None}


class WithImages(CheckedTrainer):
    """Its rollouts say that they hold images; the policy reads none."""

    def _compute_advantages(self, rollout):
        rollout.batch["pixel_values"] = torch.zeros(8, 1)
        try:
            return super()._compute_advantages(rollout)
        finally:
            del rollout.batch["pixel_values"]

    def _get_per_token_logps_and_entropies(self, *args, pixel_values=None, **kwargs):
        return super()._get_per_token_logps_and_entropies(*args, **kwargs)


def test_prompts_with_images_are_replayed(tmp_path, policy, dataset, caplog):
    replayed = train(policy, dataset, tmp_path, repro_method="replay")
    trainer = train(policy, dataset, tmp_path, trainer_class=WithImages)
    assert caplog.text.count("uses the slower 'replay': prompts have images") == 1
    for (_, _, total), (_, _, expected) in zip(trainer.rollouts, replayed.rollouts, strict=True):
        torch.testing.assert_close(total, expected, atol=1e-3, rtol=0)
    with pytest.raises(ValueError, match="repro_method='shared' cannot score prompts with images"):
        train(policy, dataset, tmp_path, trainer_class=WithImages, repro_method="shared")
