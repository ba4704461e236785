"""The verdict on a completion's answer: one for the reward, for evaluation, for traces and for reports."""

import functools
import itertools
import logging
import math
import re
import threading
import warnings

from .answers import given_answer
from .thinking import split_thought
from .verifier_forms import MAX_LENGTH, canonical, closing_brace
from .verifier_kinds import as_pair, brackets, is_split_time, same_base, same_choice, same_time, same_words
from .verifier_quantities import number, same_number, same_unit, split_units

# What math-verify is given is bounded: it gives up after some seconds, but only in the main thread and between two
# steps of Python, and a power of large numbers is one step.
_MAX_NESTING = 10  # half a second for ten nested brackets, more than ten seconds for fourteen
_MAX_DIGITS = 300
_MAX_POWER = 4000  # digits of a power of two numbers
_MAX_EXPONENT = 16  # of sums with variables, which are multiplied out, all together
_MAX_NUMERIC_EXPONENT = 128  # of sums without
_SECONDS = 5

_COMPUTED = re.compile(r"[\^!*(]|\\(?:cdot|times)(?![A-Za-z])")
_TOLERANCE = 1e-4  # relative
_NAME = re.compile(
    r"(?:\\(?:angle|triangle|overline|text|vec|hat|bar|[a-z]+)\s*)?(?:\{?[A-Za-z]+\}?)?(?:_\{?\w+\}?)?'*(?:\s*\([^=]*\))?"
    r"|\((?:\s*[A-Za-z]\s*,)+\s*[A-Za-z]\s*\)"
)


def verify_answer(completion: str, answer: str | None, think_end: str | None = "</think>") -> bool | None:
    r"""
    Whether a completion's answer is the given one; `docs/verifier.md` lists what counts as equal.

    The answer is the completion's last `\boxed{…}`; without a box, what follows "The answer is", "Final answer:" and
    the like. A number that merely stands there is none.

    Args:
        completion: generated text. Empty text is wrong.
        answer: as `extract_answer` returns it. One that math-verify cannot read, or that is longer than 400
            characters, equals the same text only.
        think_end: what follows the first such marker is judged; the whole text where there is none, or for `None`.

    Returns:
        The verdict; `None` where there is no answer.
    """
    if answer is None:
        return None
    given = given_answer(split_thought(completion, think_end)[1])
    return given is not None and (given == answer or same_answer(answer, given))


def answer_vote(conclusion: str) -> str | None:
    """
    The answer that the verifier judges, in the one form that it gives to the many ways of writing it, and without
    spaces. `None` without an answer.
    """
    answer = given_answer(conclusion)
    return None if answer is None else "".join(canonical(answer).split()) or answer


# A small model gives the same few answers over and over, at a millisecond or more each.
@functools.lru_cache(maxsize=4096)
def same_answer(answer: str, given: str) -> bool:
    """Whether two bare answers are equal, the ground truth first."""
    one, other = canonical(answer), canonical(given)
    if max(len(answer), len(given)) > MAX_LENGTH:
        if len(answer) > MAX_LENGTH:
            warnings.warn(
                f"A ground truth of {len(answer)} characters is too long to be an answer; only identical text "
                f"counts as equal: {answer[:60]!r}… Name the column that has the answers.",
                stacklevel=2,
            )
        return one == other
    if max(_nesting(answer), _nesting(given)) > _MAX_NESTING:
        return False
    return bool(one and other) and not is_split_time(answer, given) and _same(one, other)


def _same(one: str, other: str) -> bool:
    if _squeezed(one) == _squeezed(other):
        return True
    one, other = as_pair(one, other), as_pair(other, one)
    one, other = _without_name(one, other), _without_name(other, one)
    for rule in (functools.partial(same_choice, equal=_same), same_time, same_base):
        verdict = rule(one, other)
        if verdict is not None:
            return verdict
    (one, unit), (other, other_unit) = split_units(one, other)
    if not same_unit(unit, other_unit):
        return False
    numbers = number(one), number(other)
    if all(numbers):
        return same_number(*numbers)
    verdict = same_words(one, other)
    if verdict is not None:
        return verdict
    if {brackets(one), brackets(other)} == {"set", "ordered"}:
        return False
    return _is_bounded(one) and _is_bounded(other) and _equivalent(one, other)


def _squeezed(text: str) -> str:
    """Without the spaces that do not hold words or numbers apart."""
    return re.sub(r"(?<!\w) | (?!\w)", "", text)


def _without_name(text: str, other: str) -> str:
    """`5` for `x = 5` and `5 = x`, beside an answer that is no equation itself."""
    sides = [side.strip() for side in re.split(r"(?<![<>!\\])=|\\approx", text)]
    if len(sides) != 2 or not all(sides) or re.search(r"[=<>]|\\[lg]eq", other):
        return text
    for name, value in (sides, sides[::-1]):
        if _NAME.fullmatch(name) and re.search(r"\d|\\", value):
            return value
    return text


def _has_variables(text: str) -> bool:
    return re.search(r"[A-Za-z]", re.sub(r"\\[A-Za-z]+", "", text)) is not None


def _nesting(text: str) -> int:
    return max(itertools.accumulate((char in "{[(") - (char in "}])") for char in text), default=0)


def _is_bounded(text: str) -> bool:
    """Whether math-verify reads and compares a text in a time that is worth an answer."""
    if len(text) > MAX_LENGTH or _nesting(text) > _MAX_NESTING or re.search(rf"\d{{{_MAX_DIGITS}}}", text):
        return False
    plain = re.sub(r"[{}()\s]", "", text)
    if re.search(r"!!!|\d{4,}!|\\(?:int|lim)(?![A-Za-z])|\\binom\d{5,}", plain):
        return False
    sums = re.findall(r"\\(?:sum|prod)(?![A-Za-z])", plain)
    if len(sums) > 1 or (sums and re.search(r"\d{4,}", plain)):
        return False
    if re.search(r"\^-?(?:\d+(?:\.\d+)?|e|\\pi|\\sqrt\d+)(?:\^|!)", plain):  # a tower of powers
        return False
    # 9^{9 \cdot 9^9}: an exponent that is a number, and is to be computed first
    exponents = (text[match.end() : closing_brace(text, match.end() - 1)] for match in re.finditer(r"\^\s*\{", text))
    if any(_COMPUTED.search(exponent) and not _has_variables(exponent) for exponent in exponents):
        return False
    for base, exponent in re.findall(r"(\d+(?:\.\d+)?|[^\d])\^-?(\d+)", plain):
        if len(exponent) > 6 or (base[0].isdigit() and int(exponent) * math.log10(float(base) + 1) > _MAX_POWER):
            return False
    of_groups = [int(exponent) for exponent in re.findall(r"[})\]]\s*\^\s*\{?\s*-?(\d{1,9})", text)]
    if not _has_variables(text) and plain.count("!") > 1 and re.search(r"[)}]\s*!", text):
        return False
    return sum(of_groups) <= (_MAX_EXPONENT if _has_variables(text) else _MAX_NUMERIC_EXPONENT)


def _equivalent(one: str, other: str) -> bool:
    from math_verify import verify

    parsed = _parsed(one), _parsed(other)
    if not all(parsed):
        return False
    equal = verify(*map(list, parsed), allow_set_relation_comp=True, timeout_seconds=_seconds())
    return equal and not _differ_by_size(*parsed)


@functools.lru_cache(maxsize=1024)
def _parsed(text: str) -> tuple:
    from math_verify import parse

    # Units are told apart before: math-verify drops them, and takes the t of 4t for one.
    box, config = rf"\boxed{{{text}}}", _extraction()
    return tuple(parse(box, config, extraction_mode="first_match", parsing_timeout=_seconds()))


@functools.cache
def _extraction() -> list:
    from latex2sympy2_extended.latex2sympy2 import NormalizationConfig
    from math_verify import LatexExtractionConfig

    for name in ("math_verify.parser", "math_verify.grader"):
        logging.getLogger(name).addFilter(lambda record: not record.getMessage().startswith("Timeout is disabled"))
    normalization = NormalizationConfig(
        basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="last", equations=False
    )
    config = LatexExtractionConfig(
        try_extract_without_anchor=False, boxed_match_priority=0, normalization_config=normalization
    )
    return [config]


def _seconds() -> int | None:
    # math-verify's limit is a signal, which only the main thread gets.
    return _SECONDS if threading.current_thread() is threading.main_thread() else None


def _differ_by_size(one: tuple, other: tuple) -> bool:
    """Whether math-verify, which rounds to six decimals, took two small numbers for one."""
    import sympy

    if not all(isinstance(parsed[0], sympy.Expr) and parsed[0].is_number for parsed in (one, other)):
        return False
    try:
        values = [complex(parsed[0]) for parsed in (one, other)]
    except (TypeError, OverflowError):
        return False
    return abs(values[0] - values[1]) > _TOLERANCE * max(map(abs, values))
