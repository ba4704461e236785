"""Short training runs of the bundled model."""

from pathlib import Path

import torch
from tiny_runs import trl_settings

from repro_trl.rewards import answer_reward

POCKET = str(Path(__file__).parents[2] / "examples" / "pocket" / "model")


def settings(output_dir, **overrides):
    return trl_settings(output_dir, **{"max_completion_length": 64, "max_steps": 3, **overrides})


def train(trainer_class, config, dataset, reward=answer_reward, **kwargs):
    trainer = trainer_class(
        model=kwargs.pop("model", POCKET), reward_funcs=reward, args=config, train_dataset=dataset, **kwargs
    )
    trainer.train()
    return trainer


def weights(trainer):
    return torch.cat([parameter.detach().flatten() for parameter in trainer.model.parameters()])
