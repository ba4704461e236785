"""A run that is killed and resumed goes on as the run that was not, to the last bit."""

import json

import pytest
import torch
from peft import LoraConfig
from ranks import backend_settings, run_ranks
from tiny_runs import losses, settings, token_reward, weights
from transformers.trainer_utils import get_last_checkpoint
from trl import GRPOConfig, GRPOTrainer

from repro_trl import (
    ReproGRPOConfig,
    ReproGRPOTrainer,
    ReproPPOConfig,
    ReproPPOTrainer,
    ReproReinforcePlusPlusConfig,
    ReproReinforcePlusPlusTrainer,
)
from repro_trl.demo import task

STEPS = 6


class Killed(Exception):
    pass


def make(
    policy, folder, trainer_class=ReproGRPOTrainer, kill_at=None, prompts=64, streamed=False, lora=False, **options
):
    """`kill_at`: the number of forward-backward passes after which the run dies."""
    values = settings(
        folder,
        per_device_train_batch_size=4,
        gradient_accumulation_steps=2,
        max_steps=STEPS,
        save_strategy="steps",
        save_steps=1,
    )
    values.update(options)
    config_class = ReproGRPOConfig
    if trainer_class is GRPOTrainer:
        config_class, values = GRPOConfig, {k: v for k, v in values.items() if not k.startswith("repro_")}

    class Mortal(trainer_class):
        passes = 0

        def training_step(self, *args, **kwargs):
            loss = super().training_step(*args, **kwargs)
            self.passes += 1
            if self.passes == kill_at:
                raise Killed
            return loss

    dataset = task.train_dataset(size=prompts, seed=3)
    torch.manual_seed(0)  # adapters start at random, before the trainer sets its seed
    return Mortal(
        policy,
        token_reward,
        config_class(**values),
        dataset.to_iterable_dataset() if streamed else dataset,
        peft_config=LoraConfig(r=4, task_type="CAUSAL_LM", lora_dropout=0.1) if lora else None,
    )


CASES = {
    "one optimizer step per generation": {},
    "two iterations": {"num_iterations": 2},
    "three iterations, whole generation batches": {"num_iterations": 3, "per_device_train_batch_size": 8},
    "two optimizer steps per generation": {"steps_per_generation": 4},
    "several epochs": {"prompts": 4},
    "several epochs, two iterations": {"prompts": 4, "num_iterations": 2},
    "KL, GSPO-token": {"beta": 0.1, "importance_sampling_level": "sequence", "num_iterations": 2},
    "streamed": {"streamed": True, "num_iterations": 2},
    "LoRA with dropout": {"lora": True, "num_iterations": 2},
}


@pytest.mark.parametrize("passes", [5, 8])  # in the middle of an accumulation window, and at its end
@pytest.mark.parametrize("case", CASES)
def test_resumed_run_is_the_uninterrupted_run(tmp_path, policy, case, passes):
    options = CASES[case]
    whole = make(policy, tmp_path / "whole", **options)
    whole.train()
    killed = make(policy, tmp_path / "killed", kill_at=passes, **options)
    with pytest.raises(Killed):
        killed.train()
    checkpoint = get_last_checkpoint(str(tmp_path / "killed"))
    resumed = make(policy, tmp_path / "killed", **options)
    resumed.train(resume_from_checkpoint=checkpoint)

    done = int(checkpoint.rpartition("-")[2])
    assert done == (passes - 1) // 2 and 1 < done < STEPS - 1
    assert losses(resumed) == losses(whole) and any(losses(whole)[done:])
    assert weights(resumed.model).equal(weights(whole.model))


def test_rollouts_are_kept_in_the_middle_of_a_generation_batch_only(tmp_path, policy):
    make(policy, tmp_path, num_iterations=2, max_steps=4).train()
    assert [(tmp_path / f"checkpoint-{step}" / "rollouts_0.pt").exists() for step in (1, 2, 3, 4)] == [
        True,
        False,
        True,
        False,
    ]


CHANGES = {
    "beta": {"beta": 0.1},
    "beta_off": {"beta": 0.0},
    "repro_alpha": {"repro_alpha": 0.1},
    "repro_top_k": {"repro_top_k": 1},
    "num_generations": {"num_generations": 2},
    "num_iterations": {"num_iterations": 3},
    "temperature": {"temperature": 0.7},
    "use_bias_correction_kl": {"use_bias_correction_kl": False},
}


@pytest.mark.parametrize("name", CHANGES)
def test_rollouts_of_other_settings_are_named_and_made_anew(tmp_path, policy, caplog, name):
    first = {
        "num_iterations": 2,
        "max_steps": 1,
        "beta": 0.1 if name in ("beta_off", "use_bias_correction_kl") else 0.0,
    }
    make(policy, tmp_path, **first).train()
    resumed = make(policy, tmp_path, **{**first, "max_steps": 2, **CHANGES[name]})
    resumed.train(resume_from_checkpoint=True)
    changed = name.removesuffix("_off")
    assert f"{changed} " in caplog.text and "generated again" in caplog.text
    assert len(losses(resumed)) == 2


ALGORITHMS = {
    "use_group_baseline": (ReproReinforcePlusPlusTrainer, ReproReinforcePlusPlusConfig, {"use_group_baseline": True}),
    "kl_in_reward": (ReproPPOTrainer, ReproPPOConfig, {"kl_in_reward": False}),
}


@pytest.mark.parametrize("name", ALGORITHMS)
def test_rollouts_of_other_settings_of_the_algorithm_are_made_anew(tmp_path, policy, caplog, name):
    trainer_class, config_class, change = ALGORITHMS[name]

    def trainer(max_steps, **changes):
        options = settings(
            tmp_path,
            **{"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "num_iterations": 2},
            **{"save_strategy": "steps", "save_steps": 1, "max_steps": max_steps, **changes},
        )
        return trainer_class(policy, token_reward, config_class(**options), task.train_dataset(size=64, seed=3))

    trainer(1).train()
    resumed = trainer(2, beta=0.1, **change)
    resumed.train(resume_from_checkpoint=True)
    assert f"{name} " in caplog.text and "beta " in caplog.text and "generated again" in caplog.text
    assert len(losses(resumed)) == 2


def test_rollouts_are_reused_when_only_the_update_is_another(tmp_path, policy, caplog):
    make(policy, tmp_path, num_iterations=2, max_steps=1).train()
    resumed = make(policy, tmp_path, num_iterations=2, max_steps=2, learning_rate=5e-4, epsilon=0.3, logging_steps=2)
    generated = []
    original = resumed._generate_and_score_completions
    resumed._generate_and_score_completions = lambda inputs: generated.append(1) or original(inputs)
    resumed.train(resume_from_checkpoint=True)
    assert not generated and "generated again" not in caplog.text


def test_checkpoint_of_the_plain_trainer_is_taken_over(tmp_path, policy):
    make(policy, tmp_path, GRPOTrainer, max_steps=2).train()
    resumed = make(policy, tmp_path)
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.global_step == STEPS and len(losses(resumed)) == STEPS


def _run_rank(policy, folder, backend, resume):
    trainer = make(
        policy,
        folder,
        num_iterations=2,
        per_device_train_batch_size=2,
        prompts=4,
        **backend_settings(backend),
    )
    trainer.train(resume_from_checkpoint=resume)
    return {
        "processes": trainer.accelerator.num_processes,
        "type": trainer.accelerator.distributed_type.value,
        "log": json.dumps(
            [{k: e.get(k) for k in ("loss", "grad_norm", "reward")} for e in trainer.state.log_history[:-1]]
        ),
    }


@pytest.mark.distributed
@pytest.mark.parametrize("backend", ["ddp", "zero2", "zero3", "fsdp2"])
def test_several_processes_resume_in_the_middle_of_a_generation_batch(tmp_path, policy, backend):
    whole = run_ranks(_run_rank, tmp_path, policy, tmp_path / "a", backend, None, backend=backend)
    checkpoint = str(tmp_path / "a" / "checkpoint-3")
    resumed = run_ranks(_run_rank, tmp_path, policy, tmp_path / "b", backend, checkpoint, backend=backend)
    for result in (*whole, *resumed):
        assert result["processes"] == 2
        assert result["type"] == {"ddp": "MULTI_CPU", "fsdp2": "FSDP"}.get(backend, "DEEPSPEED")
    assert resumed[0]["log"] == whole[0]["log"] and len(json.loads(whole[0]["log"])) == STEPS
