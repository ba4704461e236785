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

# Of each module the public names that it holds. `import repro_trl` loads none of them: TRL, which the trainers import,
# takes seconds.
_NAMES = {
    ".config": ("ReproConfigMixin",),
    ".trainers.grpo": ("ReproGRPOConfig", "ReproGRPOTrainer"),
    ".trainers.hook": ("AdvantageHook", "Rollout"),
    ".trainers.ppo": ("PPOConfig", "PPOTrainer", "ReproPPOConfig", "ReproPPOTrainer"),
    ".trainers.reinforce_pp": (
        "ReinforcePlusPlusConfig",
        "ReinforcePlusPlusTrainer",
        "ReproReinforcePlusPlusConfig",
        "ReproReinforcePlusPlusTrainer",
    ),
    ".trainers.repro": ("ReproMixin",),
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

__getattr__, __dir__ = lazy_names(__name__, _NAMES)
