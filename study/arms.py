"""The arms of the study: algorithms, settings of RePro, controls and rivals."""

from dataclasses import dataclass, field
from typing import Any

from trl import GRPOConfig, GRPOTrainer
from trl.rewards import get_soft_overlong_punishment

from repro_trl import (
    PPOConfig,
    PPOTrainer,
    ReinforcePlusPlusConfig,
    ReinforcePlusPlusTrainer,
    ReproGRPOConfig,
    ReproGRPOTrainer,
    ReproPPOConfig,
    ReproPPOTrainer,
    ReproReinforcePlusPlusConfig,
    ReproReinforcePlusPlusTrainer,
)
from repro_trl.config import AUTO_PREFIX

from .signals import (
    AveragedPolicy,
    ConstantRewards,
    DiscountedRewardToGo,
    MinimumToGo,
    ObjectiveDifferences,
    PotentialShaping,
    ProbabilityChanges,
    PropagatedChanges,
    RankedRewards,
    ShuffledRewards,
)

ALL_STARTS = 1000
"""A `repro_top_k` beyond the segments of any completion."""

PER_TASK = {
    "repro_top_k": {"digits": 2, "search": 2, "chain": 10},
    "repro_answer_prefix": {"digits": "</think>\n\n", "search": "</think>\n\n", "chain": "</think>"},
}
"""The paper's k, below the number of segments of the starting policies; and what a policy writes between the last
segment of its thought and its answer.
"""

PAPER = {"repro_alpha": 0.1, "repro_top_k": PER_TASK["repro_top_k"], "repro_answer_prefix": ""}
"""The paper's form at the size of these tasks; alpha from an earlier trial."""

RECIPE = {
    "repro_alpha": 0.3,
    "repro_top_k": ALL_STARTS,
    "repro_answer_prefix": PER_TASK["repro_answer_prefix"],
    "repro_baseline_score": "magnitude",
    "repro_credit": "segment",
}
"""The settings that an earlier trial pointed to: an unscored prefix, no pay for coming first, credit where earned."""


@dataclass(frozen=True)
class Algorithm:
    """A pair of trainers with their configs, and the settings tuned for the plain one (`tuning.py`)."""

    plain: tuple[type, type]
    repro: tuple[type, type]
    learning_rate: dict[str, float]
    settings: dict[str, Any] = field(default_factory=dict)


_REINFORCE_PP = {
    "plain": (ReinforcePlusPlusTrainer, ReinforcePlusPlusConfig),
    "repro": (ReproReinforcePlusPlusTrainer, ReproReinforcePlusPlusConfig),
}

ALGORITHMS = {
    "grpo": Algorithm(
        plain=(GRPOTrainer, GRPOConfig),
        repro=(ReproGRPOTrainer, ReproGRPOConfig),
        learning_rate={"digits": 3e-4, "search": 1.5e-4, "chain": 3e-4},
    ),
    "reinforce_pp": Algorithm(**_REINFORCE_PP, learning_rate={"digits": 3e-4, "search": 1.5e-4, "chain": 3e-4}),
    "reinforce_pp_baseline": Algorithm(
        **_REINFORCE_PP,
        learning_rate={"digits": 3e-4, "search": 1.5e-4, "chain": 3e-4},
        settings={"use_group_baseline": True},
    ),
    "ppo": Algorithm(
        plain=(PPOTrainer, PPOConfig),
        repro=(ReproPPOTrainer, ReproPPOConfig),
        learning_rate={"digits": 3e-4, "search": 3e-4, "chain": 3e-4},
        settings={"lam": 1.0, "critic_learning_rate": 1e-3, "critic_warmup_steps": 2},
    ),
}

LEARNING_RATES = (7.5e-5, 1.5e-4, 3e-4, 6e-4)
"""What the plain algorithms were tuned over."""


@dataclass(frozen=True)
class Arm:
    """One treatment.

    Attributes:
        settings: RePro's settings, each one value or one for each task; `None`: the plain algorithm.
        mixins: classes put before the trainer, the first first.
        length_penalty: weight of TRL's soft overlong punishment beside the accuracy reward, per task.
    """

    settings: dict[str, Any] | None = None
    mixins: tuple[type, ...] = ()
    length_penalty: dict[str, float] = field(default_factory=dict)

    @property
    def is_auto(self) -> bool:
        """Whether the trainer finds out where the policy gives its answer."""
        return (self.settings or {}).get("repro_answer_prefix") == AUTO_PREFIX

    def settings_for(self, task: str) -> dict[str, Any]:
        """RePro's settings on a task; empty for the plain algorithm."""
        settings = self.settings or {}
        return {name: value[task] if isinstance(value, dict) else value for name, value in settings.items()}


ARMS = {
    "plain": Arm(),
    "repro": Arm(PAPER),
    "recipe": Arm(RECIPE),
    # the place where the answer is asked for found by the trainer, in either form
    "prefix auto": Arm(PAPER | {"repro_answer_prefix": AUTO_PREFIX}),
    "recipe auto": Arm(RECIPE | {"repro_answer_prefix": AUTO_PREFIX}),
    # controls
    "constants": Arm(PAPER, (ConstantRewards,)),
    "shuffled": Arm(PAPER, (ShuffledRewards,)),
    "recipe constants": Arm(RECIPE, (ConstantRewards,)),
    "recipe shuffled": Arm(RECIPE, (ShuffledRewards,)),
    "length": Arm(length_penalty={"digits": 0.1, "search": 0.1, "chain": 0.25}),
    # rivals: their signals, with everything else as in the recipe
    "vps": Arm(RECIPE, (ProbabilityChanges,)),
    "vps shuffled": Arm(RECIPE, (ShuffledRewards, ProbabilityChanges)),
    "vsrm": Arm(RECIPE, (PropagatedChanges,)),
    # one change each from the paper's form
    "alpha 0.05": Arm(PAPER | {"repro_alpha": 0.05}),
    "alpha 0.3": Arm(PAPER | {"repro_alpha": 0.3}),
    "w 0": Arm(PAPER | {"repro_stability_weight": 0.0}),
    "w 0.5": Arm(PAPER | {"repro_stability_weight": 0.5}),
    "w 1": Arm(PAPER | {"repro_stability_weight": 1.0}),
    "k 1": Arm(PAPER | {"repro_top_k": 1}),
    "k all": Arm(PAPER | {"repro_top_k": ALL_STARTS}),
    "ema 0.01": Arm(PAPER | {"repro_ema_weight": 0.01}),
    "scale batch": Arm(PAPER | {"repro_scale": "batch"}),
    "scale none": Arm(PAPER | {"repro_scale": "none"}),
    "prefix": Arm(PAPER | {"repro_answer_prefix": PER_TASK["repro_answer_prefix"]}),
    "baseline magnitude": Arm(PAPER | {"repro_baseline_score": "magnitude"}),
    "center index": Arm(PAPER | {"repro_center": "index"}),
    "credit segment, k 2": Arm(PAPER | {"repro_credit": "segment"}),
    "credit segment, k all": Arm(PAPER | {"repro_credit": "segment", "repro_top_k": ALL_STARTS}),
    "min form": Arm(PAPER, (MinimumToGo,)),
    # one change each from the recipe
    "recipe to go": Arm(RECIPE | {"repro_credit": "to_go"}),
    "recipe center index": Arm(RECIPE | {"repro_center": "index"}),
    "recipe J differences": Arm(RECIPE, (ObjectiveDifferences,)),
    "recipe discounted": Arm(RECIPE, (DiscountedRewardToGo,)),
    "recipe min form": Arm(RECIPE, (MinimumToGo,)),
    "recipe ranks": Arm(RECIPE, (RankedRewards,)),
    "recipe averaged": Arm(RECIPE, (AveragedPolicy,)),
    "recipe potential": Arm(RECIPE | {"repro_scale": "none"}, (PotentialShaping,)),
}


def make_trainer(
    algorithm: str,
    arm: str,
    task: str,
    reward: Any,
    arguments: dict[str, Any],
    overrides: dict[str, Any],
    **kwargs: Any,
) -> Any:
    """The trainer of one cell.

    Args:
        reward: accuracy reward function.
        arguments: of the TRL config; `max_completion_length` among them.
        overrides: settings that replace those of the arm and the algorithm, such as another `learning_rate`.
        kwargs: further arguments of the trainer.
    """
    chosen, treatment = ALGORITHMS[algorithm], ARMS[arm]
    trainer_class, config_class = chosen.plain if treatment.settings is None else chosen.repro
    if treatment.mixins:
        bases = (*treatment.mixins, trainer_class)
        trainer_class = type("".join(base.__name__ for base in bases), bases, {})
    rewards, weights = [reward], [1.0]
    overrides = dict(overrides)
    penalty = overrides.pop("length_penalty", treatment.length_penalty.get(task, 0.0))
    if penalty:
        # Linear in the length from the first token on.
        limit = arguments["max_completion_length"]
        rewards.append(get_soft_overlong_punishment(max_completion_len=limit, soft_punish_cache=limit))
        weights.append(penalty)
    config = config_class(
        **arguments
        | {"learning_rate": chosen.learning_rate[task], "reward_weights": weights}
        | chosen.settings
        | treatment.settings_for(task)
        | overrides
    )
    return trainer_class(reward_funcs=rewards, args=config, **kwargs)
