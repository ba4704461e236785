"""REINFORCE++ and REINFORCE++ Baseline, plain and with RePro."""

from dataclasses import dataclass, field

from torch import Tensor
from trl import GRPOTrainer

from ..config import ReproConfigMixin
from ..validation import check_bool
from .estimators import discounted_returns
from .hook import Rollout
from .repro import ReproMixin
from .token_reward import TokenRewardConfig, TokenRewardHook

REINFORCE_PP_PAPER = {
    "title": "REINFORCE++: Stabilizing Critic-Free Policy Optimization with Global Advantage Normalization",
    "id": "2501.03262",
    "citation": """\
@article{hu2025reinforce,
    title   = {{REINFORCE++: Stabilizing Critic-Free Policy Optimization with Global Advantage Normalization}},
    author  = {Jian Hu and Jason Klein Liu and Haotian Xu and Wei Shen},
    year    = 2025,
    eprint  = {arXiv:2501.03262},
}""",
}


@dataclass
class ReinforcePlusPlusConfig(TokenRewardConfig):
    """Configuration of [`ReinforcePlusPlusTrainer`]: every field of `trl.GRPOConfig`, and two of its own."""

    use_group_baseline: bool = field(
        default=False,
        metadata={
            "help": "REINFORCE++ Baseline: subtract the mean reward of the prompt's completions, and make the KL "
            "penalty a term of the loss instead of the reward."
        },
    )

    @property
    def kl_in_reward(self) -> bool:
        """Whether the KL penalty is part of the reward; otherwise of the loss."""
        return not self.use_group_baseline

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bool(self, "use_group_baseline")
        if self.use_group_baseline and self.num_generations < 2:
            raise ValueError(
                "use_group_baseline=True with num_generations=1: a completion is its own group, so its advantage "
                "is always 0. Set num_generations to 2 or more."
            )


class ReinforcePlusPlusTrainer(TokenRewardHook, GRPOTrainer):
    """
    REINFORCE++ (arXiv 2501.03262) on the rollouts, the reward functions and the clipped loss of `trl.GRPOTrainer`.

    - Plain: A_t = Σ_{i≥t} γ^(i−t) r_i, with the reward R of the completion at its last token and the per-token KL
      penalty −β (log π − log π_ref) in r, then whitened over all tokens of the *global* batch, whatever their prompt
      or process. One completion per prompt is enough.
    - Baseline (`use_group_baseline=True`): R minus the mean reward of the prompt's completions instead of R, whitened
      over the global batch in the same way, with the KL penalty as a term of the loss. Only the group's mean is used:
      dividing by the group's standard deviation as well would be GRPO.

    Public implementations differ: some normalise per group or per process (see `_whiten_globally`). For the KL term of
    the Baseline's loss, the paper uses the k2 estimator; this trainer uses TRL's, k3.

    It takes the arguments of `trl.GRPOTrainer`. `args` is a [`ReinforcePlusPlusConfig`].
    """

    _config_class = ReinforcePlusPlusConfig
    _tag_names = ["trl", "reinforce-plus-plus"]
    _name = "REINFORCE++"
    _paper = REINFORCE_PP_PAPER

    def _compute_advantages(self, rollout: Rollout) -> Tensor:
        outcome = self._outcome_rewards(rollout)
        if self.args.use_group_baseline:
            outcome = outcome - self._group_means(outcome, rollout.groups)
        rewards, mask = self._token_rewards(rollout, outcome)
        return self._whiten_globally(discounted_returns(rewards, mask, self.args.gamma), mask)

    def _group_means(self, outcome: Tensor, groups: Tensor) -> Tensor:
        """(B,) mean outcome of each completion's group, whose completions may lie on several processes."""
        all_outcomes, all_groups = self.accelerator.gather(outcome), self.accelerator.gather(groups)
        counted = (groups.unsqueeze(1) == all_groups) & ~all_outcomes.isnan()
        return (counted * all_outcomes.nan_to_num()).sum(dim=1) / counted.sum(dim=1).clamp(min=1)


@dataclass
class ReproReinforcePlusPlusConfig(ReproConfigMixin, ReinforcePlusPlusConfig):
    """Configuration of [`ReproReinforcePlusPlusTrainer`]: every field of `ReinforcePlusPlusConfig`, and RePro's."""


class ReproReinforcePlusPlusTrainer(ReproMixin, ReinforcePlusPlusTrainer):
    """
    [`ReinforcePlusPlusTrainer`] with the process advantage of RePro added to every completion token.

    `args` is a [`ReproReinforcePlusPlusConfig`]; with a plain TRL config, all other settings have their defaults.
    """

    _config_class = ReproReinforcePlusPlusConfig
    _tag_names = ["trl", "reinforce-plus-plus", "repro"]
    _name = "RePro REINFORCE++"
