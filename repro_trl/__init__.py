"""RePro for TRL: process-level rewards, without a reward model and without step labels."""

from .config import (
    PPOConfig,
    ReinforcePlusPlusConfig,
    ReproConfigMixin,
    ReproGRPOConfig,
    ReproPPOConfig,
    ReproReinforcePlusPlusConfig,
)
from .hook import AdvantageHook, Rollout
from .mixin import ReproMixin
from .trainers import (
    PPOTrainer,
    ReinforcePlusPlusTrainer,
    ReproGRPOTrainer,
    ReproPPOTrainer,
    ReproReinforcePlusPlusTrainer,
)

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
]
