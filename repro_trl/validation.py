"""Checks of settings. Each raises a `ValueError` that names the setting, its value, and what to write instead."""

import numbers
import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

# A backslash followed by "n", not the start of a LaTeX command such as "\neq": what a shell leaves of '\n\n'.
_ESCAPED_WHITE_SPACE = re.compile(r"\\[nrt](?![A-Za-z])")
_WORDS_FOR_NONE = ("none", "null")


def check_number(settings: Any, name: str, is_valid: Callable[[float], bool], wanted: str, or_none: str = "") -> None:
    """
    Refuse anything but a number that is valid; a truth value is none.

    Args:
        wanted: the range in words, such as "a number >= 0".
        or_none: what `None` means, where it is allowed.
    """
    value = getattr(settings, name)
    if value is None and or_none:
        return
    if not _is_number(value, numbers.Real) or not is_valid(value):
        raise ValueError(_message(name, value, wanted, or_none))


def check_integer(settings: Any, name: str, minimum: int, meaning: str = "") -> None:
    """Refuse anything but an integer from `minimum` on; a truth value is none."""
    value = getattr(settings, name)
    if not _is_number(value, numbers.Integral) or value < minimum:
        raise ValueError(_message(name, value, f"an integer >= {minimum}{meaning}", ""))


def check_bool(settings: Any, name: str) -> None:
    """Refuse anything but a truth value."""
    value = getattr(settings, name)
    if not isinstance(value, bool):
        raise ValueError(f"{name}={value!r}: give true or false, without quotes.")


def check_text(settings: Any, name: str, wanted: str, or_none: str = "") -> None:
    r"""
    Refuse anything but text, and the slips that YAML and shells invite: text in brackets or braces, numbers and words
    such as `None` without quotes, and `\n` in two letters. What is `wanted` and what `None` means is said as in
    `check_number`, such as "the name of a dataset column".
    """
    value = getattr(settings, name)
    if value is None and or_none:
        return
    if not isinstance(value, str):
        quoted = _as_in_yaml(value)
        remedy = f" In YAML, put it in quotes: {name}: {quoted}" if quoted else ""
        raise ValueError(_message(name, value, wanted, or_none) + remedy)
    if value.strip().lower() in _WORDS_FOR_NONE:
        remedy = f"give {wanted}"
        if or_none:
            remedy = f"for {or_none} write null in YAML, None in Python, and --{name} '' on the command line"
        raise ValueError(f"{name}={value!r} is a string, not the value: {remedy}.")
    if _ESCAPED_WHITE_SPACE.search(value):
        raise ValueError(
            f"{name}={value!r} contains a backslash and a letter where white space is meant, such as a line break. "
            "In YAML, use double quotes; in a shell, $'\\n\\n'."
        )


def check_texts(settings: Any, name: str, wanted: str, or_none: str) -> None:
    """Refuse anything but a list of texts, without the slips that `check_text` knows, or `None`."""
    value = getattr(settings, name)
    if value is not None and (not isinstance(value, list) or not all(isinstance(text, str) for text in value)):
        raise ValueError(_message(name, value, f"a list of {wanted}", or_none))
    for text in value or ():
        check_text(SimpleNamespace(**{name: text}), name, wanted)


def check_choice(settings: Any, name: str, choices: list[str]) -> None:
    """Refuse anything but one of the choices."""
    value = getattr(settings, name)
    if value not in choices:
        raise ValueError(f"{name}={value!r}: choose one of {', '.join(map(repr, choices))}.")


def _is_number(value: Any, kind: type) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def _message(name: str, value: Any, wanted: str, or_none: str) -> str:
    return f"{name}={value!r}: give {wanted}{f', or None for {or_none}' if or_none else ''}."


def _as_in_yaml(value: Any) -> str | None:
    """What the user probably typed without quotes, with quotes."""
    if isinstance(value, list) and all(isinstance(item, (str, int, float)) for item in value):
        return f'"[{", ".join(map(str, value))}]"'
    if isinstance(value, dict) and all(item is None for item in value.values()):
        return f'"{{{", ".join(map(str, value))}}}"'
    return f'"{value}"' if isinstance(value, (bool, int, float)) else None
