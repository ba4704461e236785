r"""
One form for the many ways in which an answer is written: `canonical` is LaTeX that math-verify reads, with the same
meaning. `docs/verifier.md` names the benchmark whose checker has each rule.
"""

import re
import unicodedata

MAX_LENGTH = 400  # an answer with more characters is none

_SUPERSCRIPTS = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁽⁾ⁿⁱˣ", "0123456789+-()nix", strict=True))
_SUBSCRIPTS = dict(zip("₀₁₂₃₄₅₆₇₈₉₊₋₍₎ₙₓ", "0123456789+-()nx", strict=True))
_SUPERSCRIPT_RUN = re.compile(f"[{''.join(_SUPERSCRIPTS)}]+")
_SUBSCRIPT_RUN = re.compile(f"[{''.join(_SUBSCRIPTS)}]+")
# "omicron" is no command; the final sigma is \varsigma.
_GREEK = (
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi o pi rho varsigma sigma tau upsilon phi"
)
_CHARACTERS = str.maketrans(
    {
        **{chr(0x3B1 + i): rf"\{name} " for i, name in enumerate(f"{_GREEK} chi psi omega".split()) if name != "o"},
        **{chr(code): chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)},  # full-width ASCII
        **dict.fromkeys("−–—‒﹣－", "-"),
        **dict.fromkeys("⁄∕", "/"),
        **dict.fromkeys("·⋅∙•", r"\cdot "),
        **dict.fromkeys("×✕✖", r"\times "),
        **dict.fromkeys("°º˚", r"^{\circ}"),
        **dict.fromkeys("\u00a0\u2002\u2003\u2007\u2009\u200a\u202f\u3000", " "),
        **dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff", ""),
        **dict.fromkeys("“”„", '"'),
        **dict.fromkeys("‘’′", "'"),
        **{"。": ".", "、": ",", "∞": r"\infty ", "∅": r"\emptyset ", "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in "},
        **{"≤": r"\leq ", "⩽": r"\leq ", "≥": r"\geq ", "⩾": r"\geq ", "≠": r"\neq ", "≈": r"\approx ", "±": r"\pm "},
        **{"∠": r"\angle ", "⟨": "(", "⟩": ")", "√": r"\sqrt ", "∛": r"\sqrt[3]", "∜": r"\sqrt[4]", "÷": r"\div "},
    }
)

_ENDS = (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"), ("**", "**"), ("__", "__"), ("`", "`"), ('"', '"'))
_END_MARK = re.compile(r"(?<![.\\])(?<!\.[A-Za-z])[.,;:]$")  # not the dots of "…", "p.m."
_NO_MEANING = re.compile(
    r"\\(?:left|right|middle|[bB]igg?[lrm]?)(?![A-Za-z])\s*\.?"
    r"|\\(?:displaystyle|textstyle|bf(?:series)?|rm|it|sf|tiny|small|normalsize|large|Large|LARGE|huge|Huge)(?![A-Za-z])"
    r"|\\(?:text)?color\s*(?:\[[^\]]*\])?\s*\{[^{}]*\}"
    r"|(?<!\\)\\!"
)
_SPACE = re.compile(r"(?<!\\)\\[,;:> ]|\\(?:q?quad|(?:thin|med|thick|en)space)(?![A-Za-z])|(?<!\\)~|\s")
# A comma that LaTeX was told not to put a space after separates thousands, even within a tuple.
_THOUSANDS_COMMAND = re.compile(r"(?<=\d)(?:\{\s*,\s*\}|,\s*\\!|\\!\s*,|\\text\{,\})\s*(?=\d{3}(?!\d))")
_THOUSANDS = re.compile(r"(?<![\d.,])[1-9]\d{0,2}(?:,\d{3})+(?!\d|,\d)")
_THOUSANDS_SPACE = re.compile(r"(?<![\d.,}_^])(?<![\d}] )[1-9]\d{0,2}(?: \d{3})+(?! ?\d| ?/)")

# Commands whose argument stands for itself, and those that set it as text.
_WRAPPING = re.compile(
    r"\\(?:(?P<plain>math(?:bf|sf|it|normal)|boldsymbol|bm|pmb|underline|boxed|fbox|framebox|emph|large|bf)"
    r"|text(?:bf|rm|it|normal|sf|tt)?|[mh]box|mathrm)\s*(?=\{)"
)
TEXT = re.compile(r"\\text\{([^{}]*)\}")
# A letter after a number is its unit, if it is neither e nor i.
_TEXT_OF_MATHS = re.compile(
    r"\\text\{\s*([-+]?\d[\d.,/]*|[ei]|(?<![\d}c)]\\text\{)(?<![\d}c)]\\text\{ )[A-Za-z])\s*\}"
)
_END = r"(?![A-Za-z])"
_NAMES = [
    (re.compile(pattern), name)
    for pattern, name in (
        (rf"\\[dtc]frac{_END}", r"\\frac"),
        (rf"\\[dt]binom{_END}", r"\\binom"),
        (rf"\\varnothing{_END}|\\\{{\s*\\\}}|(?i:^(?:the )?empty set$)", r"\\emptyset "),
        (rf"\\(?:leqslant|leqq|le){_END}", r"\\leq "),
        (rf"\\(?:geqslant|geqq|ge){_END}", r"\\geq "),
        (rf"\\ne{_END}", r"\\neq "),
        (rf"\\lt{_END}", "<"),
        (rf"\\gt{_END}", ">"),
        (rf"\\lbrace{_END}", r"\\{"),
        (rf"\\rbrace{_END}", r"\\}"),
        (rf"\\langle{_END}", "("),
        (rf"\\rangle{_END}", ")"),
        (rf"\\(?:text)?degree{_END}|\^\s*\\circ{_END}|\^\s*\{{\s*\\circ\s*\}}", r"^{\\circ}"),
        (r"\\log_(?:e|\{e\})", r"\\ln "),
        (r"(?<=\d)\{:\}|\\colon(?![A-Za-z])", ":"),
        (r"(?i)\\text\{\s*((?:(?:negative|minus|positive|plus)\s+)?infinity|percent(?:age)?|pct|to)\s*\}", r" \1 "),
        (r"(?i)(?:\b(?:negative|minus)\s+|-\s*)(?<!\\)\binfinity\b", r"-\\infty "),
        (r"(?i)(?:\b(?:positive|plus)\s+|\+\s*)?(?<!\\)\binfinity\b", r"\\infty "),
        (r"^\s*\+\s*\\infty", r"\\infty"),
        (r"(?i)\s*(?<![A-Za-z\\])(?:percent(?:age)?|pct)\b", r"\\%"),
        (r"(?<!\\)%", r"\\%"),
        (r"(?<=\d)\s*\^?\s*\{?\s*(?:\\text\{\s*(?:st|nd|rd|th)\s*\}|(?:st|nd|rd|th)\b)\s*\}?$", ""),
        (r"^(\d+)\s*\bto\s*(\d+)$", r"\1:\2"),
        (r",?\s*(?:\b(?<!\\)(?:and|or)\b|\\text\{\s*(?:and|or)\s*\})\s*", ", "),
        # 1 1/4; but 2 3/4 of longer sums is left alone
        (r"^(-?\d+)\s+(\d+)\s*/\s*(\d+)$", r"\1\\frac{\2}{\3}"),
        (r"(?<![A-Za-z\d.])(\d+(?:\.\d*)?|\.\d+)[eE]([-+]?\d+)(?![A-Za-z\d])", r"\1\\times 10^{\2}"),
        (r"\\begin\{array\}(?:\{[^{}]*\})?|\\begin\{[bvB]?matrix\}", r"\\begin{pmatrix}"),
        (r"\\end\{array\}|\\end\{[bvB]?matrix\}", r"\\end{pmatrix}"),
    )
]
_TAKES_ARGUMENTS = re.compile(rf"\\(?P<name>[dtc]?frac|[dt]?binom|sqrt){_END}\s*(?P<index>\[[^\]]*\])?")


def canonical(text: str) -> str:
    r"""
    An answer without what has no meaning: other scripts' digits, characters that LaTeX has a command for, styles,
    sizes, colours, separators of thousands, marks at the end; and with braces around all arguments of `\frac`,
    `\binom` and `\sqrt`. Text of more than `MAX_LENGTH` characters is no answer and only loses its spaces.
    """
    if len(text) > MAX_LENGTH:
        return "".join(text.split())
    text = unwrapped(_in_latex(text))
    text = _NO_MEANING.sub("", _THOUSANDS_COMMAND.sub("", text))
    if not re.search(r"[(\[]|\\\{", text):  # (10,200) is a pair
        text = _THOUSANDS.sub(lambda match: match[0].replace(",", ""), text)
    text = _without_wrapping(_SPACE.sub(" ", text))
    text = unwrapped(_with_braces(_TEXT_OF_MATHS.sub(r"\1", text)))
    for pattern, name in _NAMES:
        text = pattern.sub(name, text)
    text = _THOUSANDS_SPACE.sub(lambda match: match[0].replace(" ", ""), text)
    return " ".join(unwrapped(text).split())


def unwrapped(text: str) -> str:
    """An answer without the marks of a formula, of bold type or of a quotation around it, and the stop at its end."""
    while True:
        inner = _END_MARK.sub("", text.strip()).strip()
        for start, end in _ENDS:
            if inner.startswith(start) and inner.endswith(end) and len(inner) > len(start) + len(end):
                content = inner[len(start) : -len(end)]
                if end not in content:
                    inner = content
                    break
        if inner.startswith("{") and closing_brace(inner, 0) == len(inner) - 1:
            inner = inner[1:-1]
        whole_text = TEXT.fullmatch(inner)
        inner = whole_text[1] if whole_text else inner
        if inner == text:
            return inner
        text = inner


def closing_brace(text: str, start: int) -> int | None:
    """Where the brace that opens at `start` is closed."""
    depth, position = 0, start
    while position < len(text):
        if text[position] == "\\":
            position += 1
        elif text[position] == "{":
            depth += 1
        elif text[position] == "}":
            depth -= 1
            if depth == 0:
                return position
        position += 1
    return None


def words(text: str) -> str:
    r"""
    Canonical text as plain words: without `\text`, quotation marks and articles, in lower case where it is a word.

    "AB" and "ab" stay apart, as products of variables and names of segments have to.
    """
    plain = re.sub(r"[\"'`*]", "", TEXT.sub(r" \1 ", text))
    plain = re.sub(r"^(?:the|an?)\s+(?=[A-Za-z]{3})", "", plain.strip(), flags=re.IGNORECASE)
    plain = re.sub(
        r"(?<![A-Za-z\\])(?:[A-Z][a-z]+|[A-Z]{4,}|YES|NO)(?![A-Za-z])", lambda match: match[0].lower(), plain
    )
    if not plain.isascii():
        plain = plain.casefold()
    return " ".join(_END_MARK.sub("", plain.strip()).split())


def _in_latex(text: str) -> str:
    text = "".join(_in_latex_one(char) for char in text) if not text.isascii() else text
    text = _SUPERSCRIPT_RUN.sub(lambda run: "^{" + "".join(map(_SUPERSCRIPTS.get, run[0])) + "}", text)
    text = _SUBSCRIPT_RUN.sub(lambda run: "_{" + "".join(map(_SUBSCRIPTS.get, run[0])) + "}", text)
    text = re.sub(r"√\s*\(([^()]*)\)", r"\\sqrt{\1}", text)
    text = re.sub(r"([√∛∜])\s*(\d+(?:\.\d+)?)", r"\1{\2}", text)
    return text.translate(_CHARACTERS)


def _in_latex_one(char: str) -> str:
    if char in _SUPERSCRIPTS or char in _SUBSCRIPTS or char.isascii():
        return char
    if unicodedata.decimal(char, None) is not None:
        return str(unicodedata.decimal(char))
    if unicodedata.name(char, "").startswith("VULGAR FRACTION"):
        above, _, below = unicodedata.normalize("NFKC", char).partition("⁄")
        return rf"\frac{{{above}}}{{{below}}}" if below else char
    return char


def _without_wrapping(text: str) -> str:
    # From the right, so that what is inside comes first.
    for match in reversed(list(_WRAPPING.finditer(text))):
        end = closing_brace(text, match.end())
        if end is not None:
            content = text[match.end() + 1 : end]
            wrapped = content if match["plain"] else rf"\text{{{content}}}"
            # A letter would become part of the command before it.
            glue = " " if match["plain"] and re.search(r"\\[A-Za-z]+$", text[: match.start()]) else ""
            text = text[: match.start()] + glue + wrapped + text[end + 1 :]
    return text


def _with_braces(text: str) -> str:
    for match in reversed(list(_TAKES_ARGUMENTS.finditer(text))):
        arguments, position = [], match.end()
        for _ in range(1 if match["name"] == "sqrt" else 2):
            argument, position = _argument(text, position)
            arguments.append(argument)
        if all(arguments):
            command = "\\" + match["name"] + (match["index"] or "")
            text = text[: match.start()] + command + "".join(arguments) + text[position:]
    return text


def _argument(text: str, start: int) -> tuple[str | None, int]:
    """TeX's next argument, with braces: a group, a command with its own arguments, or one character."""
    position = start + len(text[start:]) - len(text[start:].lstrip())
    end = position + 1
    if text[position : position + 1] == "{":
        closing = closing_brace(text, position)
        return (None, start) if closing is None else (text[position : closing + 1], closing + 1)
    command = re.compile(r"\\[A-Za-z]+(?:\[[^\]]*\])?").match(text, position)
    if command:
        end = command.end()
        while text[end : end + 1] == "{" and (closing := closing_brace(text, end)) is not None:
            end = closing + 1
    argument = text[position:end]
    return (None, start) if argument in ("", "}", "\\", "^", "_", "&") else (f"{{{argument}}}", end)
