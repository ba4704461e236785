"""Configuration of PPO, plain and with RePro."""

import math
from dataclasses import dataclass, field

from ...config import ReproConfigMixin
from ...validation import check_bool, check_integer, check_number, check_text
from ..token_reward import TokenRewardConfig


@dataclass
class PPOConfig(TokenRewardConfig):
    """
    Configuration of [`PPOTrainer`]: every field of `trl.GRPOConfig`, and those of GAE and of the critic.

    The critic uses the policy's `model_init_kwargs` (without quantization), `optim` and its arguments, weight decay
    and schedule. The number of PPO epochs is TRL's `num_iterations`; the policy's clip range is `epsilon`.
    """

    lam: float = field(default=0.95, metadata={"help": "λ in [0, 1] of generalised advantage estimation (GAE)."})
    kl_in_reward: bool = field(
        default=True,
        metadata={
            "help": "Whether the KL penalty `beta` is part of each token's reward (True) or a term of the loss "
            "(False)."
        },
    )
    bootstrap_truncated: bool = field(
        default=False,
        metadata={
            "help": "What follows a completion cut off at `max_completion_length`: nothing, because its reward judges "
            "it as it is (False), or the critic's value after its last token (True)."
        },
    )
    value_model_name_or_path: str | None = field(
        default=None,
        metadata={"help": "Model to initialise the critic from. `None`: the policy's model, with a new value head."},
    )
    critic_learning_rate: float = field(default=1e-5, metadata={"help": "Learning rate of the critic."})
    critic_warmup_steps: int = field(
        default=0,
        metadata={"help": "Optimizer steps at the start in which only the critic learns; the policy's loss is 0."},
    )
    critic_max_grad_norm: float = field(
        default=1.0, metadata={"help": "Maximum gradient norm of the critic, for clipping."}
    )
    cliprange_value: float | None = field(
        default=0.2,
        metadata={
            "help": "Clip range of the value function around the value at rollout time, in units of reward. `None`: "
            "no clipping."
        },
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number(self, "lam", lambda x: 0 <= x <= 1, "a number in [0, 1]")
        check_number(self, "critic_learning_rate", lambda x: 0 < x < math.inf, "a number > 0")
        check_number(self, "critic_max_grad_norm", lambda x: x > 0, "a number > 0")
        check_number(self, "cliprange_value", lambda x: x > 0, "a number > 0", "no clipping")
        check_integer(self, "critic_warmup_steps", 0)
        check_bool(self, "kl_in_reward")
        check_bool(self, "bootstrap_truncated")
        check_text(self, "value_model_name_or_path", "the name or the folder of a model", "the policy's")
        self.value_model_name_or_path = self.value_model_name_or_path or None


@dataclass
class ReproPPOConfig(ReproConfigMixin, PPOConfig):
    """Configuration of [`ReproPPOTrainer`]: every field of `PPOConfig`, and RePro's."""
