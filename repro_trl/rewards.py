"""Reward functions for TRL trainers."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .columns import find_answer_column, has_column, read_answer
from .verifier import verify_answer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def answer_reward(
    completions: list[str] | list[list[dict]],
    solution: list[object] | None = None,
    think_end: str | None = "</think>",
    **columns: Any,
) -> list[float | None]:
    r"""
    Reward function for TRL trainers: 1.0 if the completion's answer equals the ground truth, else 0.0.

    Unlike `trl.rewards.accuracy_reward`, it accepts plain text as well as conversational completions, and every form
    of ground truth that `extract_answer` reads. It judges only the last box, and compares answers with
    `verify_answer`.

    Args:
        completions: texts, or lists of messages of which the last one is judged.
        solution: ground truths, one per completion. By default, and if another column has bare answers, they are read
            from the column that the trainers would read (`repro_trl.columns`).
        think_end: see `verify_answer`.
        **columns: the trainer's other columns.

    Returns:
        One reward per completion; `None` (not counted by TRL) if there is no ground truth.

    Raises:
        ValueError: no column has a ground truth.
    """
    if solution is not None:
        columns["solution"] = solution
    rows = _rows(columns, len(completions))
    column = find_answer_column(rows)
    if column is None:
        raise ValueError(
            f"None of the columns {sorted(columns)} has a usual name for a ground truth: use "
            "make_answer_reward(answer_column=…)."
        )
    return _rewards(completions, [read_answer(row, column) for row in rows], think_end)


def make_answer_reward(
    answer_column: str = "solution",
    think_end: str | None = "</think>",
    tokenizer: "PreTrainedTokenizerBase | None" = None,
) -> Callable[..., list[float | None]]:
    """
    `answer_reward` for a ground truth in another column, or for another end-of-thinking marker.

    Args:
        answer_column: column with the ground truth; a dot selects a field of a nested column.
        think_end: see `verify_answer`.
        tokenizer: the policy's tokenizer. Needed if `think_end` is one of its special tokens and the trainer is not
            from this package: TRL decodes completions without special tokens, so the marker must be read from their
                ids.

    Returns:
        A reward function that TRL logs as "answer_reward". It raises a `ValueError` if the column is missing.
    """
    return _AnswerReward(answer_column, think_end, tokenizer)


@dataclass(frozen=True)
class _AnswerReward:
    # A class and not a closure: it can be pickled, which trainers with a rollout process of their own need.
    answer_column: str
    think_end: str | None
    tokenizer: "PreTrainedTokenizerBase | None" = None

    __name__ = "answer_reward"

    def __call__(
        self,
        completions: list[str] | list[list[dict]],
        completion_ids: list[list[int]] | None = None,
        **columns: Any,
    ) -> list[float | None]:
        rows = _rows(columns, len(completions))
        if rows and not any(has_column(row, self.answer_column) for row in rows):
            raise ValueError(
                f"answer_column={self.answer_column!r} is not among the columns passed to the reward function, "
                f"{sorted(columns)}: name the column with the ground truth."
            )
        if self.tokenizer is not None and completion_ids is not None:
            from .method.token_text import readable_text  # needs transformers, which this module does not

            completions = [readable_text(self.tokenizer, ids, self.think_end) for ids in completion_ids]
        return _rewards(completions, [read_answer(row, self.answer_column) for row in rows], self.think_end)


def _rows(columns: dict[str, Any], count: int) -> list[dict[str, Any]]:
    """The rows of what TRL hands over by column, beside objects of its own."""
    lists = {name: values for name, values in columns.items() if isinstance(values, (list, tuple))}
    for name, values in lists.items():
        if len(values) != count:
            raise ValueError(
                f"column {name!r} has {len(values)} values for {count} completions: give one per completion."
            )
    return [{name: values[index] for name, values in lists.items()} for index in range(count)]


def _rewards(
    completions: list[str] | list[list[dict]], answers: list[str | None], think_end: str | None
) -> list[float | None]:
    verdicts = [
        verify_answer(_final_text(completion), answer, think_end)
        for completion, answer in zip(completions, answers, strict=True)
    ]
    return [None if verdict is None else float(verdict) for verdict in verdicts]


def _final_text(completion: str | list[dict]) -> str:
    if isinstance(completion, str):
        return completion
    # A rollout may end in a tool's output, which is not the policy's answer, or in a call of one, without content.
    if not completion or completion[-1].get("role", "assistant") != "assistant":
        return ""
    return completion[-1].get("content") or ""
