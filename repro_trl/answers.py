"""Ground-truth values and completions to the bare answer; the text that is scored. Loads no other package."""

import itertools
import math
import numbers
import re
import string
from decimal import Decimal
from typing import Protocol, runtime_checkable

DEFAULT_ANSWER_TEMPLATE = r"\boxed{{{answer}}}"

_BOX = r"\\\\?(?:boxed|fbox|framebox)(?![A-Za-z])"  # with two backslashes in text that was escaped twice
# A box command with its opening brace or its unbraced content, an escaped character, or a brace. Unbraced content ends
# where the formula does, or is a number; its first character tells it from prose about "\boxed".
_BOX_TOKEN = re.compile(
    rf"{_BOX}(?:\s*(?P<open>\{{)"
    r"|[ \t]+(?=[-+.(\d\\]|[A-Za-z]\b)(?P<formula>[^$\n]{1,200}?)[ \t]*(?:\$|\\\)|\\\])"
    r"|[ \t]+(?P<number>-?[\d.,]*\d))?"
    r"|\\."
    r"|[{}]",
    re.DOTALL,
)
_GSM8K_ANSWER = re.compile(r"(?<!#)####(?!#)[ \t]*(\S[^\n]*)")
_GROUPED_NUMBER = re.compile(r"[-+]?\d{1,3}(,\d{3})+(\.\d+)?")
_WHOLE_FORMULA = re.compile(r"(\$\$?)((?:[^$\\]|\\.)+)\1", re.DOTALL)
_BOLD = re.compile(r"(\*\*|__)((?:(?!\1).)+)\1", re.DOTALL)
_STOP = re.compile(r"(?<![.\\])(?<!\.[A-Za-z])[.。]$")  # not the dots of "…", "p.m."
_FULL_WIDTH = str.maketrans({chr(code): chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)})
_NO_ANSWER = set("nan,none,null,n/a,#n/a,n.a.,<na>,notfound,not found,not_found,no answer,proof".split(","))
_QUOTED = r"""(["'])((?:\\.|(?!\{})[^\\])*)\{}"""
_LIST = re.compile(
    rf"\[\s*{_QUOTED.format(1, 1)}(?:\s*,\s*{_QUOTED.format(3, 3)})*\s*\]|\[\s*(-?\d+(?:\.\d+)?)\s*\]", re.DOTALL
)
_ENTRY = re.compile(_QUOTED.format(1, 1), re.DOTALL)

_TAGGED = re.compile(r"<answer>\s*((?:(?!</?answer>).)*?)\s*</answer>", re.DOTALL | re.IGNORECASE)
# "The answer is", "**Final Answer**:", "answer to the question is", or "Final Answer" alone on a line.
_STATEMENT = (
    r"(?:(?<![A-Za-z])answer\b(?:(?!\bnot\b|n't)[^.\n?!$\d:=：]){0,60}?[*_ \t]*"
    r"(?:\b(?:is|equals|(?:should|must|will|would) be)\b(?!n't|[ \t]+not\b)[*_ \t]*[:：]?|[:：=])"
    r"|^[#*_> \t]*(?:the[ \t]+)?(?:final|correct)?[ \t]*answer[*_#: \t]*$)"
)
_STATED = re.compile(_STATEMENT, re.IGNORECASE | re.MULTILINE)
# As OpenAI's simple-evals read the answers of MGSM.
_STATED_IN_ANY_LANGUAGE = re.compile(
    rf"{_STATEMENT}"
    r"|(?:(?:最终)?答案(?:是|为)?|答え|정답|Ответ|Respuesta|Resposta|Réponse|Antwort|Risposta)"
    r"(?:[ \t*]*[:：]|(?<=[是为]))",
    re.IGNORECASE | re.MULTILINE,
)
_FORMULA = re.compile(r"(\$\$?|\\\(|\\\[)\s*(.+?)\s*(?:\$\$?|\\\)|\\\])", re.DOTALL)
_MANNER = re.compile(
    r"(?:(?:therefore|thus|then|hence|simply|just|indeed|clearly|obviously|exactly|now|given by|equal to|found to be)"
    r"[ \t,:]+)+",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(
    r"(?<![.\s])[.!](?=[\s*_\"')]|$)|。|[;,]?\s+(?:because|since|as|which|where|when|so|I hope)\b|\n"
)

_PLACEHOLDER = re.compile(r"(?P<open>\{+)answer(?P<close>\}+)")
# Braces that follow are this command's argument.
_TAKES_ARGUMENT = re.compile(r"(\\[A-Za-z]+\s*|[_^])$")


def extract_answer(solution: object) -> str | None:
    r"""
    The bare answer in a ground-truth value, as text. The first rule that applies decides:

    1. `None`, NaN, an infinity or blank text: no answer. So are "nan", "None", "null", "N/A", "notfound" and "proof".
    2. A number, Python's, NumPy's, PyTorch's or a `Decimal`: its decimal digits (27.0 → "27", 0.5 → "0.5").
    3. A list: its entries by these rules, with commas between them; empty, it is no answer.
    4. Text with `\boxed{…}`, `\fbox{…}` or `\framebox{…}`: the content of the last one that is closed and not empty.
       Without braces (`\boxed 5$`) it is the rest of the formula.
    5. Text with GSM8K's `#### N`: the last N, to the end of its line, without a leading `$` and, when it is a number
       such as 1,450, without commas. N is a number, or the text's last line; other lines with `####` are headings.
    6. Text whose boxes are all empty or not closed (it was cut off): no answer.
    7. Text with `<answer>…</answer>`: the content of the last one.
    8. Text with "Answer:", "The answer is" or the like in its last two lines: what follows.
    9. Text that is a list (`["3"]`, `['3']`, `[3]`): as 3.
    10. Any other text is the answer itself, without a `$…$`, `$$…$$` or `**…**` around all of it and without a full
        stop at its end; full-width characters (１２) become ASCII.

    Returns:
        The answer without surrounding white space, never empty, or `None` if there is none.

    Raises:
        ValueError: a value of any other type. That includes bool: the data must say whether such an answer is "True"
            or "yes".
    """
    if isinstance(solution, _Array):
        # NumPy and PyTorch; a number in single precision has fewer digits than Python would write.
        import numpy

        array = numpy.asarray(solution)
        solution = Decimal(str(array[()])) if array.ndim == 0 and array.dtype.kind == "f" else array.tolist()
    if solution is None:
        return None
    if isinstance(solution, str):
        return _answer_in_text(solution.strip())
    if isinstance(solution, (list, tuple)):
        return ", ".join(filter(None, map(extract_answer, solution))) or None
    if isinstance(solution, bool) or not isinstance(solution, (numbers.Real, Decimal)):
        keys = f" with the keys {sorted(map(str, solution))}" if isinstance(solution, dict) else f", {solution!r}"
        raise ValueError(
            f"A ground truth must be text, a number, a list of these or None, got {type(solution).__name__}{keys}: "
            "convert the dataset's column to text, or name the field that has the answer."
        )
    return _digits(solution)


@runtime_checkable
class _Array(Protocol):
    def tolist(self) -> object: ...

    def __array__(self) -> object: ...


def _digits(value: numbers.Real | Decimal) -> str | None:
    if isinstance(value, numbers.Integral):
        return str(Decimal(int(value)))  # which has no limit on digits, unlike `str(value)`
    if not math.isfinite(value):
        return None
    if isinstance(value, numbers.Rational):
        return str(value)
    # Through Decimal, for repr writes small and large numbers as 1e-07 and 1e+22.
    return str(int(value)) if value == int(value) else format(Decimal(str(value)), "f")


def _answer_in_text(text: str) -> str | None:
    box = last_box(text)
    if box is not None:
        return box
    line = _gsm8k_answer(text)
    if line is not None:
        return _bare(line)
    if re.search(rf"{_BOX}\s*\{{", text):
        return None
    return _bare(_tagged_answer(text) or _statement(text) or text)


def _bare(text: str) -> str | None:
    text = text.strip()
    for pattern in (_BOLD, _WHOLE_FORMULA, _BOLD):
        whole = pattern.fullmatch(text)
        text = whole[2].strip() if whole else text
    if text.translate(_FULL_WIDTH).isascii():
        text = text.translate(_FULL_WIDTH)
    text = _STOP.sub("", text).strip()
    if text.casefold() in _NO_ANSWER or text == "NA":
        return None
    if text.startswith("[") and _LIST.fullmatch(text):
        return ", ".join(filter(None, (_bare(entry) for entry in _entries(text)))) or None
    return text or None


def _entries(text: str) -> list[str]:
    entries = [match[2] for match in _ENTRY.finditer(text)]
    if not entries:
        return [text[1:-1]]
    # JSON and Python double a backslash; LaTeX that was pasted in does not.
    is_escaped = not any(len(run) % 2 for run in re.findall(r"\\+", text))
    return [entry.replace(r"\\", "\\") for entry in entries] if is_escaped else entries


def _statement(text: str) -> str | None:
    """What the last two lines state to be the answer: a heading and what is below it, or a sentence."""
    lines = [line for line in text.splitlines() if line.strip()]
    return stated_answer("\n".join(lines[-2:]), _STATED)


def given_answer(conclusion: str) -> str | None:
    """The answer that a completion gives: its last box, or else what it states as its answer."""
    box = last_box(conclusion)
    return stated_answer(conclusion) if box is None else box


def stated_answer(text: str, statement: re.Pattern[str] = _STATED_IN_ANY_LANGUAGE) -> str | None:
    """
    What follows the last "The answer is", "Final answer:", a heading that says so, GSM8K's `####`, or stands between
    `<answer>` and `</answer>`; up to the end of the sentence. `None` where there is nothing of the kind.
    """
    tagged = _tagged_answer(text)
    if tagged:
        return tagged
    end = max((match.end() for match in statement.finditer(text)), default=None)
    return _gsm8k_answer(text) if end is None else _content(text, end)


def _tagged_answer(text: str) -> str | None:
    return next(filter(None, reversed(_TAGGED.findall(text))), None)


def _gsm8k_answer(text: str) -> str | None:
    lines = list(_GSM8K_ANSWER.finditer(text))
    if not lines:
        return None
    answer = lines[-1][1].strip()
    number = answer.strip("*_").removeprefix("$").strip()
    is_number = re.fullmatch(r"[-+]?[\d.,]*\d\.?", number) is not None
    if not is_number and (
        text[lines[-1].end() :].strip() or re.search(r"(?i)\b(?:solution|answer|explanation|step)\W*$", answer)
    ):
        return None  # a heading
    if _GROUPED_NUMBER.fullmatch(number):
        return number.replace(",", "")
    stated = _STATED.search(answer)
    return (answer[stated.end() :].strip() if stated else number) or None


def _content(text: str, start: int) -> str | None:
    content = _MANNER.sub("", text[start : start + 1000].lstrip(" \t\n*_:#"), count=1).lstrip(" \t*_")
    formula = _FORMULA.match(content)
    end = formula.end() if formula else 0
    stop = _SENTENCE_END.search(content, end)
    rest = content[end : stop.start() if stop else None]
    if formula is None:
        answer = rest
    # With one more number or formula in the sentence it is not clear which one is meant.
    elif re.search(r"[\d$\\]|\b(?:or|and|not)\b", rest):
        answer = content[: end + len(rest)]
    else:
        answer = formula[2]
    # A box in it is one that was cut off.
    return None if re.search(_BOX, answer) else answer.strip(" \t\n*_") or None


def last_box(text: str) -> str | None:
    """Content of the closed, non-empty box that begins last; in time linear in the text."""
    spans: list[tuple[int, int]] = []
    open_braces: list[int | None] = []  # where a box's content begins; None for any other brace
    for token in _BOX_TOKEN.finditer(text):
        if token["open"]:
            open_braces.append(token.end())
        elif token["formula"]:
            spans.append(token.span("formula"))
        elif token["number"]:
            spans.append(token.span("number"))
        elif token[0] == "{":
            open_braces.append(None)
        elif token[0] == "}" and open_braces:
            start = open_braces.pop()
            if start is not None:
                spans.append((start, token.start()))
    contents = (text[start:end].strip() for start, end in sorted(spans, reverse=True))
    return next(filter(None, contents), None)


def answer_text(answer: str, template: str = DEFAULT_ANSWER_TEMPLATE) -> str:
    r"""
    The text whose likelihood is scored (METHOD §1): `template.format(answer=answer)`.

    Raises:
        ValueError: see `validate_answer_template`.
    """
    validate_answer_template(template)
    return template.format(answer=answer)


def validate_answer_template(template: str) -> None:
    r"""
    Refuse a template that `str.format` would not turn into what its author sees.

    A template holds `{answer}` once and every other brace doubled: `\boxed{{{answer}}}` gives `\boxed{42}`,
    `\text{{Answer: }} {answer}` gives `\text{Answer: } 42`. Of the slips that LaTeX invites only one fails by itself
    (`\text{Answer: } {answer}`, which asks for a field "Answer"); `\boxed{answer}` would give `\boxed42` and
    `\boxed{{answer}}` the word `\boxed{answer}`.

    Raises:
        ValueError: with the template as it should be written, where that can be told.
    """
    problem = _template_problem(template)
    if problem is not None:
        message = f"repro_answer_template={template!r}: {problem}. Double literal braces, but not those of {{answer}}."
        fixed = _fixed_template(template)
        raise ValueError(message if fixed is None else f"{message} Perhaps you mean {fixed} (in Python: {fixed!r}).")


def _template_problem(template: str) -> str | None:
    try:
        fields = [field for _, *field in string.Formatter().parse(template) if field[0] is not None]
    except ValueError as error:
        return f"str.format cannot read it ({error})"
    if fields != [["answer", "", None]]:
        return "its only placeholder must be {answer}, used once and without a format"
    before, after = template.format(answer="\0").split("\0")
    command = _TAKES_ARGUMENT.search(before)
    if command:
        return f"{command[0].strip()} would be followed by the bare answer, without braces around it"
    braces = re.findall(r"(?<!\\)[{}]", before + after)
    depths = list(itertools.accumulate((brace == "{") - (brace == "}") for brace in braces))
    if depths and (min(depths) < 0 or depths[-1] != 0):
        return "the braces around the answer do not pair up"
    return None


def _fixed_template(template: str) -> str | None:
    placeholders = list(_PLACEHOLDER.finditer(template))
    if len(placeholders) != 1:
        return None
    own = min(len(placeholders[0]["open"]), len(placeholders[0]["close"]))
    before = template[: placeholders[0].end("open") - own]
    after = template[placeholders[0].start("close") + own :]
    placeholder = "{{{answer}}}" if _TAKES_ARGUMENT.search(before) else "{answer}"
    doubled_before, doubled_after = (text.replace("{", "{{").replace("}", "}}") for text in (before, after))
    candidates = (before + placeholder + after, doubled_before + placeholder + doubled_after)
    return next((candidate for candidate in candidates if _template_problem(candidate) is None), None)
