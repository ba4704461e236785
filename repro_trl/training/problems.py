"""Problems from any dataset or file, in the columns that the trainers read."""

import json
from collections.abc import Callable
from typing import Any

from accelerate import PartialState
from datasets import Dataset, DatasetDict
from transformers import PreTrainedTokenizerBase
from trl import DatasetMixtureConfig, get_dataset

from ..columns import (
    PROBLEM_COLUMNS,
    column_paths,
    fields_of,
    find_answer_column,
    find_column,
    has_column,
    read_column,
)
from ..config import ReproConfigMixin
from ..demo import task as demo_task
from ..trainers.ground_truth import ROWS_FOR_CHOICE, spread_rows
from ..validation import check_integer, check_text
from .algorithms import POCKET
from .arguments import ReproScriptArguments
from .files import load_splits

Prompt = str | list[dict[str, Any]]


def load_problems(
    script_args: ReproScriptArguments,
    training_args: ReproConfigMixin,
    tokenizer: PreTrainedTokenizerBase,
    dataset_args: DatasetMixtureConfig | None = None,
) -> tuple[Dataset, Dataset | None]:
    """
    Training problems and held-out ones, with a column `prompt` as TRL wants it. No problem is in both.

    The ground truth stays in the column `repro_answer_column`, which is set where it was not; the value of a nested
    one is put into a column of its dotted name. Rows without a problem are left out.

    Raises:
        ValueError: a split or a column that is not there, or a problem that is none.
    """
    check_integer(script_args, "num_eval_problems", 0, " (0: none are held out)")
    check_text(script_args, "prompt_column", "the name of a dataset column", "the column found by name")
    count = script_args.num_eval_problems
    mixture = dataset_args.datasets if dataset_args else []
    if not mixture and script_args.dataset_name in (None, POCKET):
        train, held_out = demo_task.train_dataset(), demo_task.eval_dataset(count) if count else None
        training_args.repro_answer_column = training_args.repro_answer_column or find_answer_column([train[0]])
        return train, held_out
    if script_args.dataset_streaming:
        raise ValueError(
            "dataset_streaming=True: held-out problems are chosen from the whole dataset, which a stream cannot "
            "provide. Leave the setting out."
        )

    if mixture:
        splits = get_dataset(dataset_args)
    else:
        splits = load_splits(script_args.dataset_name, script_args.dataset_config)
    train, held_out = _choose_splits(splits, script_args)
    rows = list(spread_rows(train, ROWS_FOR_CHOICE, ""))
    prompt_column = script_args.prompt_column or find_column(rows, PROBLEM_COLUMNS)
    if prompt_column is None or not any(has_column(row, prompt_column) for row in rows):
        raise ValueError(
            f"prompt_column={script_args.prompt_column!r}: the dataset has the columns "
            f"{column_paths(rows[0]) if rows else train.column_names}. Name the one that holds the problem."
        )
    if training_args.repro_answer_column is None:
        training_args.repro_answer_column = find_answer_column(rows)

    to_row = _row_reader(prompt_column, training_args.repro_answer_column, script_args.instruction, tokenizer)
    train = _read_rows(train, to_row, prompt_column)
    if len(train) == 0:
        raise ValueError(f"prompt_column={prompt_column!r} has no problem in any row.")
    if not count:
        return train, None
    if held_out is None:
        return _carve_out(train, count, training_args.seed)
    held_out = _read_rows(held_out.shuffle(seed=training_args.seed), to_row, prompt_column)
    held_out = held_out.select(range(min(count, len(held_out))))
    rest = _without(train, held_out)
    if len(rest) == 0:
        raise ValueError(
            f"dataset_test_split={script_args.dataset_test_split!r} contains every problem of "
            f"{script_args.dataset_train_split!r}: name another split, or set num_eval_problems to 0."
        )
    if len(rest) < len(train):
        PartialState().print(
            f"{len(train) - len(rest)} training problems are also held out; they are removed from training."
        )
    return rest, held_out


def _choose_splits(splits: DatasetDict, script_args: ReproScriptArguments) -> tuple[Dataset, Dataset | None]:
    """The split to train on, and the one that held-out problems come from; `None` for the same one."""
    train, test = script_args.dataset_train_split, script_args.dataset_test_split
    if list(splits) == ["train"] and train == test:  # a file, or a dataset whose only split is named for both
        return splits["train"], None
    for name, value, default in (("dataset_train_split", train, None), ("dataset_test_split", test, "test")):
        if value not in splits and value != default:
            raise ValueError(
                f"{name}={value!r}: the dataset has the split{'s' * (len(splits) > 1)} "
                f"{', '.join(map(repr, splits))}. Name {'one of them' if len(splits) > 1 else 'it'}."
            )
    return splits[train], splits[test] if test in splits and test != train else None


def _row_reader(
    prompt_column: str, answer_column: str | None, instruction: str, tokenizer: PreTrainedTokenizerBase
) -> Callable[[dict[str, Any]], dict[str, Any]]:
    is_base_model = tokenizer.chat_template is None  # it continues plain text

    def read(row: dict[str, Any]) -> dict[str, Any]:
        prompt = _read_problem(read_column(row, prompt_column), prompt_column)
        if isinstance(prompt, str):
            text = f"{prompt}\n\n{instruction}" if instruction else prompt
            prompt = f"{text}\n\n" if is_base_model else [{"role": "user", "content": text}]
        columns = {"prompt": prompt}
        if answer_column is not None and answer_column not in row:
            columns[answer_column] = read_column(row, answer_column)
        return columns

    return read


def _read_problem(value: Any, column: str) -> Prompt | None:
    """A problem as text or messages; `None` for a row without one."""
    fields = fields_of(value)
    messages = [fields] if isinstance(fields, dict) else fields
    if messages and all(isinstance(message, dict) and {"role", "content"} <= message.keys() for message in messages):
        return list(messages)
    if isinstance(value, dict) or (isinstance(value, list) and value):
        paths = [f"{column}.{path}" for path in column_paths(fields)] if isinstance(value, dict) else []
        remedy = f" Name one of its fields: {', '.join(map(repr, paths))}." if paths else ""
        raise ValueError(
            f"prompt_column={column!r} has neither text nor messages with role and content, but {value!r}.{remedy}"
        )
    if value is None or isinstance(value, list) or (isinstance(value, float) and value != value):
        return None
    return str(value) if str(value).strip() else None


def _read_rows(dataset: Dataset, read: Callable[[dict[str, Any]], dict[str, Any]], prompt_column: str) -> Dataset:
    kept = dataset.filter(lambda row: _read_problem(read_column(row, prompt_column), prompt_column) is not None)
    if len(kept) < len(dataset):
        PartialState().print(f"{len(dataset) - len(kept)} rows without a problem are skipped.")
    unused = [prompt_column] if prompt_column in dataset.column_names and prompt_column != "prompt" else None
    return kept.map(read, remove_columns=unused)


def _carve_out(train: Dataset, count: int, seed: int) -> tuple[Dataset, Dataset | None]:
    """Take held-out problems out of the training ones, with all their repetitions."""
    keys = [_key(prompt) for prompt in train["prompt"]]
    firsts = sorted({key: index for index, key in reversed(list(enumerate(keys)))}.values())
    if len(firsts) < 2:
        PartialState().print(
            "The dataset has only one problem, so none is held out, and there is no evaluation before and after "
            "training."
        )
        return train, None
    parts = train.select(firsts).train_test_split(test_size=min(count, len(firsts) // 2), seed=seed)
    if len(firsts) == len(train):
        return parts["train"], parts["test"]
    return _without(train, parts["test"]), parts["test"]


def _without(train: Dataset, held_out: Dataset) -> Dataset:
    taken = {_key(prompt) for prompt in held_out["prompt"]}
    return train.filter(lambda prompt: _key(prompt) not in taken, input_columns=["prompt"])


def _key(prompt: Prompt) -> str:
    return json.dumps(prompt, sort_keys=True, default=str)
