"""What a completion holds: an answer to vote with, the letter of an option, a program."""

import re

from ..answers import last_box
from .choices import choice_letter
from .programs import program

__all__ = ["choice_letter", "conclusion", "math_vote", "program"]

_THOUSANDS = re.compile(r"(?<=\d)(?:,|\{,\}|\\,|\\!|,\\!)(?=\d{3}(?!\d))")
_NO_MEANING = re.compile(r"\\left(?![a-z])|\\right(?![a-z])|\\[,;:! ]|\\displaystyle|[\s$~]")


def conclusion(completion: str, think_end: str | None) -> str:
    """What follows the last end-of-thinking marker; all of a completion without one."""
    return completion.rpartition(think_end)[2] if think_end else completion


def math_vote(conclusion: str) -> str | None:
    """
    The last boxed answer, in a form that differs less than answers are written: without spaces, sizes of brackets and
    commas between thousands. `None` without a box.
    """
    box = last_box(conclusion)
    if box is None:
        return None
    text = _THOUSANDS.sub("", box)
    text = re.sub(r"\\[dt]frac", r"\\frac", text)
    return _NO_MEANING.sub("", text).rstrip(".") or box
