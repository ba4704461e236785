"""GRPO with RePro."""

from dataclasses import dataclass

from trl import GRPOConfig, GRPOTrainer

from ..config import ReproConfigMixin
from .hook import AdvantageHook
from .repro import ReproMixin


@dataclass
class ReproGRPOConfig(ReproConfigMixin, GRPOConfig):
    """Configuration of [`ReproGRPOTrainer`]: every field of `trl.GRPOConfig`, and RePro's."""


class ReproGRPOTrainer(ReproMixin, AdvantageHook, GRPOTrainer):
    """
    `trl.GRPOTrainer` with the process advantage of RePro added to every completion token.

    It takes the arguments of `trl.GRPOTrainer`. `args` is a [`ReproGRPOConfig`], or a plain `GRPOConfig` for RePro's
    default settings. It also takes the `answer_fn` of [`ReproMixin`].
    """

    _config_class = ReproGRPOConfig
    _tag_names = ["trl", "grpo", "repro"]
    _name = "RePro GRPO"
