"""RePro for TRL: process-level rewards, without a reward model and without step labels."""

from .config import ReproConfigMixin, ReproGRPOConfig
from .hook import AdvantageHook, Rollout
from .mixin import ReproMixin
from .trainers import ReproGRPOTrainer

__all__ = [
    "AdvantageHook",
    "ReproConfigMixin",
    "ReproGRPOConfig",
    "ReproGRPOTrainer",
    "ReproMixin",
    "Rollout",
]
