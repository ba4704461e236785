"""Replies without the marks of Markdown, LaTeX, HTML and JSON that stand around what they say."""

import re
import unicodedata

_LATEX_GROUP = re.compile(
    r"\\+(?:text|boxed|fbox|mathrm|mathbf|mathsf|mathit|mathtt|textbf|textit|textrm|textsf|texttt|emph|underline|bm"
    r"|boldsymbol|mbox|operatorname|large|Large|color\{\w+\}|textcolor\{\w+\})\s*\{([^{}]*)\}"
)
_LATEX_MARKS = re.compile(
    r"\\+(?:left|right|displaystyle|quad|qquad|bf|rm|it|large|Large|LARGE|huge|Huge|Box)(?![A-Za-z])"
    r"|\\+[,;:! ()\[\]]|\\\\(?![A-Za-z])|~"
)
_MAX_NESTING = 4
# The letters of options in Arabic and Bengali, as in simple-evals' `normalize_extracted_answer`.
_OTHER_LETTERS = str.maketrans("أبجدঅবডঢ", "ABCDABCD")
_LONE_OTHER_LETTER = re.compile(r"(?<!\w)[أبجدঅবডঢ](?!\w)")


def plain_characters(text: str) -> str:
    """Letters and signs of full width, mathematical alphabets and circles as ASCII, those of other scripts as ours."""
    plain = []
    for character in text.replace("\r\n", "\n").replace("\r", "\n"):
        form = unicodedata.normalize("NFKC", character) if character > "\x7f" else character
        plain.append(form if len(form) == 1 and form < "\x7f" else character)
    return _LONE_OTHER_LETTER.sub(lambda match: match[0].translate(_OTHER_LETTERS), "".join(plain))


def plain_text(text: str) -> str:
    """Text without the marks of Markdown, LaTeX, HTML and JSON that may stand around a letter."""
    text = re.sub(r"\n ?\n[\n ]*", "\n\n", re.sub(r"[ \t]+", " ", text))
    text = re.sub(r"~~[^~\n]*~~", " ", text)
    text = re.sub(r"<\s*(?:final_?)?(?:answer|choice|option)\s*>", "\nanswer: ", text, flags=re.IGNORECASE)
    text = re.sub(r"<\s*/\s*(?:final_?)?(?:answer|choice|option)\s*>", "\n", text, flags=re.IGNORECASE)
    text = re.sub(r"<br\s*/?>|</?(?:p|div|li|h\d)\b[^<>]*>", "\n", text, flags=re.IGNORECASE)
    text = re.sub(r"</?(?:b|i|u|em|strong|span|mark|code|font|center|sub|sup)\b[^<>]*>", "", text, flags=re.IGNORECASE)
    text = re.sub(r"\\n(?![a-z])", "\n", text)
    for _ in range(_MAX_NESTING):
        text = _LATEX_GROUP.sub(r"\1", text)
    text = re.sub(r"\\+(?:text|math)[a-z]*[ ]+(?=[A-Z](?![A-Za-z]))", "", text)
    text = _LATEX_MARKS.sub(" ", text)
    text = re.sub(r"\\+([{}.])", r"\1", text)
    text = re.sub(r"\*+|`+|\$+|__|(?<!\w)_(?=\w)|(?<=[\w.!)\]])_(?!\w)", "", text)
    text = re.sub(r"[\"“”„«»]|(?<![A-Za-z])['‘’]|['‘’](?![A-Za-z])", "", text)
    text = re.sub(r"(?<=answer)[ \t]*\|", ":", text, flags=re.IGNORECASE)  # a row of a table
    return re.sub(r"^[ \t]*#+|#+[ \t]*$", "", text, flags=re.MULTILINE)
