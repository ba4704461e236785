r"""Numbers and units of canonical answers: what `18 dollars`, `\$18.00` and `1.8\times 10^{1}` have in common."""

import re
from dataclasses import dataclass
from fractions import Fraction

from .verifier_forms import TEXT

_UNSIGNED = r"(?:\d+(?:\.\d*)?|\.\d+)"
_NUMBER = re.compile(
    rf"(?P<sign>[-+]?)\s*(?:(?P<mantissa>{_UNSIGNED})?\s*(?P<times>\\times|\\cdot|\*|x)?\s*(?P<ten>10)\s*\^\s*"
    rf"(?:\{{\s*(?P<exponent>[-+]?\d+)\s*\}}|(?P<digit>\d+))"
    rf"|(?P<whole>\d+)?\s*\\frac\{{\s*(?P<above>[-+]?\d+)\s*\}}\{{\s*(?P<below>[-+]?\d+)\s*\}}"
    rf"|(?P<numerator>{_UNSIGNED})\s*/\s*(?P<denominator>{_UNSIGNED})"
    rf"|(?P<decimal>{_UNSIGNED}))\s*(?P<percent>(?:\\%)?)"
)
_MOST_DIGITS = 1000
_DECIMALS = 6  # math-verify's rounding
_TOLERANCE = Fraction(1, 10**4)  # relative, Qwen2.5-Math's
_SCIENTIFIC_TOLERANCE = Fraction(1, 10**6)


@dataclass(frozen=True)
class Number:
    value: Fraction
    exact: bool = True
    percent: bool = False
    scientific: bool = False


def number(text: str) -> Number | None:
    """The number that a canonical answer is, if it is one and nothing else."""
    match = _NUMBER.fullmatch(text) if len(text) <= _MOST_DIGITS else None
    if match is None or (match["ten"] and bool(match["mantissa"]) != bool(match["times"])):
        return None
    sign = -1 if match["sign"] == "-" else 1
    if match["ten"]:
        exponent = int(match["exponent"] or match["digit"])
        if abs(exponent) > _MOST_DIGITS:
            return None
        mantissa = match["mantissa"] or "1"
        value, exact = Fraction(mantissa) * Fraction(10) ** exponent, "." not in mantissa
    elif match["above"]:
        above, below = int(match["above"]), int(match["below"])
        if below == 0 or (match["whole"] and (above < 0 or below < 0)):
            return None
        value, exact = int(match["whole"] or 0) + Fraction(above, below), True
    elif match["numerator"]:
        below = Fraction(match["denominator"])
        if below == 0:
            return None
        value, exact = Fraction(match["numerator"]) / below, "." not in text
    else:
        value, exact = Fraction(match["decimal"]), "." not in text
    return Number(sign * value, exact, bool(match["percent"]), bool(match["ten"]))


def same_number(one: Number, other: Number) -> bool:
    r"""
    Exact numbers are equal or not. A decimal fraction equals what agrees with it to six decimals and to four digits;
    in scientific notation to six digits. A percentage equals its number and its hundredth.
    """
    if one.percent != other.percent:
        percentage, plain = (one, other) if one.percent else (other, one)
        hundredth = Number(percentage.value / 100, percentage.exact)
        return any(_close(number, plain) for number in (percentage, hundredth))
    return _close(one, other)


def _close(one: Number, other: Number) -> bool:
    if one.value == other.value:
        return True
    if one.exact and other.exact:
        return False
    distance, size = abs(one.value - other.value), max(abs(one.value), abs(other.value))
    if (one.scientific or other.scientific) and distance <= _SCIENTIFIC_TOLERANCE * size:
        return True
    return distance <= _TOLERANCE * size and round(one.value, _DECIMALS) == round(other.value, _DECIMALS)


# A unit and how else it is written, then the next one. Plurals are told by rule.
_UNITS = """
    km kilometer kilometre kms, m meter metre, cm centimeter centimetre cms, mm millimeter millimetre, nm nanometer,
    mile mi, yard yd, foot feet ft, inch in, acre, hectare ha,
    kg kilogram kgs kilo, g gram gm gms, mg milligram, pound lb lbs, ounce oz, ton tonne,
    hour h hr hrs, minute min mins, second s sec secs, ms millisecond,
    day, week wk, month, year yr yrs, century centuries, decade,
    liter l litre, ml milliliter millilitre, gallon gal, quart, pint, cup, degree deg, radian rad,
    unit, person people, child children, man men, woman women,
    $ dollar usd buck, cent ¢, € euro eur, £ gbp, ¥ yen yuan rmb 元 圆, rupee rs inr ₹,
    kmh kph kmph, mph, joule j, kj kilojoule, watt w, volt v, newton n, ampere amp, pascal pa, hertz hz,
    kelvin k, celsius, fahrenheit f, ohm, mole mol, coulomb c, ev
"""
_UNIT_OF_WORD = {word: words[0] for words in map(str.split, _UNITS.split(",")) for word in words}
_COMPOUND = {"mph": "mile/hour", "kmh": "km/hour"}
# Without \text and without a space these are variables as well.
_BARE_LETTERS = "msghlL"
_LETTER_AT_END = re.compile(rf"\d\s*[{_BARE_LETTERS}]$")
_SCALES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
# Words after a number that change it, or that join it with another.
_NOT_UNITS = set(
    "squared cubed factorial dozen or and not than least most if to root pi sqrt sin cos tan log ln exp times "
    "infinity mod modulo choose remainder".split()
)

_CURRENCY_BEFORE = re.compile(
    r"^(-?)\s*(?:\\text\{)?\s*(\\?\$|\\(?:euro|pounds|yen)(?![A-Za-z])|[€£¥₹]|USD|EUR)\s*\}?\s*(?=[-.\d\\])"
)
_CURRENCY_SIGNS = {"\\$": "$", "\\euro": "€", "\\pounds": "£", "\\yen": "¥", "USD": "$", "EUR": "€"}
_POWER = r"(?:\^(?:\{[-\d]+\}|\d))?"
_UNIT_AT_END = re.compile(
    r"(?P<degree>\^\{\\circ\}\s*(?:\\text\{\s*[CF]\s*\}|[CF](?![A-Za-z]))?)$"
    rf"|(?P<text>(?:\s*[/*]?\s*(?:\\cdot\s*)?\\text\{{[^{{}}]*\}}{_POWER})+)\s*$"
    rf"|(?P<words>(?<=[\d}}\s)])\s*[A-Za-z][A-Za-z. ]*{_POWER}(?:\s*(?:/|per\s)\s*[A-Za-z]+{_POWER})?)$"
    r"|(?P<sign>\\?\$|[€£¥₹¢])$"
    r"|(?P<script>(?<=\d)\s*[^\W\d_A-Za-z]+)$"
)


def split_unit(text: str) -> tuple[str, str]:
    """Canonical answer → its value and its unit in one spelling; the unit is empty where there is none."""
    currency = _CURRENCY_BEFORE.match(text)
    if currency:
        unit = _CURRENCY_SIGNS.get(currency[2], currency[2])
        value, second = split_unit(currency[1] + text[currency.end() :])
        return value, unit if second in ("", unit) else f"{unit} {second}"
    match = _UNIT_AT_END.search(text)
    if match is None:
        return text, ""
    value, words = text[: match.start()].rstrip(), TEXT.sub(r" \1 ", match[0])
    if not value or value[-1] in "-+*/^_=<>,;:([{&":
        return text, ""
    names = re.findall(r"[^\W\d_]+", words)
    if match["degree"]:
        return value, " ".join(["degree", *({"C": "celsius", "F": "fahrenheit"}[name] for name in names[1:])])
    known = all(name.lower() in _UNIT_OF_WORD or _singular(name.lower()) in _UNIT_OF_WORD for name in names)
    if _NOT_UNITS & {name.lower() for name in names} or not (known or re.search(r"\d", value)):
        return text, ""
    if match["words"] and not _is_bare_unit(match["words"], names, known):
        return text, ""
    if names and names[0].lower() in _SCALES:
        scaled = number(value)
        if scaled is None:
            return text, ""
        return rf"{value}\times 10^{{{_SCALES[names[0].lower()]}}}", _unit(words.lstrip()[len(names[0]) :])
    return value, _unit(words)


def _is_bare_unit(words: str, names: list[str], known: bool) -> bool:
    """Whether letters after a number, outside of `\\text`, are a unit and not variables."""
    if len(names) == 1 and len(names[0]) == 1:
        return names[0] in _BARE_LETTERS
    # 3ab is a product; 3 pages are pages.
    return known or (
        words[:1].isspace() and all(len(name) > 3 or name in ("per", "the", "of", "in") for name in names)
    )


def same_unit(one: str, other: str) -> bool:
    """Whether two units may stand for one another: one is missing, or says less than the other (18 red apples)."""
    few, many = sorted((set(one.split()), set(other.split())), key=len)
    return few <= many


def split_units(one: str, other: str) -> tuple[tuple[str, str], tuple[str, str]]:
    """`split_unit` of both; a letter after a number, as in 5m, is a unit only beside a number."""
    texts, split = (one, other), (split_unit(one), split_unit(other))
    return tuple(
        (text, "") if _LETTER_AT_END.search(text) and number(split[1 - i][0]) is None else split[i]
        for i, text in enumerate(texts)
    )


def _unit(words: str) -> str:
    words = re.sub(r"\\cdot|\*|\\,", " ", words.replace(".", "")).strip()
    words = re.sub(r"\s*(?:/|\bper\b)\s*", "/", words)
    words = re.sub(r"\s*\^\{?(-?\d)\}?", r"^\1", words)
    words = re.sub(r"(?i)\b(?:square|sq)\s+([A-Za-z]+)", r"\1^2", words)
    words = re.sub(r"(?i)\b(?:cubic|cu)\s+([A-Za-z]+)", r"\1^3", words)
    words = re.sub(
        r"(?i)([A-Za-z]+)\s+(?:squared|cubed)", lambda m: m[1] + ("^2" if "squared" in m[0].lower() else "^3"), words
    )
    parts = re.sub(r"[^\W\d_]+", lambda match: _spelling(match[0]), words)
    return " ".join(part for part in parts.split() if not re.fullmatch(r"unit(\^\d)?", part))


def _spelling(word: str) -> str:
    low = word.lower()
    unit = _UNIT_OF_WORD.get(low) or _UNIT_OF_WORD.get(_singular(low)) or _singular(low)
    return _COMPOUND.get(unit, unit)


def _singular(word: str) -> str:
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if re.search(r"(?:[sxz]|[cs]h)es$", word):
        return word[:-2]
    return word[:-1] if word.endswith("s") and not word.endswith("ss") and len(word) > 2 else word
