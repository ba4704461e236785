"""Arguments of a training script, and what they say of model and tokenizer."""

from dataclasses import dataclass, field
from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase
from trl import ModelConfig, ScriptArguments, get_quantization_config

from ..columns import PROBLEM_COLUMNS
from ..config import ReproConfigMixin
from ..demo import MODEL_DIR

POCKET = "pocket"


@dataclass
class ReproScriptArguments(ScriptArguments):
    """`trl.ScriptArguments`, where `dataset_name` may also be a local file or folder, and what else it
    takes to read a math dataset."""

    prompt_column: str | None = field(
        default=None,
        metadata={
            "help": "Column with the problem, dotted where it is nested. Default: the first there is of "
            f"{', '.join(PROBLEM_COLUMNS)}."
        },
    )
    instruction: str = field(
        default="Please reason step by step, and put your final answer within \\boxed{}.",
        metadata={"help": "Text added to each problem; not to prompts that are lists of messages already."},
    )
    num_eval_problems: int = field(
        default=256,
        metadata={
            "help": "Held-out problems measured before and after training: from the dataset's test split, or else "
            "taken out of its train split. 0: no measurement."
        },
    )


def config_arguments(arguments: list[str], default_config: Path) -> list[str]:
    """Command-line arguments, with the embedded default's config added when they name no model and no config."""
    named = {argument.split("=")[0] for argument in arguments}
    if named & {"--model_name_or_path", "--config", "-h", "--help"}:
        return arguments
    return [*arguments, "--config", str(default_config)]


def set_model_arguments(training_args: ReproConfigMixin, model_args: ModelConfig) -> None:
    """Put what `ModelConfig` says of loading into `training_args.model_init_kwargs`, where TRL's trainers read it."""
    if model_args.model_name_or_path == POCKET:
        model_args.model_name_or_path = str(MODEL_DIR)
    training_args.model_init_kwargs = {
        "revision": model_args.model_revision,
        "attn_implementation": model_args.attn_implementation,
        "dtype": model_args.dtype,
        "quantization_config": get_quantization_config(model_args),
        **(training_args.model_init_kwargs or {}),
    }


def load_tokenizer(training_args: ReproConfigMixin, model_args: ModelConfig) -> PreTrainedTokenizerBase:
    """The model's tokenizer, padding and truncating on the left as TRL expects."""
    return AutoTokenizer.from_pretrained(
        model_args.model_name_or_path,
        revision=model_args.model_revision,
        trust_remote_code=training_args.trust_remote_code,
        padding_side="left",
        truncation_side="left",
    )
