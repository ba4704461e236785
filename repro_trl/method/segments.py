"""Where a completion is cut into segments (METHOD §2): delimiters and the end-of-thinking marker, in its text."""

from collections.abc import Sequence

import numpy as np
from transformers import PreTrainedTokenizerBase

from .token_text import read_tokens


def find_segment_starts(
    tokenizer: PreTrainedTokenizerBase,
    completion_ids: list[int],
    delimiter: str = "\n\n",
    think_end: str | None = "</think>",
) -> tuple[list[int], int]:
    """
    Segment starts and end boundary of one completion (METHOD §2, rules 1, 2 and 4).

    The rule uses the decoded text, special tokens included, not token ids. So it works for any tokenizer: a delimiter
    may be part of a token, span several, or begin and end in the middle of one. Token s (1 ≤ s < L) is a
    segment start when a delimiter ends inside, or at the end of, token s-1, and token s-1 ends before the marker
    begins. Occurrences of the delimiter may overlap. Bytes that are not a character match nothing.

    The first call with a tokenizer builds a table of its vocabulary (about a second for 150k tokens); later calls take
    milliseconds for tens of thousands of tokens. If the decoder of a tokenizer is not understood, completions are
    decoded piece by piece. This is just as exact but many times slower; a warning says so once.

    Args:
        tokenizer: the tokenizer that the completion is decoded with.
        completion_ids: L token ids without padding. Ids that the tokenizer does not know have an empty text.
        delimiter: text after which a new segment starts.
        think_end: text that ends the thinking region; its first occurrence counts. `None`: there is no such marker.

    Returns:
        The segment starts, ascending token counts in [1, L); and the end boundary: one past the token that completes
        the marker, or L without a marker.

    Raises:
        ValueError: `delimiter` or `think_end` is an empty string.
    """
    if not delimiter:
        raise ValueError("delimiter='' matches everywhere. Give the text that separates segments, such as '\\n\\n'.")
    if think_end == "":
        raise ValueError("think_end='' matches everywhere. Give the marker's text, or None if there is no marker.")
    length = len(completion_ids)
    text, ends = read_tokens(tokenizer, completion_ids)

    thought, end = len(text), length
    if think_end is not None:
        marker = think_end.encode()
        position = text.find(marker)
        if position >= 0:
            thought = position
            end = int(np.searchsorted(ends, position + len(marker))) + 1

    # The first token whose end reaches the delimiter's end is the one that holds its last byte.
    closing = np.searchsorted(ends, _occurrence_ends(text[:thought], delimiter.encode()))
    closing = closing[np.diff(closing, prepend=-1) > 0]  # several delimiters may end in one token
    starts = closing[ends[closing] <= thought] + 1
    return starts[starts < length].tolist(), end


def select_boundaries(starts: Sequence[int], entropies: Sequence[float], end: int, k: int | None) -> list[int]:
    """
    The boundaries b_0 < … < b_m of one completion (METHOD §2, rules 3 and 4).

    Args:
        starts: n segment starts, as `find_segment_starts` gives them.
        entropies: n entropies H_s in nats of the distributions that produced the tokens at `starts`; a 1-D
            tensor will do. NaN ranks below every number.
        end: the end boundary.
        k: how many starts to keep: those of highest entropy, the earlier of equals. `None`: all.

    Returns:
        {0} ∪ kept starts ∪ {end}, ascending; `[0]` for an empty completion.

    Raises:
        ValueError: `starts` and `entropies` differ in length, or k is negative.
    """
    if len(starts) != len(entropies):
        raise ValueError(f"{len(starts)} starts have {len(entropies)} entropies. Give one entropy for each start.")
    if k is not None and k < 0:
        raise ValueError(f"k={k} is negative. Give the number of segment starts to keep, 0 or more.")
    # Sorted ascending by -H, then by position; NaN sorts to the end.
    order = np.lexsort((np.asarray(starts), -np.asarray([float(entropy) for entropy in entropies])))
    return sorted({0, end, *(int(starts[index]) for index in order[:k])})


def _occurrence_ends(text: bytes, pattern: bytes) -> np.ndarray:
    """Offsets just past each occurrence of `pattern`, overlapping ones included, ascending."""
    data = np.frombuffer(text, dtype=np.uint8)
    positions = np.flatnonzero(data[: max(len(data) - len(pattern) + 1, 0)] == pattern[0])
    for offset, byte in enumerate(pattern[1:], start=1):
        positions = positions[data[positions + offset] == byte]
    return positions + len(pattern)
