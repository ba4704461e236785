"""What the completions that TRL logs to parquet say of thoughts: their length, how they turn back, how they end."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from re import Pattern
from typing import Any

import pyarrow as pa
import pyarrow.parquet
from transformers import PreTrainedTokenizerBase

from ..messages import completion_text
from ..thinking import BACKTRACK_PATTERNS, count_backtracks_by_kind, thinking_text

COMPLETIONS_FOLDER = "completions"
CORRECT_ABOVE = 0.5
"""A completion counts as correct where the accuracy reward is above this."""


def completions_files(folder: Path) -> dict[int, Path]:
    """The files of logged completions in a run's folder by step, in their order."""
    files = {
        file.stem.removeprefix("completions_"): file
        for file in (folder / COMPLETIONS_FOLDER).glob("completions_*.parquet")
    }
    return {int(step): files[step] for step in sorted(filter(str.isdecimal, files), key=int)}


def completions_schema(file: Path) -> pa.Schema:
    """
    The columns of a file of logged completions. A `ValueError` if it is not a parquet file, as after an interrupted
    write, or has no column `completion` with texts or messages.
    """
    try:
        with pa.parquet.ParquetFile(file) as parquet:
            schema, num_rows = parquet.schema_arrow, parquet.metadata.num_rows
    except (OSError, pa.ArrowException) as error:
        raise ValueError(f"{file}: cannot be read as a parquet file ({error}).") from error
    if "completion" not in schema.names:
        raise ValueError(f"{file}: has no column 'completion', only {schema.names}.")
    kind = schema.field("completion").type
    is_messages = pa.types.is_list(kind) and (pa.types.is_struct(kind.value_type) or pa.types.is_null(kind.value_type))
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind)
    if num_rows and not is_text and not is_messages:
        raise ValueError(f"{file}: its column 'completion' has neither texts nor messages but {kind}.")
    return schema


def read_completions(file: Path) -> pa.Table:
    """One file of logged completions; raises as `completions_schema`."""
    completions_schema(file)
    try:
        return pa.parquet.read_table(file)
    except (OSError, pa.ArrowException) as error:
        raise ValueError(f"{file}: cannot be read as a parquet file ({error}).") from error


def read_rewards(table: pa.Table, name: str | None) -> list[float | None] | None:
    """A column of rewards; `None` where there is none that holds numbers."""
    if name not in table.column_names:
        return None
    kind = table.schema.field(name).type
    is_number = pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind)
    return table[name].to_pylist() if is_number else None


@dataclass(frozen=True)
class ThoughtStatistics:
    """
    Means over some completions; NaN where there is nothing to average.

    Attributes:
        accuracy: mean accuracy reward of those that have one.
        thinking_tokens: mean tokens of the thought; likewise of correct and of wrong completions.
        backtracks: segments per completion that turn back in any way, and in each way.
        empty_thoughts: share of completions whose thought is white space or nothing.
        unclosed_thoughts: share of completions without the end-of-thinking marker.
    """

    num_completions: int
    accuracy: float
    thinking_tokens: float
    thinking_tokens_correct: float
    thinking_tokens_wrong: float
    backtracks: float
    backtracks_by_kind: dict[str, float]
    empty_thoughts: float
    unclosed_thoughts: float


def thought_statistics(
    completions: Sequence[Any],
    rewards: Sequence[float | None] | None,
    tokenizer: PreTrainedTokenizerBase | None,
    delimiter: str = "\n\n",
    think_end: str | None = "</think>",
    patterns: Mapping[str, Pattern[str]] = BACKTRACK_PATTERNS,
) -> ThoughtStatistics:
    """
    Statistics of logged completions.

    Args:
        completions: as TRL logs them, texts or lists of messages.
        rewards: the accuracy reward of each, `None` or NaN where there is none; `None`: no such reward was logged.
        tokenizer: counts the tokens of the thoughts. They are those of the text, tokenised anew: what special tokens
            the policy wrote is not in it.
    """
    texts = [completion_text(completion, think_end) for completion in completions]
    thoughts = [thinking_text(text, think_end) for text in texts]
    tokens: list[int] = []
    if tokenizer is not None and thoughts:
        tokens = [len(ids) for ids in tokenizer(thoughts, add_special_tokens=False)["input_ids"]]
    verdicts = [math.nan if reward is None else float(reward) for reward in rewards or [None] * len(texts)]
    counts = [count_backtracks_by_kind(thought, delimiter, None, patterns) for thought in thoughts]
    # A comparison with NaN is false: without a verdict a completion is neither correct nor wrong.
    return ThoughtStatistics(
        num_completions=len(texts),
        accuracy=_mean([verdict for verdict in verdicts if not math.isnan(verdict)]),
        thinking_tokens=_mean(tokens),
        thinking_tokens_correct=_mean([n for n, v in zip(tokens, verdicts, strict=False) if v > CORRECT_ABOVE]),
        thinking_tokens_wrong=_mean([n for n, v in zip(tokens, verdicts, strict=False) if v <= CORRECT_ABOVE]),
        backtracks=_mean([total for total, _ in counts]),
        backtracks_by_kind={kind: _mean([by_kind[kind] for _, by_kind in counts]) for kind in patterns},
        empty_thoughts=_mean([not thought.strip() for thought in thoughts]),
        unclosed_thoughts=_mean([bool(think_end) and think_end not in text for text in texts]),
    )


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan
