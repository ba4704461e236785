"""The arms of the study: algorithms, settings of RePro, and the controls that separate credit from price.

A control changes one thing in RePro's own trainer, so that everything else (boundaries, normalisation, weight, loss)
stays the same.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
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
from repro_trl.method.advantage import segment_credit

ALL_STARTS = 1000
"""A `repro_top_k` beyond the segments of any completion."""

PAPER = {"repro_alpha": 0.1, "repro_top_k": 2}
"""The paper's form at the size of these tasks: k below the number of segments; alpha from an earlier trial."""

RECIPE = {
    "repro_alpha": 0.3,
    "repro_top_k": ALL_STARTS,
    "repro_answer_prefix": "</think>\n\n",
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
        learning_rate={"digits": 3e-4, "search": 1.5e-4},
    ),
    "reinforce_pp": Algorithm(**_REINFORCE_PP, learning_rate={"digits": 3e-4, "search": 1.5e-4}),
    "reinforce_pp_baseline": Algorithm(
        **_REINFORCE_PP,
        learning_rate={"digits": 3e-4, "search": 1.5e-4},
        settings={"use_group_baseline": True},
    ),
    "ppo": Algorithm(
        plain=(PPOTrainer, PPOConfig),
        repro=(ReproPPOTrainer, ReproPPOConfig),
        learning_rate={"digits": 3e-4, "search": 3e-4},
        settings={"lam": 1.0, "critic_learning_rate": 1e-3, "critic_warmup_steps": 2},
    ),
}

LEARNING_RATES = (7.5e-5, 1.5e-4, 3e-4, 6e-4)
"""What the plain algorithms were tuned over."""


class ConstantRewards:
    """Control (a): no J. Fixed rewards for the first, the last and the other segments, on RePro's own boundaries."""

    FIRST, MIDDLE, LAST = 0.35, 0.02, 0.5

    def segment_rewards(self, objective: Tensor, scores: Tensor, boundary_mask: Tensor) -> Tensor:
        mask = boundary_mask[:, 1:]
        rewards = torch.full_like(objective[:, 1:], self.MIDDLE)
        rewards[:, :1] = self.FIRST
        return rewards.masked_fill(last_segments(mask), self.LAST).masked_fill(~mask, 0.0)


class ShuffledRewards:
    """Control (b): RePro's own normalised rewards, dealt out anew at random among the segments of each completion."""

    def token_advantages(self, normalized: Tensor, segment_mask: Tensor, ends: Tensor, length: int) -> Tensor:
        return super().token_advantages(shuffle(normalized, segment_mask), segment_mask, ends, length)


class ObjectiveDifferences:
    """Reward r_j = J_j − J_{j−1}, in nats per token: no tanh, no stability score, and equal gains count the same
    wherever they are made. On a segment's own tokens it is the temporal difference of J as a value function.
    """

    def segment_rewards(self, objective: Tensor, scores: Tensor, boundary_mask: Tensor) -> Tensor:
        return objective.diff(dim=1).masked_fill(~boundary_mask[:, 1:], 0.0)


class PotentialShaping:
    """Potential-based shaping with J as the potential, 0 at the end of the thought: r_j = J_j − J_{j−1}, and the last
    −J_{T−1}. Summed to the end, a segment's credit is −J at its start, which its own tokens cannot change: what is
    best under the outcome stays best. What remains of J is a baseline that differs from segment to segment; its mean
    over the batch is taken off.
    """

    def segment_rewards(self, objective: Tensor, scores: Tensor, boundary_mask: Tensor) -> Tensor:
        mask = boundary_mask[:, 1:]
        return (objective[:, 1:].masked_fill(last_segments(mask), 0.0) - objective[:, :-1]).masked_fill(~mask, 0.0)

    def token_advantages(self, normalized: Tensor, segment_mask: Tensor, ends: Tensor, length: int) -> Tensor:
        rewards = normalized.masked_fill(~segment_mask, 0.0)
        credit = rewards.flip(1).cumsum(1).flip(1)
        credit = credit - credit[segment_mask].mean().nan_to_num()
        return segment_credit(credit, segment_mask, ends, length)


class DiscountedRewardToGo:
    """Between "to_go" and "segment": credit_j = r̂_j + γ credit_{j+1}, discounted per segment."""

    GAMMA = 0.5

    def token_advantages(self, normalized: Tensor, segment_mask: Tensor, ends: Tensor, length: int) -> Tensor:
        credit = normalized.masked_fill(~segment_mask, 0.0).clone()
        for index in range(credit.shape[1] - 2, -1, -1):
            credit[:, index] += self.GAMMA * credit[:, index + 1]
        return segment_credit(credit, segment_mask, ends, length)


def last_segments(mask: Tensor) -> Tensor:
    """(B, S) bool: the last unmasked, left-aligned column of each row."""
    return mask & (mask.long().cumsum(dim=1) == mask.sum(dim=1, keepdim=True))


def shuffle(rewards: Tensor, mask: Tensor) -> Tensor:
    """(B, S) `rewards` permuted at random within the unmasked, left-aligned columns of each row."""
    keys = torch.rand(rewards.shape, device=rewards.device).masked_fill(~mask, 2.0)  # masked columns stay last
    return rewards.gather(1, keys.argsort(dim=1))


@dataclass(frozen=True)
class Arm:
    """One treatment.

    Attributes:
        settings: RePro's settings; `None`: the plain algorithm.
        control: class put before the trainer.
        length_penalty: weight of TRL's soft overlong punishment beside the accuracy reward, per task.
    """

    settings: dict[str, Any] | None = None
    control: type | None = None
    length_penalty: dict[str, float] = field(default_factory=dict)


ARMS = {
    "plain": Arm(),
    "repro": Arm(PAPER),
    "recipe": Arm(RECIPE),
    # controls
    "constants": Arm(PAPER, ConstantRewards),
    "shuffled": Arm(PAPER, ShuffledRewards),
    "recipe constants": Arm(RECIPE, ConstantRewards),
    "recipe shuffled": Arm(RECIPE, ShuffledRewards),
    "length": Arm(length_penalty={"digits": 0.1, "search": 0.1}),
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
    "prefix": Arm(PAPER | {"repro_answer_prefix": RECIPE["repro_answer_prefix"]}),
    "baseline magnitude": Arm(PAPER | {"repro_baseline_score": "magnitude"}),
    "center index": Arm(PAPER | {"repro_center": "index"}),
    "credit segment, k 2": Arm(PAPER | {"repro_credit": "segment"}),
    "credit segment, k all": Arm(PAPER | {"repro_credit": "segment", "repro_top_k": ALL_STARTS}),
    # one change each from the recipe
    "recipe to go": Arm(RECIPE | {"repro_credit": "to_go"}),
    "recipe center index": Arm(RECIPE | {"repro_center": "index"}),
    "recipe J differences": Arm(RECIPE, ObjectiveDifferences),
    "recipe discounted": Arm(RECIPE, DiscountedRewardToGo),
    "recipe potential": Arm(RECIPE | {"repro_scale": "none"}, PotentialShaping),
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
    if treatment.control is not None:
        trainer_class = type(
            treatment.control.__name__ + trainer_class.__name__, (treatment.control, trainer_class), {}
        )
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
        | (treatment.settings or {})
        | overrides
    )
    return trainer_class(reward_funcs=rewards, args=config, **kwargs)
