"""Settings of RePro: a dataclass mixin that any TRL config can take on, and one config class per trainer."""

import dataclasses
import math
import re
from dataclasses import dataclass, field
from typing import Any, Self

from trl import GRPOConfig

from .answers import DEFAULT_ANSWER_TEMPLATE, validate_answer_template

# A backslash followed by "n", not the start of a LaTeX command such as "\neq": what a shell leaves of '\n\n'.
_ESCAPED_NEWLINE = re.compile(r"\\n(?![A-Za-z])")


@dataclass
class ReproConfigMixin:
    """
    Settings of the process advantage (METHOD §2-§6). Put it before a TRL config class:
    `class MyConfig(ReproConfigMixin, GRPOConfig)`.

    Every setting is validated on construction; a bad value raises a `ValueError` that names it.
    """

    repro_alpha: float = field(
        default=0.05,
        metadata={
            "help": "Weight of the process advantage: total = outcome + alpha * process. `0` is the plain algorithm, "
            "bit for bit and at no cost."
        },
    )
    repro_stability_weight: float = field(
        default=0.1,
        metadata={
            "help": "Weight w in [0, 1] of the stability score; the magnitude score has weight 1 - w. The paper found "
            "small values slightly better."
        },
    )
    repro_top_k: int = field(
        default=10,
        metadata={
            "help": "Number of segment starts kept per completion: those with the highest entropy. A number beyond "
            "those of any completion keeps all."
        },
    )
    repro_delimiter: str = field(
        default="\n\n",
        metadata={"help": "Text after which a new reasoning segment starts. It is matched as text, not as token ids."},
    )
    repro_think_end: str | None = field(
        default="</think>",
        metadata={
            "help": "Text that ends the thinking region. `None` (or an empty string on the command line): the "
            "completion has no such marker and is thinking to its end."
        },
    )
    repro_answer_column: str = field(
        default="solution",
        metadata={
            "help": "Dataset column with the ground truth: a bare answer, a worked solution whose last `\\boxed{}` is "
            "the answer, or GSM8K's `#### N`. Not read when the trainer is given an `answer_fn`."
        },
    )
    repro_answer_template: str = field(
        default=DEFAULT_ANSWER_TEMPLATE,
        metadata={
            "help": "`str.format` template of the text whose likelihood is scored. `{answer}` is the answer; literal "
            "braces are doubled: `\\boxed{{{answer}}}` gives `\\boxed{42}`."
        },
    )
    repro_answer_prefix: str = field(
        default="",
        metadata={
            "help": "Text placed between the partial thought and the answer, given but not scored, for example "
            "`</think>` between two blank lines. At the last boundary of a completion that has written the "
            "`repro_think_end` marker itself, the prefix is cut after the marker."
        },
    )
    repro_ema_weight: float | None = field(
        default=None,
        metadata={
            "help": "Weight in (0, 1] of the newest value in an exponential smoothing of the objective before the "
            "stability score (the released code uses 0.01). `None`: no smoothing."
        },
    )
    repro_scale: str = field(
        default="group",
        metadata={
            "help": "What process rewards are normalised over: all segments of one prompt's completions (`group`), of "
            "the whole generation batch (`batch`), or not at all (`none`).",
            "choices": ["group", "batch", "none"],
        },
    )
    repro_baseline_score: str = field(
        default="zero",
        metadata={
            "help": "Score S_0 before any reasoning: 0 as in the paper (`zero`), or the magnitude score of no gain, "
            "(1 - w)(1 - tanh 1) (`magnitude`), so that the first segment is not paid for coming first.",
            "choices": ["zero", "magnitude"],
        },
    )
    repro_center: str = field(
        default="group",
        metadata={
            "help": "Mean that normalisation subtracts from a process reward: of all segments normalised together "
            "(`group`), or of those with the same index only, first with first, second with second (`index`).",
            "choices": ["group", "index"],
        },
    )
    repro_credit: str = field(
        default="to_go",
        metadata={
            "help": "How rewards reach tokens: the sum over their own and all later segments (`to_go`), or that of "
            "their own segment alone (`segment`), for which `repro_top_k` should keep all segment starts.",
            "choices": ["to_go", "segment"],
        },
    )
    repro_method: str = field(
        default="auto",
        metadata={
            "help": "How the objective is computed: `shared` (one forward over the rollout, one over all answers), "
            "`replay` (one forward per boundary), or `auto`: shared where it is exact, else replay with a warning.",
            "choices": ["auto", "shared", "replay"],
        },
    )
    repro_trace_steps: int = field(
        default=0,
        metadata={
            "help": "Every this many optimizer steps the rollouts of one generation batch are written, with all that "
            "was measured on them, to the folder `traces` in the output folder, for `repro-trl inspect`. `0`: never."
        },
    )

    def __post_init__(self) -> None:
        self.validate_repro_settings()
        super().__post_init__()

    def validate_repro_settings(self) -> None:
        """Raise a `ValueError` for the first RePro setting whose value cannot work."""
        if not (math.isfinite(self.repro_alpha) and self.repro_alpha >= 0):
            raise ValueError(f"repro_alpha={self.repro_alpha!r}: give a number >= 0 (0 turns the process reward off).")
        if not 0 <= self.repro_stability_weight <= 1:
            raise ValueError(f"repro_stability_weight={self.repro_stability_weight!r}: give a number in [0, 1].")
        if isinstance(self.repro_top_k, bool) or not isinstance(self.repro_top_k, int) or self.repro_top_k < 1:
            raise ValueError(f"repro_top_k={self.repro_top_k!r}: give an integer >= 1.")
        if (
            isinstance(self.repro_trace_steps, bool)
            or not isinstance(self.repro_trace_steps, int)
            or self.repro_trace_steps < 0
        ):
            raise ValueError(f"repro_trace_steps={self.repro_trace_steps!r}: give an integer >= 0 (0: no traces).")
        if self.repro_ema_weight is not None and not 0 < self.repro_ema_weight <= 1:
            raise ValueError(f"repro_ema_weight={self.repro_ema_weight!r}: give a number in (0, 1], or None.")
        for name in ("repro_scale", "repro_baseline_score", "repro_center", "repro_credit", "repro_method"):
            self._validate_choice(name)
        if self.repro_center == "index" and self.repro_scale == "none":
            raise ValueError(
                "repro_center='index' with repro_scale='none': rewards that are not normalised are not centred. Set "
                "repro_scale to 'group' or 'batch'."
            )
        if not self.repro_delimiter:
            raise ValueError(f'repro_delimiter={self.repro_delimiter!r}: give a non-empty text, such as "\\n\\n".')
        for name in ("repro_delimiter", "repro_answer_prefix"):
            if _ESCAPED_NEWLINE.search(getattr(self, name)):
                raise ValueError(
                    f"{name}={getattr(self, name)!r} holds a backslash and an 'n' where a line break is meant. In "
                    "YAML use double quotes, in a shell $'\\n\\n'."
                )
        if not self.repro_answer_column:
            raise ValueError(f"repro_answer_column={self.repro_answer_column!r}: give the name of a dataset column.")
        validate_answer_template(self.repro_answer_template)
        self.repro_think_end = self.repro_think_end or None

    def _validate_choice(self, name: str) -> None:
        # Dataclass fields of a class are looked up by name, so that the choices stand in one place.
        choices = next(f for f in dataclasses.fields(self) if f.name == name).metadata["choices"]
        if getattr(self, name) not in choices:
            raise ValueError(f"{name}={getattr(self, name)!r}: choose one of {', '.join(map(repr, choices))}.")

    @classmethod
    def from_trl(cls, config: Any) -> Self:
        """
        The same configuration with RePro's settings at their defaults.

        Args:
            config: an instance of a TRL config class that `cls` extends, already initialised. Its derived values
                (such as `steps_per_generation`) are taken over, not derived again; settings of `cls` that it lacks
                have their defaults.
        """
        repro_config = cls.__new__(cls)
        defaults = {f.name: f.default for f in dataclasses.fields(cls) if f.default is not dataclasses.MISSING}
        repro_config.__dict__.update(defaults)
        repro_config.__dict__.update(vars(config))
        return repro_config


@dataclass
class ReproGRPOConfig(ReproConfigMixin, GRPOConfig):
    """Configuration of [`ReproGRPOTrainer`]: every field of `trl.GRPOConfig`, and RePro's."""


class _OneGeneration(int):
    """The number 1, let through by the check of `GRPOConfig` for at least two completions per prompt."""

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
        if not 0 <= self.gamma <= 1:
            raise ValueError(f"gamma={self.gamma!r}: give a number in [0, 1].")
        if self.num_generations < 1:
            raise ValueError(f"num_generations={self.num_generations!r}: give an integer >= 1.")
        # GRPO compares the completions of one prompt; these algorithms need no second one.
        one_generation = self.num_generations == 1
        if one_generation:
            self.num_generations = _OneGeneration()
        super().__post_init__()
        if one_generation:
            self.num_generations = 1


@dataclass
class ReinforcePlusPlusConfig(TokenRewardConfig):
    """Configuration of [`ReinforcePlusPlusTrainer`]: every field of `trl.GRPOConfig`, and two of its own."""

    use_group_baseline: bool = field(
        default=False,
        metadata={
            "help": "REINFORCE++ Baseline: subtract the mean reward of the prompt's completions, and take the KL "
            "penalty into the loss instead of the reward."
        },
    )

    @property
    def kl_in_reward(self) -> bool:
        """Whether the KL penalty is part of the reward; otherwise of the loss."""
        return not self.use_group_baseline

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.use_group_baseline and self.num_generations < 2:
            raise ValueError(
                "use_group_baseline=True with num_generations=1: a completion is its own group, and its advantage "
                "always 0. Set num_generations to 2 or more."
            )


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
class ReproReinforcePlusPlusConfig(ReproConfigMixin, ReinforcePlusPlusConfig):
    """Configuration of [`ReproReinforcePlusPlusTrainer`]: every field of `ReinforcePlusPlusConfig`, and RePro's."""


@dataclass
class ReproPPOConfig(ReproConfigMixin, PPOConfig):
    """Configuration of [`ReproPPOTrainer`]: every field of `PPOConfig`, and RePro's."""
