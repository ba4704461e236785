"""Settings of RePro: a dataclass mixin that any TRL config can take on."""

import dataclasses
import math
import numbers
import re
from dataclasses import dataclass, field
from typing import Any, Self

from .answers import DEFAULT_ANSWER_TEMPLATE, validate_answer_template
from .validation import check_choice, check_integer, check_number, check_text, check_texts

AUTO_PREFIX = "auto"
"""Value of `repro_answer_prefix` that lets the trainer find out where the policy gives its answer."""


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
            "help": "Weight of the process advantage: total = outcome + alpha * process. `0` is exactly the plain "
            "algorithm, bit for bit, at no extra cost."
        },
    )
    repro_stability_weight: float = field(
        default=0.1,
        metadata={
            "help": "Weight w in [0, 1] of the stability score; the magnitude score gets 1 - w. The paper found small "
            "values slightly better."
        },
    )
    # On the command line a text, for "all"; an integer or None once validated.
    repro_top_k: int | str | None = field(
        default=10,
        metadata={
            "help": "Number of segment starts to keep per completion, those with the highest entropy. `all` (or "
            "`None`; `null` in YAML) keeps every one."
        },
    )
    repro_delimiter: str = field(
        default="\n\n",
        metadata={"help": "Text that ends a segment. It is matched as text, not as token ids."},
    )
    repro_think_end: str | None = field(
        default="</think>",
        metadata={
            "help": "Text that ends the thought. `None` (or an empty string on the command line): there is no such "
            "marker, and the whole completion is the thought."
        },
    )
    repro_answer_column: str | None = field(
        default=None,
        metadata={
            "help": "Dataset column with the ground truth: a bare answer, a worked solution whose last `\\boxed{}` is "
            "the answer, or GSM8K's `#### N`. A dot selects a field of a nested column: "
            "`reward_model.ground_truth`. `None`: found by name. Ignored if the trainer has an `answer_fn`."
        },
    )
    repro_answer_template: str = field(
        default=DEFAULT_ANSWER_TEMPLATE,
        metadata={
            "help": "`str.format` template of the text whose likelihood is scored. `{answer}` is the answer; double "
            "literal braces: `\\boxed{{{answer}}}` gives `\\boxed{42}`."
        },
    )
    repro_answer_prefix: str = field(
        default=AUTO_PREFIX,
        metadata={
            "help": "Text inserted between the partial thought and the answer, itself not scored, for example "
            "`</think>` between two blank lines. If the completion has already written the `repro_think_end` "
            "marker at the last boundary, the prefix is dropped there up to the end of the marker. `auto`: "
            "detected from the first completions: where this policy gives its answer. The paper has no prefix, "
            "which is the empty string."
        },
    )
    repro_prefix_candidates: list[str] | None = field(
        default=None,
        metadata={
            "help": "Texts that `repro_answer_prefix='auto'` tries in addition to its own list and to what the policy "
            "writes before its answers."
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
            "help": "Over what process rewards are normalised: all segments of one prompt's completions (`group`), "
            "all segments of the generation batch (`batch`), or not at all (`none`).",
            "choices": ["group", "batch", "none"],
        },
    )
    repro_baseline_score: str = field(
        default="zero",
        metadata={
            "help": "Score S_0 before any reasoning: 0 as in the paper (`zero`), or the magnitude score of no gain, "
            "(1 - w)(1 - tanh 1) (`magnitude`), so that the first segment is only paid for what it gains.",
            "choices": ["zero", "magnitude"],
        },
    )
    repro_center: str = field(
        default="group",
        metadata={
            "help": "Mean that normalisation subtracts from a process reward: that of all segments normalised "
            "together (`group`), or that of the segments with the same index (`index`), so that first "
            "segments are compared with first segments.",
            "choices": ["group", "index"],
        },
    )
    repro_credit: str = field(
        default="to_go",
        metadata={
            "help": "How rewards reach tokens: each token gets the sum over its own and all later segments (`to_go`), "
            "or the reward of its own segment only (`segment`). With `segment`, let `repro_top_k` keep all "
            "segment starts.",
            "choices": ["to_go", "segment"],
        },
    )
    repro_method: str = field(
        default="auto",
        metadata={
            "help": "How the objective is computed: `shared` (one forward pass over the rollout, one over all "
            "answers), `replay` (one forward pass per boundary), or `auto`: shared if it is exact for the "
            "model, else replay, with a warning.",
            "choices": ["auto", "shared", "replay"],
        },
    )
    repro_trace_steps: int = field(
        default=0,
        metadata={
            "help": "Every N optimizer steps, write the rollouts of one generation batch and everything measured on "
            "them to the folder `traces` in the output folder, for `repro-trl inspect`. `0`: never."
        },
    )

    def __post_init__(self) -> None:
        self.validate_repro_settings()
        super().__post_init__()

    def validate_repro_settings(self) -> None:
        """Raise a `ValueError` for the first invalid RePro setting."""
        check_number(self, "repro_alpha", lambda x: 0 <= x < math.inf, "a number >= 0 (0: no process reward)")
        check_number(self, "repro_stability_weight", lambda x: 0 <= x <= 1, "a number in [0, 1]")
        check_number(self, "repro_ema_weight", lambda x: 0 < x <= 1, "a number in (0, 1]", "no smoothing")
        check_integer(self, "repro_trace_steps", 0, " (0: no traces)")
        self.repro_top_k = self._read_top_k()
        for setting in dataclasses.fields(self):
            if setting.name.startswith("repro_") and "choices" in setting.metadata:
                check_choice(self, setting.name, setting.metadata["choices"])
        if self.repro_center == "index" and self.repro_scale == "none":
            raise ValueError(
                "repro_center='index' with repro_scale='none': rewards that are not normalised are not centred. "
                "Set repro_scale to 'group' or 'batch'."
            )
        check_text(self, "repro_delimiter", 'a text, such as "\\n\\n"')
        check_text(self, "repro_think_end", "the text that ends the thinking region", "no such marker")
        check_text(self, "repro_answer_column", "the name of a dataset column", "the column found by name")
        check_text(self, "repro_answer_template", "a template with {answer}")
        check_text(self, "repro_answer_prefix", "a text, an empty one for no prefix, or 'auto'")
        check_texts(self, "repro_prefix_candidates", "texts", "no candidates of your own")
        if not self.repro_delimiter:
            raise ValueError(f'repro_delimiter={self.repro_delimiter!r}: give a non-empty text, such as "\\n\\n".')
        if self.repro_answer_column is not None and not self.repro_answer_column.strip():
            raise ValueError(
                f"repro_answer_column={self.repro_answer_column!r}: give the name of a dataset column, or leave "
                "the setting out to find the column by name."
            )
        validate_answer_template(self.repro_answer_template)
        self.repro_think_end = self.repro_think_end or None

    def _read_top_k(self) -> int | None:
        value = self.repro_top_k
        if value is None or (isinstance(value, str) and value.strip().lower() == "all"):
            return None
        if isinstance(value, str) and re.fullmatch(r"\s*\d+\s*", value):
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 1:
            raise ValueError(
                f"repro_top_k={self.repro_top_k!r}: give an integer >= 1, or 'all' to keep every segment start (None "
                "in Python, null in YAML)."
            )
        return int(value)

    @classmethod
    def from_trl(cls, config: Any) -> Self:
        """
        The same configuration with RePro's settings at their defaults.

        Args:
            config: an initialised instance of a TRL config class that `cls` extends. Its derived values (such as
                `steps_per_generation`) are copied, not derived again. Settings that only `cls` has get their defaults.
        """
        repro_config = cls.__new__(cls)
        defaults = {f.name: f.default for f in dataclasses.fields(cls) if f.default is not dataclasses.MISSING}
        vars(repro_config).update(defaults | vars(config))
        return repro_config
