"""The reward of a training script: the verdict on the answer, with statistics of the thought logged on the way."""

from collections.abc import Callable
from typing import Any

from transformers import PreTrainedTokenizerBase

from ..config import ReproConfigMixin
from ..messages import completion_text
from ..method.segments import find_segment_starts
from ..rewards import make_answer_reward
from ..thinking import count_backtracks


def make_reward(
    tokenizer: PreTrainedTokenizerBase, training_args: ReproConfigMixin
) -> Callable[..., list[float | None]]:
    """
    math-verify's verdict on each completion, `None` where there is no ground truth; logs thinking tokens and
    backtracks per trace on the way.
    """
    delimiter, think_end = training_args.repro_delimiter, training_args.repro_think_end
    answer_column = training_args.repro_answer_column
    verdicts = make_answer_reward(answer_column, think_end) if answer_column else None

    def accuracy(
        completions: list, completion_ids: list[list[int]], log_metric: Callable[[str, float], None], **kwargs: Any
    ) -> list[float | None]:
        texts = [completion_text(completion, think_end) for completion in completions]
        lengths = [find_segment_starts(tokenizer, ids, delimiter, think_end)[1] for ids in completion_ids]
        for length, text in zip(lengths, texts, strict=True):
            log_metric("thinking_tokens", length)
            log_metric("backtracks", count_backtracks(text, delimiter, think_end))
        return [None] * len(texts) if verdicts is None else verdicts(completions=completions, **kwargs)

    return accuracy
