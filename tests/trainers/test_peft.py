"""Adapters train with RePro, and dropout does not reach the objective."""

import pytest
import torch
from checked_runs import train
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

LORA = {"r": 4, "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM"}


@pytest.mark.parametrize("beta", [0.0, 0.1])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_lora(tmp_path, policy, dataset, beta, checkpointing):
    trainer = train(
        policy,
        dataset,
        tmp_path,
        model_args={"peft_config": LoraConfig(**LORA)},
        beta=beta,
        gradient_checkpointing=checkpointing,
    )
    base = AutoModelForCausalLM.from_pretrained(policy, dtype=torch.float32)
    trained = trainer.model.get_base_model().state_dict()
    assert all(torch.equal(value, trained[name]) for name, value in base.state_dict().items() if name in trained)


@pytest.mark.parametrize("beta", [0.0, 0.1])
def test_lora_trained_on(tmp_path, policy, dataset, beta):
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(policy), LoraConfig(**LORA, init_lora_weights=False))
    model.save_pretrained(tmp_path / "adapter")
    model = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(policy), tmp_path / "adapter", is_trainable=True
    )
    trainer = train(
        model,
        dataset,
        tmp_path,
        model_args={"processing_class": AutoTokenizer.from_pretrained(policy)},
        beta=beta,
    )
    assert ("ref" in trainer.model.peft_config) == (beta > 0)
    assert trainer.model.active_adapters == ["default"]


def test_lora_with_modules_to_save(tmp_path, policy, dataset):
    trainer = train(
        policy, dataset, tmp_path, model_args={"peft_config": LoraConfig(**LORA, modules_to_save=["lm_head"])}
    )
    assert any("modules_to_save" in name for name, p in trainer.model.named_parameters() if p.requires_grad)
    assert trainer._scorer.method == "shared"


def test_dropout_does_not_reach_the_objective(tmp_path, policy, dataset):
    dropout = LoraConfig(**LORA, lora_dropout=0.5, init_lora_weights=False)
    trainer = train(policy, dataset, tmp_path, model_args={"peft_config": dropout})
    assert trainer._scorer.method == "shared"
    assert trainer.model.training and all(module.training for module in trainer.model.modules())
    rollout, outcome, _ = trainer.rollouts[0]
    again = []
    for _ in range(2):
        rollout.batch["advantages"] = outcome
        again.append(trainer._compute_advantages(rollout))
    assert torch.equal(*again)
