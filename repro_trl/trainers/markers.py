"""`MarkerKeeper`: the end-of-thinking marker stays visible in what reward functions and logs read."""

from typing import Any

from transformers import PreTrainedTokenizerBase
from transformers.utils import logging

from ..method.token_text import readable_text
from ..thinking import other_think_end

logger = logging.get_logger(__name__)

# Generation batches in which a marker may be missing before another one is named.
_CHECKED_BATCHES = 3


class MarkerKeeper:
    """
    Puts the marker back where decoding dropped it as a special token, and says when completions have another one.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, think_end: str | None, is_main_process: bool) -> None:
        self.tokenizer, self._think_end = tokenizer, think_end
        self._checks_left = _CHECKED_BATCHES if is_main_process else 0
        # Whether decoding without special tokens loses the marker, or a part of it.
        self._is_dropped = False
        if think_end is not None:
            ids = tokenizer.encode(think_end, add_special_tokens=False)
            self._is_dropped = think_end not in tokenizer.decode(ids, skip_special_tokens=True)

    def restore(self, completions: list[Any], completion_ids: list[list[int]]) -> None:
        """
        Change completions, texts or lists of messages, in place.

        Messages that a response template has parsed have the thought in a field of its own, and stay as they are.
        """
        if not self._is_dropped and self._checks_left == 0:
            return
        texts = [self.tokenizer.decode(ids, skip_special_tokens=False) for ids in completion_ids]
        if self._checks_left > 0:
            self._check(texts)
        if not self._is_dropped:
            return
        for index, (ids, text) in enumerate(zip(completion_ids, texts, strict=True)):
            if self._think_end not in text:
                continue
            completion = completions[index]
            if isinstance(completion, str):
                completions[index] = readable_text(self.tokenizer, ids, self._think_end)
            elif len(completion) == 1 and not completion[0].get("reasoning_content"):
                if self._think_end not in (completion[0].get("content") or ""):
                    completion[0]["content"] = readable_text(self.tokenizer, ids, self._think_end)

    def _check(self, texts: list[str]) -> None:
        self._checks_left -= 1
        other = other_think_end(texts, self._think_end)
        if other is not None:
            self._checks_left = 0
            logger.warning(
                f"repro_think_end={self._think_end!r} is in none of this batch's completions, but {other!r} is. If "
                f"this is the text that ends the model's thought, set repro_think_end={other!r}."
            )
        elif self._think_end is not None and any(self._think_end in text for text in texts):
            self._checks_left = 0
