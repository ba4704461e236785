"""A completion as scoring sees it: its candidate starts, its end, and the answer to be appended (METHOD §2, §3)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

from transformers import PreTrainedTokenizerBase
from transformers.utils import logging

from ..answers import answer_text
from ..columns import MAX_ANSWER_TOKENS
from ..config import AUTO_PREFIX, ReproConfigMixin
from .answer_forms import AnswerForm
from .segments import find_segment_starts

logger = logging.get_logger(__name__)


@dataclass
class AnswerTokens:
    """Tokens to append to a partial thought; `scored[i]` says whether the log-probability of `ids[i]` counts."""

    ids: list[int]
    scored: list[bool]


@dataclass
class ScoringRow:
    """
    One completion to be scored.

    Attributes:
        index: its row in the batch.
        starts: candidate segment starts, token positions in the completion (METHOD §2.2).
        end: the end boundary (METHOD §2.4).
        answer: what is appended at every boundary but the last.
        last_answer: what is appended at the last boundary.
        finished: whether the end-of-thinking marker was written.
    """

    index: int
    starts: list[int]
    end: int
    answer: AnswerTokens
    last_answer: AnswerTokens
    finished: bool = False


class CompletionReader:
    """
    Reads completions with one tokenizer and RePro's settings.

    Args:
        tokenizer: of the policy.
        settings: RePro's.
        find_starts: takes a completion's token ids, returns candidate starts and end boundary; the default is
            `find_segment_starts` with the settings' delimiter and marker.

    Attributes:
        form: the form in which answers are scored. With `repro_answer_prefix="auto"`, it is the paper's until another
            one is assigned.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        settings: ReproConfigMixin,
        find_starts: Callable[[list[int]], tuple[list[int], int]] | None = None,
    ) -> None:
        self.tokenizer, self.settings = tokenizer, settings
        self._find_starts = find_starts or partial(
            find_segment_starts, tokenizer, delimiter=settings.repro_delimiter, think_end=settings.repro_think_end
        )
        # A prompt's completions share one answer.
        self._encode = lru_cache(maxsize=4096)(self._encode_answer)
        prefix = settings.repro_answer_prefix
        self.form = AnswerForm("" if prefix == AUTO_PREFIX else prefix, settings.repro_answer_template)

    def cut(self, completion_ids: list[int]) -> tuple[list[int], int, bool]:
        """Candidate starts, end boundary, and whether the end-of-thinking marker was written."""
        starts, end = self._find_starts(completion_ids)
        think_end = self.settings.repro_think_end
        finished = think_end is not None and has_think_end(self.tokenizer, completion_ids, end, think_end)
        return starts, end, finished

    def row(self, index: int, starts: list[int], end: int, finished: bool, answer: str) -> ScoringRow:
        """The row `index` of a batch, from what `cut` returned and its bare ground truth."""
        tokens, last_tokens = self.encode(answer, finished, self.form)
        return ScoringRow(index, starts, end, tokens, last_tokens, finished)

    def idle_row(self, index: int = 0) -> ScoringRow:
        """What is scored, and thrown away, in place of a completion that cannot be while others still can."""
        token = self.tokenizer.eos_token_id if self.tokenizer.eos_token_id is not None else 0
        answer = AnswerTokens([token], [True])
        return ScoringRow(index, starts=[], end=1, answer=answer, last_answer=answer)

    def encode(self, answer: str, finished: bool, form: AnswerForm) -> tuple[AnswerTokens, AnswerTokens]:
        """The answer in some form: as appended within the thought, and after it, where the marker may be written."""
        tokens, closing_tokens = self._encode(answer, form)
        return tokens, closing_tokens if finished else tokens

    def encode_forms(self, row: ScoringRow, answer: str, forms: Sequence[AnswerForm]) -> list[AnswerTokens]:
        """(2F,) the answer of a row in each form, as appended at its last boundary and at its last start."""
        return [tokens for form in forms for tokens in reversed(self.encode(answer, row.finished, form))]

    def _encode_answer(self, answer: str, form: AnswerForm) -> tuple[AnswerTokens, AnswerTokens]:
        """The answer as appended at every boundary, and as appended where the thinking region has been closed."""
        text = answer_text(answer, form.template)
        tokens = encode_answer(self.tokenizer, text, form.prefix)
        closing_prefix = prefix_after_marker(form.prefix, self.settings.repro_think_end)
        # The same object where nothing differs: then all boundaries share one answer.
        return tokens, tokens if closing_prefix == form.prefix else encode_answer(self.tokenizer, text, closing_prefix)


def encode_answer(tokenizer: PreTrainedTokenizerBase, answer_text: str, prefix: str = "") -> AnswerTokens:
    """Tokenise an unscored prefix and the scored answer, each alone and without special tokens (METHOD §1, §3)."""
    prefix_ids = tokenizer.encode(prefix, add_special_tokens=False) if prefix else []
    answer_ids = tokenizer.encode(answer_text, add_special_tokens=False)
    if len(answer_ids) > MAX_ANSWER_TOKENS:
        logger.warning_once(
            f"Only the first {MAX_ANSWER_TOKENS} of the {len(answer_ids)} tokens of an answer are scored: "
            f"{answer_text[:60]!r}…"
        )
        answer_ids = answer_ids[:MAX_ANSWER_TOKENS]
    return AnswerTokens(prefix_ids + answer_ids, [False] * len(prefix_ids) + [True] * len(answer_ids))


def prefix_after_marker(prefix: str, think_end: str | None) -> str:
    """What follows the end-of-thinking marker in an answer prefix that begins with it; any other prefix whole."""
    stripped = prefix.lstrip()
    return stripped[len(think_end) :] if think_end and stripped.startswith(think_end) else prefix


def has_think_end(tokenizer: PreTrainedTokenizerBase, completion_ids: list[int], end: int, think_end: str) -> bool:
    """Whether the marker was written, given the end boundary that `find_segment_starts` returned."""
    # A marker that the very last token completes leaves `end` at the length, as a missing one does.
    return end < len(completion_ids) or think_end in tokenizer.decode(
        completion_ids[-len(think_end.encode()) :], clean_up_tokenization_spaces=False
    )
