"""Statistics of a thought read from its text: how long it is, and how often and in which way it turns back."""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

BACKTRACK_PHRASES: dict[str, tuple[str, ...]] = {
    "wait": ("wait", "hold on", "actually", "on second thought"),
    "re-check": (
        *(f"{who} {verb}" for who in ("let me", "let's") for verb in ("check", "verify", "reconsider", "re-consider")),
        *("recheck", "re-check", "doublecheck", "double-check", "double check", "check again"),
    ),
    "restart": ("start over", "start again", "try again", "go back"),
}
"""
Phrases that mark a segment as a backtrack, by kind: doubts, re-checks and restarts. They are whole words in any case,
with any white space between them, and either apostrophe.
"""


def backtrack_patterns(phrases: Mapping[str, Iterable[str]] = BACKTRACK_PHRASES) -> dict[str, re.Pattern[str]]:
    """One regular expression for each kind of backtrack; see `BACKTRACK_PHRASES` for how phrases are matched.

    Raises:
        ValueError: a kind without phrases, or an empty phrase.
    """
    patterns = {}
    for kind, kind_phrases in phrases.items():
        words = [phrase.replace("’", "'").split() for phrase in kind_phrases]
        if not words or not all(words):
            raise ValueError(
                f"backtrack phrases of {kind!r}: {kind_phrases!r}. Give at least one phrase, and no empty one."
            )
        alternatives = (r"\s+".join(re.escape(word).replace("'", "['’]") for word in phrase) for phrase in words)
        # Not \b: a phrase of one's own may begin or end with a character that is no part of a word.
        patterns[kind] = re.compile(rf"(?<!\w)(?:{'|'.join(alternatives)})(?!\w)", re.IGNORECASE)
    return patterns


BACKTRACK_PATTERNS = backtrack_patterns()


def read_backtrack_phrases(path: str | Path) -> dict[str, list[str]]:
    """
    Phrases of your own from a JSON file in the form of `BACKTRACK_PHRASES`: `{"wait": ["wait", "hmm"], …}`.

    Raises:
        ValueError: the file is not JSON, or of another form.
    """
    try:
        phrases = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not a JSON file ({error}).") from error
    is_table = isinstance(phrases, dict) and all(
        isinstance(entry, list) and all(isinstance(phrase, str) for phrase in entry) for entry in phrases.values()
    )
    if not is_table or not phrases:
        raise ValueError(f'{path}: must be an object of lists of phrases, such as {{"wait": ["wait", "hold on"]}}.')
    return phrases


THINK_ENDS: dict[str, str] = {
    "</think>": "DeepSeek-R1, Qwen3, QwQ, GLM-4.5, SmolLM3, most others",
    "[/THINK]": "Magistral, Ministral Reasoning",
    "◁/think▷": "Kimi-VL-Thinking",
    "<|end_of_thought|>": "Sky-T1, OpenThinker",
    "<|channel|>final<|message|>": "gpt-oss, whose answer is the channel `final`",
    "</reasoning>": "TRL's and open-r1's reward examples",
    "</thinking>": "prompted models",
    "</thought>": "prompted models",
    "</seed:think>": "Seed-OSS",
    "<|END_THINKING|>": "Command A Reasoning",
}
"""Texts that end the thought in families of models, for `repro_think_end`."""


def split_thought(completion: str, think_end: str | None = "</think>") -> tuple[str, str]:
    """
    The thought, and what is judged as the answer.

    The first marker counts, as for boundaries (METHOD §2) and in the reasoning parsers of inference engines. What
    follows it is addressed to the reader, whatever it says. Without a marker, the whole completion is both.
    """
    thought, marker, conclusion = completion.partition(think_end) if think_end else (completion, "", "")
    return thought, conclusion if marker else completion


def thinking_text(completion: str, think_end: str | None = "</think>") -> str:
    """The part of a completion before the end-of-thinking marker, or all of it."""
    return split_thought(completion, think_end)[0]


def other_think_end(texts: Iterable[str], think_end: str | None) -> str | None:
    """A known marker that these completions have although none has `think_end`; `None` if there is no problem."""
    texts = list(texts)
    if think_end is None or any(think_end in text for text in texts):
        return None
    return next((marker for marker in THINK_ENDS if any(marker in text for text in texts)), None)


def count_backtracks_by_kind(
    completion: str,
    delimiter: str = "\n\n",
    think_end: str | None = "</think>",
    patterns: Mapping[str, re.Pattern[str]] = BACKTRACK_PATTERNS,
) -> tuple[int, dict[str, int]]:
    """
    Segments of the thought that contain a phrase of any kind, and of each kind.

    Several phrases in one segment count once; a segment with phrases of two kinds counts for both, so the kinds may
    add up to more than the total.
    """
    segments = thinking_text(completion, think_end).split(delimiter)
    found = [{kind for kind, pattern in patterns.items() if pattern.search(segment)} for segment in segments]
    return sum(map(bool, found)), {kind: sum(kind in kinds for kinds in found) for kind in patterns}


def count_backtracks(completion: str, delimiter: str = "\n\n", think_end: str | None = "</think>") -> int:
    """Segments of the thought that contain a phrase of `BACKTRACK_PHRASES`; several in one segment count once."""
    return count_backtracks_by_kind(completion, delimiter, think_end)[0]
