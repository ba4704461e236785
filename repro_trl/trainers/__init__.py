"""One short file per algorithm."""

from .grpo import ReproGRPOTrainer

__all__ = ["ReproGRPOTrainer"]
