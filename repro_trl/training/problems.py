"""Problems from any dataset or file, in the columns that the trainers read."""

from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict, load_dataset
from transformers import PreTrainedTokenizerBase
from trl import DatasetMixtureConfig, get_dataset

from ..config import ReproConfigMixin
from ..demo import task as demo_task
from .algorithms import POCKET
from .arguments import ReproScriptArguments

PROMPT_COLUMNS = ("prompt", "problem", "question")
ANSWER_COLUMNS = ("solution", "answer")
FILE_FORMATS = {".json": "json", ".jsonl": "json", ".parquet": "parquet"}


def load_problems(
    script_args: ReproScriptArguments,
    training_args: ReproConfigMixin,
    tokenizer: PreTrainedTokenizerBase,
    dataset_args: DatasetMixtureConfig,
) -> tuple[Dataset, Dataset | None]:
    """
    Training problems and held-out ones, with a column `prompt` as TRL wants it.

    The ground truth is read from `repro_answer_column`, or from `answer` in a dataset that has no such column; the
    setting is changed then, and said so.
    """
    count = script_args.num_eval_problems
    if not dataset_args.datasets and script_args.dataset_name in (None, POCKET):
        return demo_task.train_dataset(), demo_task.eval_dataset(count) if count else None

    splits = _load_splits(script_args, dataset_args)
    train = splits[script_args.dataset_train_split]
    if script_args.dataset_test_split in splits:
        held_out = splits[script_args.dataset_test_split].shuffle(seed=training_args.seed)
    elif count:
        parts = train.train_test_split(test_size=min(count, len(train) // 2), seed=training_args.seed)
        train, held_out = parts["train"], parts["test"]
    else:
        held_out = train.select([])

    columns = train.column_names
    prompt_column = script_args.prompt_column or next((name for name in PROMPT_COLUMNS if name in columns), None)
    if prompt_column not in columns:
        raise ValueError(
            f"prompt_column={script_args.prompt_column!r}: the dataset has the columns {columns}. Name the one that "
            "holds the problem."
        )
    wanted = training_args.repro_answer_column
    if wanted not in columns:
        training_args.repro_answer_column = next((name for name in ANSWER_COLUMNS if name in columns), wanted)
        print(f"No column {wanted!r} in the dataset: ground truth is read from {training_args.repro_answer_column!r}.")

    def to_prompt(row: dict[str, Any]) -> dict[str, Any]:
        problem = row[prompt_column]
        if isinstance(problem, list):
            return {"prompt": problem}
        text = f"{problem}\n\n{script_args.instruction}" if script_args.instruction else problem
        if tokenizer.chat_template is None:  # a base model continues plain text
            return {"prompt": f"{text}\n\n"}
        return {"prompt": [{"role": "user", "content": text}]}

    train, held_out = (
        rows.map(to_prompt, remove_columns=[prompt_column] if prompt_column != "prompt" else None)
        for rows in (train, held_out)
    )
    return train, held_out.select(range(min(count, len(held_out)))) if count else None


def _load_splits(script_args: ReproScriptArguments, dataset_args: DatasetMixtureConfig) -> DatasetDict:
    if dataset_args.datasets:
        return get_dataset(dataset_args)
    path = Path(script_args.dataset_name)
    if path.suffix in FILE_FORMATS:
        if not path.is_file():
            raise ValueError(f"dataset_name={script_args.dataset_name!r}: there is no such file.")
        train = load_dataset(FILE_FORMATS[path.suffix], data_files=str(path), split="train")
        return DatasetDict({script_args.dataset_train_split: train})
    return load_dataset(script_args.dataset_name, name=script_args.dataset_config)
