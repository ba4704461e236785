r"""
Answers that are no expressions: choices, times of day, numbers in a named base, words. Each rule takes two canonical
answers and decides, or returns `None` where they are of another kind.
"""

import re
from collections.abc import Callable

from .verifier_forms import TEXT, words

_LABELLED = re.compile(r"\(([A-Z])\)\s*(?![-+*/^_=,)]\s|\([A-Z]\)|[*/^_=,])(\S.*)?|([A-J])(?:\)|[.:]\s)\s*(\S.*)?")
_OPTION = re.compile(r"(?i:option|choice|answer)\s*\(?([A-Z])\)?")
_LETTERS = re.compile(r"\(?[A-Z]\)?(?:\s*,\s*\(?[A-Z]\)?)+")
_TIME = re.compile(r"(\d{1,2})(?:\s*:\s*(\d{2}))?\s*(?:([ap])\s*\.?\s*m\s*\.?)?", re.IGNORECASE)
_TIME_AS_TEXT = re.compile(r"\\text\{\s*\d{1,2}:\d{2}[^{}]*\}")
_HALF_AS_TEXT = re.compile(r"\d{1,2}:\d{2}\s*\\text\{\s*[ap]\.?m\.?\s*\}")
_NAMED_PAIR = re.compile(r"\(\s*[a-z](?:\s*,\s*[a-z])+\s*\)\s*=\s*(\(.*\))")
_ASSIGNMENTS = re.compile(r"[a-z]\s*=[^=,]+(?:,\s*[a-z]\s*=[^=,]+)+")
_BASE = re.compile(
    r"\(?(?P<digits>\d[\dA-Za-z]*|[\dA-F]+)\)?"
    r"(?:_\s*(?P<digit>\d)|_\s*\{\s*\(?(?:base\s*)?(?P<name>[\w-]+)\)?\s*\}|\s*\(?base\s*(?P<word>[\w-]+)\)?)"
)
_BASES = {
    word: base
    for base, word in enumerate(
        "two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen".split(), start=2
    )
} | {"binary": 2, "octal": 8, "decimal": 10, "hex": 16, "hexadecimal": 16}


def same_choice(one: str, other: str, equal: Callable[[str, str], bool]) -> bool | None:
    r"""
    `C`, `(C)`, `\text{(C) } 5` and `Option C` are one choice, A,C and AC one list of choices. Where only one side has
    a letter, the values are compared by `equal`.
    """
    letters = [_letters(text) for text in (one, other)]
    if all(letters) and max(map(len, letters)) > 1 and any("," in text for text in (one, other)):
        return set(letters[0]) == set(letters[1])
    (letter, value), (other_letter, other_value) = _labelled(one), _labelled(other)
    if value is None and other_value is None:
        return letter == other_letter if letter and other_letter else None
    if letter and other_letter:
        return letter == other_letter and (value is None or other_value is None or equal(value, other_value))
    # Both sides cannot be without a letter: one of them has a value, which follows a letter.
    if (letter and not value) or (other_letter and not other_value):
        return None
    return equal(value if letter else one, other_value if other_letter else other)


def _letters(text: str) -> str | None:
    plain = TEXT.sub(r"\1", text).strip()
    if _LETTERS.fullmatch(plain):
        return re.sub(r"[^A-Z]", "", plain)
    return plain if re.fullmatch(r"[A-Z]+", plain) and list(plain) == sorted(set(plain)) else None


def _labelled(text: str) -> tuple[str | None, str | None]:
    plain = TEXT.sub(r"\1", text).strip()
    if re.fullmatch(r"[A-Z]", plain):
        return plain, None
    match = _OPTION.fullmatch(plain)
    if match:
        return match[1], None
    match = _LABELLED.fullmatch(plain)
    return (match[1] or match[3], match[2] or match[4]) if match else (None, None)


def same_time(one: str, other: str) -> bool | None:
    """`4:30 p.m.`, `4:30 PM` and `16:30` are one time; without a half of the day 4:30 is either."""
    times = [_TIME.fullmatch(TEXT.sub(r" \1 ", text).strip()) for text in (one, other)]
    if not all(times) or not any(time[3] for time in times) or not all(time[2] or time[3] for time in times):
        return None
    minutes = [
        {(int(time[1]) % 12 + 12 * (half == "p")) * 60 + int(time[2] or 0) for half in (time[3] or "ap").lower()}
        if time[3] or int(time[1]) <= 12
        else {int(time[1]) * 60 + int(time[2])}
        for time in times
    ]
    return bool(minutes[0] & minutes[1])


def is_split_time(answer: str, given: str) -> bool:
    r"""
    Whether one answer, as written, sets a time as a text and the other only its half of the day, as a unit is set.
    Hendrycks' checker for MATH, by which such answers were recorded, takes `4:30 \text{ p.m.}` for 4:30.
    """
    return any(
        _TIME_AS_TEXT.fullmatch(one) and _HALF_AS_TEXT.fullmatch(other)
        for one, other in ((answer, given), (given, answer))
    )


def as_pair(text: str, other: str) -> str:
    """`(1, 2)` for `(x, y) = (1, 2)`, and for `y = 2, x = 1` beside such a pair."""
    named = _NAMED_PAIR.fullmatch(text)
    if named:
        return named[1]
    if not (brackets(other) == "ordered" or _NAMED_PAIR.fullmatch(other)) or not _ASSIGNMENTS.fullmatch(text):
        return text
    values = dict(map(str.strip, entry.split("=")) for entry in text.split(","))
    return f"({', '.join(values[name] for name in sorted(values))})" if len(values) == text.count("=") else text


def same_base(one: str, other: str) -> bool | None:
    r"""
    `101_2` and `101_{\text{two}}` are one number; in another base, or with other digits, it is another. As with a
    unit, the base may be missing.
    """
    numbers = [_number_in_base(text) for text in (one, other)]
    if not any(numbers):
        return None
    if all(numbers):
        return numbers[0] == numbers[1]
    digits = numbers[0][0] if numbers[0] else numbers[1][0]
    return digits == (other if numbers[0] else one).upper()


def _number_in_base(text: str) -> tuple[str, int] | None:
    match = _BASE.fullmatch(TEXT.sub(r"\1", text))
    if match is None:
        return None
    name = (match["digit"] or match["name"] or match["word"]).lower()
    base = int(name) if name.isdecimal() else _BASES.get(name, 0)
    digits = match["digits"].upper()
    return (digits, base) if 2 <= base <= 36 and all(int(digit, 36) < max(base, 10) for digit in digits) else None


def same_words(one: str, other: str) -> bool | None:
    """Without regard to case, articles and marks; text in letters that LaTeX cannot read is only compared so."""
    texts = [words(text) for text in (one, other)]
    if texts[0] == texts[1]:
        return True
    if not all(text.isascii() for text in texts):
        return False
    # math-verify reads words as products of letters, for which their order is the same.
    are_words = [re.fullmatch(r"[a-z]{5,}|[a-z]+(?: [a-z]+)+", text) is not None for text in texts]
    return False if all(are_words) else None


def brackets(text: str) -> str | None:
    r"""
    The kind of a list of several entries: "set" for `\{…\}`, "ordered" for `(…)`, `[…)` and the like, else `None`.
    """
    opening = re.match(r"\\\{|[(\[]", text)
    if opening is None:
        return None
    depth, entries = 0, 1
    for token in re.finditer(r"\\[{}]|[()\[\]{},;]", text):
        if token[0] in ("\\{", "(", "[", "{"):
            depth += 1
        elif token[0] not in (",", ";"):
            depth -= 1
            if depth == 0 and token.end() < len(text):
                return None
        elif depth == 1:
            entries += 1
    if depth != 0 or entries < 2:
        return None
    return "set" if opening[0] == "\\{" else "ordered"
