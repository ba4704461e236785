"""One short file per algorithm."""

from .grpo import ReproGRPOTrainer
from .ppo import PPOTrainer, ReproPPOTrainer
from .reinforce_pp import ReinforcePlusPlusTrainer, ReproReinforcePlusPlusTrainer

__all__ = [
    "PPOTrainer",
    "ReinforcePlusPlusTrainer",
    "ReproGRPOTrainer",
    "ReproPPOTrainer",
    "ReproReinforcePlusPlusTrainer",
]
