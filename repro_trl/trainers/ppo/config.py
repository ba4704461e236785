"""Configuration of PPO, plain and with RePro."""

from dataclasses import dataclass, field

from ...config import ReproConfigMixin
from ..token_reward import TokenRewardConfig


@dataclass
class PPOConfig(TokenRewardConfig):
    """
    Configuration of [`PPOTrainer`]: every field of `trl.GRPOConfig`, and those of GAE and of the critic.

    The critic has the policy's `model_init_kwargs` (without quantisation), `optim` and its arguments, weight decay
    and schedule. The number of PPO epochs is TRL's `num_iterations`, the clip range of the policy `epsilon`.
    """

    lam: float = field(default=0.95, metadata={"help": "λ in [0, 1] of generalised advantage estimation."})
    kl_in_reward: bool = field(
        default=True,
        metadata={"help": "Whether the KL penalty `beta` is part of the reward of each token; otherwise of the loss."},
    )
    bootstrap_truncated: bool = field(
        default=False,
        metadata={
            "help": "What follows a completion cut at `max_completion_length`: nothing, since its reward is the "
            "verdict on it as it stands (False), or what the critic expects after its last token (True)."
        },
    )
    value_model_name_or_path: str | None = field(
        default=None,
        metadata={"help": "Model the critic starts from. `None`: the policy's, with a new value head."},
    )
    critic_learning_rate: float = field(default=1e-5, metadata={"help": "Learning rate of the critic."})
    critic_warmup_steps: int = field(
        default=0,
        metadata={"help": "Optimizer steps at the start in which the critic learns and the policy's loss is 0."},
    )
    critic_max_grad_norm: float = field(default=1.0, metadata={"help": "Gradient clipping of the critic."})
    cliprange_value: float | None = field(
        default=0.2,
        metadata={
            "help": "How far the critic may profitably move from its value at rollout time, in units of reward. "
            "`None`: no clipping."
        },
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.lam <= 1:
            raise ValueError(f"lam={self.lam!r}: give a number in [0, 1].")
        for name in ("critic_learning_rate", "critic_max_grad_norm"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)!r}: give a number > 0.")
        if self.critic_warmup_steps < 0:
            raise ValueError(f"critic_warmup_steps={self.critic_warmup_steps!r}: give an integer >= 0.")
        if self.cliprange_value is not None and not self.cliprange_value > 0:
            raise ValueError(f"cliprange_value={self.cliprange_value!r}: give a number > 0, or None.")


@dataclass
class ReproPPOConfig(ReproConfigMixin, PPOConfig):
    """Configuration of [`ReproPPOTrainer`]: every field of `PPOConfig`, and RePro's."""
