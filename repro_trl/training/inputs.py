"""What a trainer is made of, from the arguments of a training script."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from datasets import Dataset
from transformers import AutoTokenizer, PreTrainedTokenizerBase
from transformers.trainer_utils import get_last_checkpoint
from trl import DatasetMixtureConfig, ModelConfig, get_quantization_config

from ..config import ReproConfigMixin
from ..demo import MODEL_DIR
from .algorithms import POCKET
from .arguments import ReproScriptArguments
from .problems import load_problems
from .reward import make_reward
from .reward_funcs import load_reward_funcs, reward_weights


@dataclass(frozen=True)
class Inputs:
    """
    Attributes:
        model: name or folder of the policy.
        tokenizer: the model's, padding and truncating on the left as TRL expects.
        train_dataset: problems, with the columns that the trainers read.
        eval_dataset: held-out ones; `None` where nothing is measured.
        reward_funcs: the verdict on the answer, and what the arguments name beside it.
    """

    model: str
    tokenizer: PreTrainedTokenizerBase
    train_dataset: Dataset
    eval_dataset: Dataset | None
    reward_funcs: list[Callable[..., list[float | None]] | str]


def load_inputs(
    script_args: ReproScriptArguments,
    training_args: ReproConfigMixin,
    model_args: ModelConfig,
    dataset_args: DatasetMixtureConfig,
) -> Inputs:
    """
    Load what the arguments name.

    `training_args` gets what follows from the others: how the model is loaded, the checkpoint to resume from, the
    weights of the rewards, the column of the ground truth, and an evaluation at the start if anything is held out.

    Raises:
        ValueError: a setting that cannot work, by its name.
    """
    _validate(script_args, model_args, dataset_args)
    model = str(MODEL_DIR) if model_args.model_name_or_path == POCKET else model_args.model_name_or_path
    training_args.model_init_kwargs = {
        "revision": model_args.model_revision,
        "attn_implementation": model_args.attn_implementation,
        "dtype": model_args.dtype,
        "quantization_config": get_quantization_config(model_args),
        **(training_args.model_init_kwargs or {}),
    }
    training_args.resume_from_checkpoint = find_checkpoint(training_args)
    tokenizer = AutoTokenizer.from_pretrained(
        model,
        revision=model_args.model_revision,
        trust_remote_code=training_args.trust_remote_code,
        padding_side="left",
        truncation_side="left",
    )
    train_dataset, eval_dataset = load_problems(script_args, training_args, tokenizer, dataset_args)
    training_args.eval_on_start = eval_dataset is not None
    others = load_reward_funcs(script_args.reward_funcs, script_args.reward_model_name_or_path)
    training_args.reward_weights = reward_weights(training_args.reward_weights, script_args.reward_funcs, len(others))
    return Inputs(model, tokenizer, train_dataset, eval_dataset, [make_reward(tokenizer, training_args), *others])


def _validate(script_args: ReproScriptArguments, model_args: ModelConfig, dataset_args: DatasetMixtureConfig) -> None:
    if model_args.model_name_or_path is None:
        raise ValueError("model_name_or_path=None: name a model on the Hub, or give its folder")
    if not dataset_args.datasets and script_args.dataset_name is None:
        raise ValueError("dataset_name=None: name a dataset on the Hub or a local file, or list several in `datasets`")
    if dataset_args.datasets and script_args.dataset_name not in (None, POCKET):
        warnings.warn(
            f"dataset_name={script_args.dataset_name!r} is ignored: `datasets` lists what to train on.", stacklevel=3
        )
    if model_args.model_name_or_path == POCKET and (dataset_args.datasets or script_args.dataset_name != POCKET):
        named = script_args.dataset_name or "datasets"
        raise ValueError(
            f"model_name_or_path={POCKET!r} with other problems ({named}): the bundled model only knows the task "
            f"dataset_name={POCKET!r}. Name a model too"
        )
    if dataset_args.streaming:
        raise ValueError(
            "streaming=True: held-out problems are chosen from the whole dataset, which a stream cannot provide. "
            "Leave the setting out"
        )


def find_checkpoint(training_args: ReproConfigMixin) -> str | None:
    """The folder to resume from: a path, or where the setting is true, as text or not, the last one of the run."""
    value = training_args.resume_from_checkpoint
    if str(value).lower() in ("none", "false", ""):
        return None
    if str(value).lower() == "true":
        folder = training_args.output_dir
        checkpoint = get_last_checkpoint(folder) if Path(folder).is_dir() else None
        if checkpoint is None:
            raise ValueError(f"resume_from_checkpoint={value!r}: there is no checkpoint in {folder!r}")
        return checkpoint
    if not Path(value).is_dir():
        raise ValueError(f"resume_from_checkpoint={value!r}: there is no such folder")
    return str(value)
