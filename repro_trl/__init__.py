"""RePro for TRL: process-level rewards, without a reward model and without step labels."""

from typing import TYPE_CHECKING

from .lazy import lazy_names

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

__getattr__, __dir__ = lazy_names(__name__, _MODULES)
