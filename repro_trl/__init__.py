"""RePro for TRL: process-level rewards, without a reward model and without step labels."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .config import ReproConfigMixin
    from .trainers.grpo import ReproGRPOConfig, ReproGRPOTrainer
    from .trainers.hook import AdvantageHook, Rollout
    from .trainers.ppo import PPOConfig, PPOTrainer, ReproPPOConfig, ReproPPOTrainer
    from .trainers.reinforce_pp import (
        ReinforcePlusPlusConfig,
        ReinforcePlusPlusTrainer,
        ReproReinforcePlusPlusConfig,
        ReproReinforcePlusPlusTrainer,
    )
    from .trainers.repro import ReproMixin

__version__ = "0.1.0"

# Module of each public name. TRL, which the trainers import, takes seconds: `import repro_trl` loads none of it.
_MODULES = {
    "ReproConfigMixin": "config",
    "ReproGRPOConfig": "trainers.grpo",
    "ReproGRPOTrainer": "trainers.grpo",
    "AdvantageHook": "trainers.hook",
    "Rollout": "trainers.hook",
    "PPOConfig": "trainers.ppo",
    "PPOTrainer": "trainers.ppo",
    "ReproPPOConfig": "trainers.ppo",
    "ReproPPOTrainer": "trainers.ppo",
    "ReinforcePlusPlusConfig": "trainers.reinforce_pp",
    "ReinforcePlusPlusTrainer": "trainers.reinforce_pp",
    "ReproReinforcePlusPlusConfig": "trainers.reinforce_pp",
    "ReproReinforcePlusPlusTrainer": "trainers.reinforce_pp",
    "ReproMixin": "trainers.repro",
}

__all__ = [
    "AdvantageHook",
    "PPOConfig",
    "PPOTrainer",
    "ReinforcePlusPlusConfig",
    "ReinforcePlusPlusTrainer",
    "ReproConfigMixin",
    "ReproGRPOConfig",
    "ReproGRPOTrainer",
    "ReproMixin",
    "ReproPPOConfig",
    "ReproPPOTrainer",
    "ReproReinforcePlusPlusConfig",
    "ReproReinforcePlusPlusTrainer",
    "Rollout",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_MODULES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
