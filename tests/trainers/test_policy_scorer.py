"""Scoring on the keys and values of a pass that the trainer runs anyway, against replay."""

import logging
import weakref

import pytest
import torch
from counted_forwards import CountsForwards
from peft import LoraConfig
from tiny_runs import losses, settings, token_reward
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache, set_seed

from repro_trl import (
    ReproGRPOConfig,
    ReproGRPOTrainer,
    ReproPPOConfig,
    ReproPPOTrainer,
    ReproReinforcePlusPlusConfig,
    ReproReinforcePlusPlusTrainer,
)
from repro_trl.method.branch_attention import cache_argument

TRAINERS = {
    "grpo": (ReproGRPOTrainer, ReproGRPOConfig),
    "reinforce++": (ReproReinforcePlusPlusTrainer, ReproReinforcePlusPlusConfig),
    "ppo": (ReproPPOTrainer, ReproPPOConfig),
}


def train(name, policy, dataset, folder, peft_config=None, model=None, **overrides):
    trainer_class, config_class = TRAINERS[name]

    class Recorder(CountsForwards, trainer_class):
        """Keeps what was scored."""

    set_seed(0)  # of new adapters
    config = config_class(**settings(folder, per_device_train_batch_size=4, **overrides))
    trainer = Recorder(model or policy, token_reward, config, dataset, peft_config=peft_config)
    trainer.train()
    return trainer


def assert_same_scores(one, other, tolerance=1e-4):
    assert len(one.scores) == len(other.scores) > 0
    for a, b in zip(one.scores, other.scores, strict=True):
        assert a.counts == b.counts
        a, b = a.objectives, b.objectives
        assert torch.equal(a.boundaries, b.boundaries) and torch.equal(a.boundary_mask, b.boundary_mask)
        assert a.boundary_mask.sum(1).max() > 2
        assert (a.objective - b.objective).masked_fill(~a.boundary_mask, 0).abs().max() < tolerance
    assert losses(one) == pytest.approx(losses(other), abs=1e-5)


LORA = LoraConfig(task_type="CAUSAL_LM", r=4, target_modules="all-linear", lora_dropout=0.0, init_lora_weights=False)
PASSES = {
    # name: (trainer, settings, whether the trainer runs the policy over the rollouts itself)
    "several iterations": ("grpo", {"num_iterations": 2, "max_steps": 4}, True),
    "misaligned accumulation": ("grpo", {"steps_per_generation": 4, "gradient_accumulation_steps": 2}, True),
    "reference model after it": ("grpo", {"num_iterations": 2, "beta": 0.1}, True),
    "reference model only": ("grpo", {"beta": 0.1}, False),
    "adapters": ("grpo", {"num_iterations": 2, "beta": 0.1, "peft_config": LORA}, True),
    "adapters, reference only": ("grpo", {"beta": 0.1, "peft_config": LORA}, False),
    "gradient checkpointing": ("grpo", {"num_iterations": 2, "gradient_checkpointing": True}, True),
    "padded to a multiple": ("grpo", {"num_iterations": 2, "pad_to_multiple_of": 16}, True),
    "truncated completions masked": ("grpo", {"num_iterations": 2, "mask_truncated_completions": True}, True),
    "answer prefix": ("grpo", {"num_iterations": 2, "repro_answer_prefix": "</think>\n\n"}, True),
    "KL in the reward": ("reinforce++", {"beta": 0.1}, True),
    "PPO": ("ppo", {"num_iterations": 2, "beta": 0.1}, True),
}


@pytest.mark.parametrize("case", PASSES)
def test_scores_are_those_of_replay(case, tmp_path, policy, dataset):
    name, overrides, has_pass = PASSES[case]
    shared, replayed = (
        train(name, policy, dataset, tmp_path / method, **{"max_steps": 2, **overrides, "repro_method": method})
        for method in ("shared", "replay")
    )
    assert shared.scored == (len(shared.scores) if has_pass else 0) and replayed.scored == 0
    assert_same_scores(shared, replayed)


def test_only_the_branches_come_on_top(tmp_path, policy, dataset):
    forwards = {}
    for alpha in (0.0, 0.5):
        overrides = {"num_iterations": 2, "max_steps": 4, "gradient_accumulation_steps": 2, "repro_alpha": alpha}
        trainer = train("grpo", policy, dataset, tmp_path, repro_method="shared", **overrides)
        forwards[alpha] = trainer.forwards_per_batch
    assert forwards[0.0] == [2, 2] and forwards[0.5] == [4, 4]


def test_evaluation_has_a_pass_of_its_own(tmp_path, policy, dataset):
    overrides = {"num_iterations": 2, "per_device_eval_batch_size": 4, "repro_method": "shared"}
    trainer = train("grpo", policy, dataset, tmp_path, **overrides)
    before = len(trainer.scores)
    metrics = trainer.evaluate(eval_dataset=dataset.select(range(2)))
    assert len(trainer.scores) == before + 2 and metrics["eval_repro/segments"] > 1


def test_micro_batches_without_anything_to_score(tmp_path, policy, dataset):
    answers = [row["solution"] if i % 4 == 0 else None for i, row in enumerate(dataset)]
    sparse = dataset.remove_columns("solution").add_column("solution", answers)
    overrides = {"num_iterations": 2, "max_steps": 4, "gradient_accumulation_steps": 4, "shuffle_dataset": False}
    shared, replayed = (
        train("grpo", policy, sparse, tmp_path, repro_method=method, **overrides) for method in ("shared", "replay")
    )
    assert_same_scores(shared, replayed)
    assert shared.forwards_per_batch[0] == 4 + 1  # one prompt of four has an answer: one micro-batch, one branch pass


def test_dropout_keeps_the_passes_apart(tmp_path, policy, dataset, caplog):
    config = AutoConfig.from_pretrained(policy, attention_dropout=0.1)
    model = AutoModelForCausalLM.from_pretrained(policy, config=config)
    trainer = train("grpo", policy, dataset, tmp_path, model=model, num_iterations=2, max_steps=4)
    assert trainer.scored == 0 and len(trainer.scores) == 2
    assert (
        caplog.text.count("runs a second forward pass over the rollouts after the trainer's own: dropout is active")
        == 1
    )


def test_tools_keep_the_passes_apart(tmp_path, policy, dataset, caplog):
    def rollout(prompts, trainer):
        ids = trainer._tokenizer("Hmm\n\nA\n\nB")["input_ids"]
        return {"prompt_ids": [[1]] * len(prompts), "completion_ids": [ids] * len(prompts), "logprobs": None}

    config = ReproGRPOConfig(**settings(tmp_path, num_iterations=2, repro_method="shared"))
    trainer = ReproGRPOTrainer(policy, token_reward, config, dataset, rollout_func=rollout)
    with caplog.at_level(logging.WARNING, logger="repro_trl.trainers.shared_pass"):
        trainer.train()
    assert caplog.text.count("with tools or a rollout function") == 1
    assert trainer.state.log_history[0]["repro/segments"] == 3


def test_model_that_keeps_nothing_in_that_pass(tmp_path, policy, dataset, caplog):
    model = AutoModelForCausalLM.from_pretrained(policy)
    forward = model.model.forward

    def forgetful(*args, use_cache=None, **kwargs):
        name = cache_argument(model)
        kept = kwargs.pop(name, None) if use_cache else None
        return forward(*args, use_cache=use_cache, **{**kwargs, name: kept})

    model.model.forward = forgetful
    overrides = {"num_iterations": 2, "max_steps": 4, "gradient_accumulation_steps": 2}
    trainer = train("grpo", policy, dataset, tmp_path, model=model, **overrides)
    replayed = train("grpo", policy, dataset, tmp_path, repro_method="replay", **overrides)
    assert_same_scores(trainer, replayed)
    assert caplog.text.count("the model does not cache keys and values in it") == 1


def test_wrong_method_is_found_out_within_the_pass(tmp_path, policy, dataset, monkeypatch, caplog):
    from repro_trl.method.shared_prefix import branch_pass

    monkeypatch.setattr(
        "repro_trl.method.measure.branch_pass", lambda *args, **kwargs: branch_pass(*args, **kwargs) * 1.01
    )
    overrides = {"num_iterations": 2, "max_steps": 4}
    trainer = train("grpo", policy, dataset, tmp_path, **overrides)
    replayed = train("grpo", policy, dataset, tmp_path, repro_method="replay", **overrides)
    assert trainer._scorer.method == "replay"
    assert_same_scores(trainer, replayed)
    assert caplog.text.count("uses the slower 'replay': on this model its results differ") == 1


def test_keys_and_values_are_let_go_before_the_next_micro_batch(tmp_path, policy, dataset, monkeypatch):
    alive, most = weakref.WeakSet(), []

    class Cache(DynamicCache):
        def __init__(self, *args, **kwargs):
            most.append(len(alive))
            super().__init__(*args, **kwargs)
            alive.add(self)

    monkeypatch.setattr("repro_trl.trainers.shared_pass.DynamicCache", Cache)
    overrides = {"num_iterations": 2, "gradient_accumulation_steps": 4, "repro_method": "shared"}
    train("grpo", policy, dataset, tmp_path, **overrides)
    assert most == [0] * 4
