"""What a completion holds: an answer to vote with, the letter of an option, a program."""

import re

from ..answers import given_answer, last_box
from ..verifier_forms import canonical

_LETTER_IN_BOX = re.compile(r"(?<![A-Za-z])([A-Z])(?![A-Za-z])")
_STATED_LETTER = re.compile(r"\banswer(?:\s+is)?\s*:?\s*\**\s*(?:option\s+)?\(?([A-Z])(?![A-Za-z])", re.IGNORECASE)
_CODE_BLOCK = re.compile(r"^[ \t]*```[ \t]*([\w+-]*)[^\n]*\n(.*?)^[ \t]*```[ \t]*$", re.DOTALL | re.MULTILINE)
_PYTHON = ("", "python", "python3", "py")


def math_vote(conclusion: str) -> str | None:
    """
    The answer that the verifier judges, in the one form that it gives to the many ways of writing it, and without
    spaces. `None` without an answer.
    """
    answer = given_answer(conclusion)
    return None if answer is None else "".join(canonical(answer).split()) or answer


def choice_letter(conclusion: str, letters: str) -> str | None:
    """The letter in the last box, or else in the last "answer is …"; `None` where neither holds one of `letters`."""
    box = last_box(conclusion)
    if box is not None:
        found = [letter for letter in _LETTER_IN_BOX.findall(box) if letter in letters]
        return found[0] if found else None
    stated = [letter.upper() for letter in _STATED_LETTER.findall(conclusion)]
    return next((letter for letter in reversed(stated) if letter in letters), None)


def program(conclusion: str) -> str | None:
    """The last code block that is not marked as another language than Python; `None` without one."""
    blocks = _CODE_BLOCK.findall(conclusion)
    return next((body for language, body in reversed(blocks) if language.lower() in _PYTHON), None)
