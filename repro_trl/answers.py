"""From the ground-truth column to the answer's text, and from a completion to a verdict on its answer."""

import functools
import itertools
import math
import re
import string
from dataclasses import dataclass
from decimal import Decimal

from trl.rewards import accuracy_reward as trl_accuracy_reward

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

_PLACEHOLDER = re.compile(r"(?P<open>\{+)answer(?P<close>\}+)")
# Braces that follow are this command's argument.
_TAKES_ARGUMENT = re.compile(r"(\\[A-Za-z]+\s*|[_^])$")

# math-verify needs half a second for ten nested brackets and more than ten seconds for fourteen, and a derailed policy
# writes more than that.
_MAX_NESTING = 10


def extract_answer(solution: str | int | float | None) -> str | None:
    r"""
    The bare answer in a ground-truth value, as text. The first rule that applies decides:

    1. `None`, NaN, an infinity or blank text: no answer.
    2. A number: its decimal digits (27.0 → "27", 0.5 → "0.5").
    3. Text with `\boxed{…}`, `\fbox{…}` or `\framebox{…}`: the content of the last one that is closed and not empty.
       Without braces (`\boxed 5$`) it is the rest of the formula.
    4. Text with GSM8K's `#### N`: the last N, to the end of its line, without a leading `$` and, when it is a number
       such as 1,450, without commas.
    5. Text whose boxes are all empty or not closed (it was cut off): no answer.
    6. Any other text is the answer itself, without the `$…$` or `$$…$$` around the whole of it.

    Returns:
        The answer without surrounding white space, never empty, or `None` where there is none.

    Raises:
        ValueError: a value of any other type. That includes bool: the data has to say whether such an answer reads
            "True" or "yes".
    """
    if solution is None:
        return None
    if isinstance(solution, bool) or not isinstance(solution, (str, int, float)):
        raise ValueError(
            f"A ground truth must be text, a number or None, got {solution!r} ({type(solution).__name__}): turn the "
            "dataset's column into text."
        )
    if isinstance(solution, str):
        return _answer_in_text(solution.strip())
    if not math.isfinite(solution):
        return None
    # Through Decimal, for repr writes small and large numbers as 1e-07 and 1e+22.
    return str(int(solution)) if solution == int(solution) else format(Decimal(str(solution)), "f")


def _answer_in_text(text: str) -> str | None:
    box = last_box(text)
    if box is not None:
        return box
    lines = _GSM8K_ANSWER.findall(text)
    if lines:
        answer = lines[-1].strip().removeprefix("$").strip()
        return answer.replace(",", "") if _GROUPED_NUMBER.fullmatch(answer) else answer or None
    if re.search(rf"{_BOX}\s*\{{", text):
        return None
    formula = _WHOLE_FORMULA.fullmatch(text)
    return (formula[2] if formula else text).strip() or None


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
        message = (
            f"repro_answer_template={template!r}: {problem}. Literal braces are doubled, those of {{answer}} not."
        )
        fixed = _fixed_template(template)
        raise ValueError(message if fixed is None else f"{message} Perhaps you mean {fixed} (in Python: {fixed!r}).")


def _template_problem(template: str) -> str | None:
    try:
        fields = [field for _, *field in string.Formatter().parse(template) if field[0] is not None]
    except ValueError as error:
        return f"str.format cannot read it ({error})"
    if fields != [["answer", "", None]]:
        return "its only placeholder must be {answer}, once and as it stands"
    before, after = template.format(answer="\0").split("\0")
    command = _TAKES_ARGUMENT.search(before)
    if command:
        return f"{command[0].strip()} would be followed by the bare answer, without braces around it"
    depths = list(itertools.accumulate((brace == "{") - (brace == "}") for brace in _braces(before + after)))
    if depths and (min(depths) < 0 or depths[-1] != 0):
        return "the braces around the answer do not pair up"
    return None


def _braces(text: str) -> list[str]:
    return re.findall(r"(?<!\\)[{}]", text)


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


def verify_answer(completion: str, answer: str | None, think_end: str | None = "</think>") -> bool | None:
    r"""
    Whether a completion's answer is the given one.

    The answer is the completion's last `\boxed{…}`, compared as text and then by math-verify; without a box, what
    math-verify finds in phrases such as "the final answer is $5$". In the main thread math-verify gives up after some
    seconds; in others it has no time limit.

    Args:
        completion: generated text. Empty text is wrong.
        answer: as `extract_answer` returns it. Where math-verify cannot read it, only the same text is right.
        think_end: what follows the last such marker is judged; the whole text where there is none, or for `None`.

    Returns:
        The verdict; `None` where there is no answer.
    """
    if answer is None:
        return None
    conclusion = completion.rpartition(think_end)[2] if think_end else completion
    box = last_box(conclusion)
    if box is None:
        # math-verify looks for the same word before an unboxed formula, but long junk stalls it.
        return "answer" in conclusion.lower() and _equivalent(conclusion, answer)
    if box == answer:
        return True
    return _nesting(box) <= _MAX_NESTING and _equivalent(rf"\boxed{{{box}}}", answer)


def _nesting(text: str) -> int:
    return max(itertools.accumulate((char in "{[(") - (char in "}])") for char in text), default=0)


# A small model gives the same few answers over and over, at a millisecond or more each.
@functools.lru_cache(maxsize=1024)
def _equivalent(text: str, answer: str) -> bool:
    # TRL's reward takes several boxes in one text for a set of answers: it is given one only.
    return trl_accuracy_reward([[{"role": "assistant", "content": text}]], [rf"\boxed{{{answer}}}"]) == [1.0]


def accuracy_reward(
    completions: list[str] | list[list[dict]],
    solution: list[str | int | float | None],
    think_end: str | None = "</think>",
    **kwargs,
) -> list[float | None]:
    r"""
    Reward function for TRL trainers: 1.0 where the completion's answer is the ground truth, else 0.0.

    Unlike `trl.rewards.accuracy_reward`, which it calls for the comparison, it takes plain text as well as
    conversational completions, every form of ground truth that `extract_answer` reads, and judges the last box alone.

    Args:
        completions: texts, or lists of messages of which the last one is judged.
        solution: ground truths, one per completion.
        think_end: see `verify_answer`.
        **kwargs: the trainer's other columns, unused.

    Returns:
        One reward per completion; `None` (not counted by TRL) where there is no ground truth.
    """
    verdicts = [
        verify_answer(_final_text(completion), extract_answer(gold), think_end)
        for completion, gold in zip(completions, solution, strict=True)
    ]
    return [None if verdict is None else float(verdict) for verdict in verdicts]


def _final_text(completion: str | list[dict]) -> str:
    if isinstance(completion, str):
        return completion
    # A rollout may end in a tool's output, which is not the policy's answer, or in a call of one, without content.
    if not completion or completion[-1].get("role", "assistant") != "assistant":
        return ""
    return completion[-1].get("content") or ""


def make_accuracy_reward(answer_column: str = "solution", think_end: str | None = "</think>") -> "_AccuracyReward":
    """
    `accuracy_reward` for a ground truth in another column, or for another end-of-thinking marker.

    Returns:
        A reward function that TRL logs as "accuracy_reward". It raises a `ValueError` where the column is missing.
    """
    return _AccuracyReward(answer_column, think_end)


@dataclass(frozen=True)
class _AccuracyReward:
    # A class and not a closure: it can be pickled, which trainers with a rollout process of their own need.
    answer_column: str
    think_end: str | None

    __name__ = "accuracy_reward"

    def __call__(self, completions: list[str] | list[list[dict]], **columns) -> list[float | None]:
        if self.answer_column not in columns:
            raise ValueError(
                f"answer_column={self.answer_column!r} is not among the columns given to the reward function, "
                f"{sorted(columns)}: name the column with the ground truth."
            )
        return accuracy_reward(completions, columns[self.answer_column], self.think_end)
