"""GRPO with RePro."""

from trl import GRPOTrainer

from ..config import ReproGRPOConfig
from ..hook import AdvantageHook
from ..mixin import ReproMixin


class ReproGRPOTrainer(ReproMixin, AdvantageHook, GRPOTrainer):
    """
    `trl.GRPOTrainer` with the process advantage of RePro added to every completion token.

    It takes the arguments of `trl.GRPOTrainer`, with `args` a [`ReproGRPOConfig`] (or a plain `GRPOConfig`: RePro's
    settings at their defaults), and `answer_fn` of [`ReproMixin`].
    """

    _config_class = ReproGRPOConfig
    _tag_names = ["trl", "grpo", "repro"]
    _name = "RePro GRPO"
