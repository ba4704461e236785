"""Reward functions for TRL trainers."""

from dataclasses import dataclass

from .answers import extract_answer
from .verifier import verify_answer


def answer_reward(
    completions: list[str] | list[list[dict]], solution: list[object], think_end: str | None = "</think>", **kwargs
) -> list[float | None]:
    r"""
    Reward function for TRL trainers: 1.0 where the completion's answer is the ground truth, else 0.0.

    It differs from `trl.rewards.accuracy_reward`: it takes plain text as well as conversational completions, every
    form of ground truth that `extract_answer` reads, judges the last box alone, and has `verify_answer`'s verdicts.

    Args:
        completions: texts, or lists of messages of which the last one is judged.
        solution: ground truths, one per completion.
        think_end: see `verify_answer`.
        **kwargs: the trainer's other columns, unused.

    Returns:
        One reward per completion; `None` (not counted by TRL) where there is no ground truth.
    """
    verdicts = [
        verify_answer(_final_text(completion), extract_answer(truth), think_end)
        for completion, truth in zip(completions, solution, strict=True)
    ]
    return [None if verdict is None else float(verdict) for verdict in verdicts]


def _final_text(completion: str | list[dict]) -> str:
    if isinstance(completion, str):
        return completion
    # A rollout may end in a tool's output, which is not the policy's answer, or in a call of one, without content.
    if not completion or completion[-1].get("role", "assistant") != "assistant":
        return ""
    return completion[-1].get("content") or ""


def make_answer_reward(answer_column: str = "solution", think_end: str | None = "</think>") -> "_AnswerReward":
    """
    `answer_reward` for a ground truth in another column, or for another end-of-thinking marker.

    Returns:
        A reward function that TRL logs as "answer_reward". It raises a `ValueError` where the column is missing.
    """
    return _AnswerReward(answer_column, think_end)


@dataclass(frozen=True)
class _AnswerReward:
    # A class and not a closure: it can be pickled, which trainers with a rollout process of their own need.
    answer_column: str
    think_end: str | None

    __name__ = "answer_reward"

    def __call__(self, completions: list[str] | list[list[dict]], **columns) -> list[float | None]:
        if self.answer_column not in columns:
            raise ValueError(
                f"answer_column={self.answer_column!r} is not among the columns given to the reward function, "
                f"{sorted(columns)}: name the column with the ground truth."
            )
        return answer_reward(completions, columns[self.answer_column], self.think_end)
