"""Statistics of a thought read from its text: how long it is and how often it turns back."""

import re

BACKTRACK = re.compile(
    r"\b(wait|hold on|actually|on second thought|(let me|let's) (re-?check|check|double-?check|verify|re-?consider)|"
    r"check again|(double|re)-?check|start (over|again)|try again|go back)\b",
    re.IGNORECASE,
)
"""Phrases that mark a segment as a backtrack: doubts, re-checks and restarts."""


def thinking_text(completion: str, think_end: str | None = "</think>") -> str:
    """The part of a completion before the end-of-thinking marker, or all of it."""
    return completion.split(think_end, 1)[0] if think_end else completion


def count_backtracks(completion: str, delimiter: str = "\n\n", think_end: str | None = "</think>") -> int:
    """Segments of the thought that hold a phrase of `BACKTRACK`; several phrases in one segment count once."""
    return sum(
        BACKTRACK.search(segment) is not None for segment in thinking_text(completion, think_end).split(delimiter)
    )
