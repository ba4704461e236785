"""PPO: trainer, configuration, critic and value model."""

from .config import PPOConfig, ReproPPOConfig
from .trainer import PPOTrainer, ReproPPOTrainer

__all__ = ["PPOConfig", "PPOTrainer", "ReproPPOConfig", "ReproPPOTrainer"]
