"""What a completion says is its answer, by the kind of question."""

from ..answers import given_answer
from ..verifier_forms import canonical
from .choices import choice_letter
from .programs import program

__all__ = ["choice_letter", "math_vote", "program"]


def math_vote(conclusion: str) -> str | None:
    """
    The answer that the verifier judges, in the one form that it gives to the many ways of writing it, and without
    spaces. `None` without an answer.
    """
    answer = given_answer(conclusion)
    return None if answer is None else "".join(canonical(answer).split()) or answer
