"""Runs of `CheckedTrainer`: they train, and completions get a process advantage."""

import math

import torch
from tiny_runs import CheckedTrainer, losses, settings, token_reward, weights

from repro_trl import ReproGRPOConfig


def train(policy, dataset, tmp_path, reward=token_reward, trainer_class=CheckedTrainer, model_args=None, **overrides):
    args = ReproGRPOConfig(**settings(tmp_path, **overrides))
    trainer = trainer_class(policy, reward, args, dataset, **(model_args or {}))
    trainer.train()
    check(trainer)
    return trainer


def check(trainer):
    assert len(losses(trainer)) == trainer.args.max_steps
    assert all(map(math.isfinite, losses(trainer)))
    assert all(process.any() for process in trainer.process_advantages()), "no process advantage at all"
    assert trainer.state.log_history[0]["repro/segments"] > 1
    assert not torch.equal(weights(trainer.accelerator.unwrap_model(trainer.model)), trainer.start)
