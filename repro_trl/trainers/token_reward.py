"""`TokenRewardHook`: rewards per token, and statistics over the global batch, for REINFORCE++ and PPO."""

from dataclasses import dataclass, field
from typing import Any, Self

import torch
from torch import Tensor
from trl import GRPOConfig
from trl.trainer.utils import get_config_model_id

from ..validation import check_integer, check_number
from .estimators import masked_moments, masked_whiten
from .hook import AdvantageHook, Rollout
from .images import image_inputs


class _OneGeneration(int):
    """
    The number 1, let through by the check of `GRPOConfig` for at least two completions per prompt.

    `GRPOConfig.__post_init__` derives batch sizes, divides them by `num_generations` and refuses 1 in one go: another
    number in its place would be divided by, and catching the error would skip the checks that come after it.
    """

    def __new__(cls) -> Self:
        return super().__new__(cls, 1)

    def __lt__(self, other: int) -> bool:
        return False


@dataclass
class TokenRewardConfig(GRPOConfig):
    """
    What REINFORCE++ and PPO share: every field of `trl.GRPOConfig`, where `num_generations=1` is allowed, and γ.

    `beta` is the coefficient of the KL penalty. `scale_rewards` and `multi_objective_aggregation` concern the group
    advantage of GRPO and have no effect.
    """

    gamma: float = field(default=1.0, metadata={"help": "Discount γ in [0, 1] of later rewards, per token."})

    def __post_init__(self) -> None:
        check_number(self, "gamma", lambda x: 0 <= x <= 1, "a number in [0, 1]")
        check_integer(self, "num_generations", 1)
        # GRPO compares the completions of one prompt; these algorithms need no second one.
        one_generation = self.num_generations == 1
        if one_generation:
            self.num_generations = _OneGeneration()
        super().__post_init__()
        if one_generation:
            self.num_generations = 1


class TokenRewardHook(AdvantageHook):
    """
    An `AdvantageHook` for algorithms that see a completion as an episode of one step per token.

    The reward is that of REINFORCE++ (arXiv 2501.03262) and of PPO from human feedback (arXiv 2203.02155):
    r_t = [t is the last token]·R − β·(log π(c_t) − log π_ref(c_t)), the second term where `kl_in_reward`.
    """

    _config_class: type[TokenRewardConfig]

    def __init__(self, model: Any, reward_funcs: Any = None, args: Any = None, *more: Any, **kwargs: Any) -> None:
        if args is None:
            model_name = model if isinstance(model, str) else get_config_model_id(model.config)
            args = self._config_class(f"{model_name.split('/')[-1]}-{self._name.replace(' ', '-')}")
        elif not isinstance(args, self._config_class):
            raise ValueError(
                f"args is a {type(args).__name__}: pass {type(self).__name__} a {self._config_class.__name__}."
            )
        super().__init__(model, reward_funcs, args, *more, **kwargs)

    def _outcome_rewards(self, rollout: Rollout) -> Tensor:
        """(B,) weighted sum of the reward functions; NaN where all of them returned `None`."""
        rewards = rollout.rewards_per_func
        total = (rewards * self.reward_weights.to(rewards.device)).nansum(dim=1)
        return total.masked_fill(rewards.isnan().all(dim=1), torch.nan)

    def _token_rewards(self, rollout: Rollout, outcome: Tensor) -> tuple[Tensor, Tensor]:
        """
        (B, T) reward of each token, from the reward of each completion (B,), NaN where unknown; and (B, T) bool, which
        tokens are steps of an episode: those of the policy, but none of completions without an outcome.
        """
        mask = rollout.policy_mask & ~outcome.isnan().unsqueeze(1)
        is_last = mask & (mask.long().cumsum(dim=1) == mask.sum(dim=1, keepdim=True))
        rewards = torch.where(is_last, outcome.unsqueeze(1), 0.0)
        if self.args.kl_in_reward and self.beta != 0.0:
            log_ratio = self._policy_logps(rollout.batch) - rollout.batch["ref_per_token_logps"]
            kl = torch.where(mask, log_ratio, 0.0)  # k1 of http://joschu.net/blog/kl-approx.html: unbiased, may be < 0
            rewards = rewards - self.beta * kl
            self._log_ratios({"kl": (kl.sum(), mask.sum()), "kl_in_reward": (self.beta * kl.sum(), len(kl))})
        return rewards, mask

    def _policy_logps(self, batch: dict[str, Any]) -> Tensor:
        """(B, T) log-probabilities of the completion under the policy that goes into this update."""
        if "old_per_token_logps" in batch:
            return batch["old_per_token_logps"]
        logps, _, _ = self._get_per_token_logps_and_entropies(
            self.model,
            torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1),
            torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1),
            batch["completion_ids"].shape[1],
            batch_size=self._size,
            **image_inputs(batch),
        )
        return logps

    def _whiten_globally(self, values: Tensor, mask: Tensor) -> Tensor:
        """
        (B, T) whitened over the unmasked tokens of all processes; masked → 0.

        Implementations that divide by the standard deviation of each prompt's group (as GRPO does) or of each
        process's share give every prompt its own scale: nearly solved and nearly hopeless prompts, whose rewards
        hardly vary, get the largest gradients, and the estimate is biased, because the divisor depends on the sample
        that it divides (REINFORCE++, arXiv 2501.03262, §3). Over the global batch the divisor is one number, which
        no longer depends on any single sample as the batch grows.
        """
        return masked_whiten(values, mask, self.accelerator.gather(masked_moments(values, mask)))

    def _log_ratios(self, ratios: dict[str, tuple[Any, Any]]) -> dict[str, float]:
        """Log sum / number of things summed for each metric, both over all processes, and return what was logged."""
        sums = self._sum_over_processes(ratios)
        means = {name: total / max(number, 1) for name, (total, number) in sums.items()}
        for name, value in means.items():
            self._metrics[self._mode][name].append(value)
        return means

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        if not self.args.kl_in_reward:
            return super()._compute_loss(model, inputs)
        # TRL computes reference log-probabilities where beta is not 0, and then takes the KL into the loss as well.
        beta, self.beta = self.beta, 0.0
        try:
            return super()._compute_loss(model, inputs)
        finally:
            self.beta = beta
