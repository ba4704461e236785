"""
Which columns hold problem, completion and answer: one list, one order and one rule for training and all commands.

A name is looked up without regard to case. A dot leads into a nested column: `reward_model.ground_truth` is the field
`ground_truth` of the column `reward_model`, which may be a dict, or text that holds one as JSON (or as Python prints
it); in a list the field is an index, counted from 0. A column whose own name has the dot goes first.
"""

import ast
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from .answers import extract_answer

PROBLEM_COLUMNS = ("prompt", "problem", "question")
"""Columns that may hold the problem, the first there is."""
COMPLETION_COLUMNS = ("completion", "completions", "response", "responses")
"""Columns that may hold what a model wrote, the first there is."""
ANSWER_COLUMNS = (
    "repro_answer",  # in TRL's completions table, written by the trainers of this package
    "answer",
    "final_answer",
    "expected_answer",
    "gt_answer",
    "ground_truth",
    "reward_model.ground_truth",  # verl, DAPO-Math-17k, Skywork-OR1
    "verification_info.ground_truth",  # SYNTHETIC-1
    "verification_info.answer",
    "extra_info.answer",
    "solution",  # TRL's name for the answer; beside an answer, a worked text
)
"""Columns that may hold the ground truth, the first that holds answers (see `find_answer_column`)."""

MAX_ANSWER_CHARACTERS = 200
"""Longer text is no answer but a worked solution: sets, matrices and systems of equations are shorter."""
MAX_ANSWER_TOKENS = 256
"""Tokens of an answer that are scored, so that a text which is no answer cannot hold up a run."""

_GROUND_TRUTH_NAME = re.compile(r"answer|solution|truth|target|label|gold|reference|\bgt\b", re.IGNORECASE)
_SENTENCE_BREAK = re.compile(r"[A-Za-z\d)}$][.!?]\s+[A-Z$\\]|\n\s*\n")
_MIN_WORDS_OF_SENTENCES = 8  # "St. Louis" is none
_MAX_DEPTH = 3


def find_column(rows: Sequence[Mapping[str, Any]], usual: Iterable[str]) -> str | None:
    """The first of the usual names that any of the rows has, as the rows spell it; `None` where there is none."""
    return next(iter(find_columns(rows, usual)), None)


def find_columns(rows: Sequence[Mapping[str, Any]], usual: Iterable[str]) -> list[str]:
    """All of the usual names that any of the rows has, in their order, as the rows spell them."""
    found = (next((path for row in rows if (path := _resolve(row, name)) is not None), None) for name in usual)
    return [path for path in found if path is not None]


def find_answer_column(rows: Sequence[Mapping[str, Any]]) -> str | None:
    """
    The column that holds the ground truth: of those in `ANSWER_COLUMNS`, in their order, the first that has answers,
    most of them short enough to be one; where none has, the first there is. Its name is dotted where it is nested, and
    `None` where no row has such a column.

    So the answer is taken where a worked solution stands beside it, whatever the two are called. Take enough of a
    dataset's first rows, and the same ones on every process.
    """
    present = find_columns(rows, ANSWER_COLUMNS)
    return next((name for name in present if _holds_answers(rows, name)), present[0] if present else None)


def _holds_answers(rows: Sequence[Mapping[str, Any]], name: str) -> bool:
    try:
        answers = [answer for row in rows if (answer := read_answer(row, name)) is not None]
    except ValueError:
        return False
    return sum(map(is_worked_text, answers)) * 2 < len(answers)


def is_worked_text(answer: str) -> bool:
    """Whether a text is longer than an answer can be: in characters, or because it is made of sentences."""
    if len(answer) > MAX_ANSWER_CHARACTERS:
        return True
    return _SENTENCE_BREAK.search(answer) is not None and len(answer.split()) >= _MIN_WORDS_OF_SENTENCES


def has_column(row: Mapping[str, Any], name: str) -> bool:
    """Whether a row has a column, or a nested one by its dotted name. The value may be `None`."""
    return _walk(row, name) is not None


def read_column(row: Mapping[str, Any], name: str) -> Any:
    """The value of a column, or of a nested one by its dotted name; `None` where the row has none."""
    found = _walk(row, name)
    return None if found is None else found[0]


def read_answer(row: Mapping[str, Any], name: str) -> str | None:
    """
    The bare answer in a column of a row (see `extract_answer`); `None` where there is none. A `ValueError` names the
    column whose value cannot be an answer, such as a dict.
    """
    value = read_column(row, name)
    if isinstance(value, Mapping):
        paths = ", ".join(repr(f"{name}.{path}") for path in column_paths(value))
        raise ValueError(f"column {name!r} has dicts as values. Name one of their fields: {paths}.")
    try:
        return extract_answer(value)
    except ValueError as error:
        raise ValueError(f"column {name!r}: {error}") from None


def column_paths(row: Mapping[str, Any]) -> list[str]:
    """All names that a row can be read by: its columns, and the fields of nested ones, dotted."""
    return list(_paths(row, "", 1))


def ground_truth_paths(row: Mapping[str, Any]) -> list[str]:
    """Those of `column_paths` that sound as if they held a ground truth."""
    paths = column_paths(row)
    nested = {path.rpartition(".")[0] for path in paths}
    return [path for path in paths if path not in nested and _GROUND_TRUTH_NAME.search(path)]


def _paths(value: Mapping[str, Any], prefix: str, depth: int) -> Iterator[str]:
    for key in value:
        yield f"{prefix}{key}"
        fields = fields_of(value[key])
        if isinstance(fields, Mapping) and depth < _MAX_DEPTH:
            yield from _paths(fields, f"{prefix}{key}.", depth + 1)


def _walk(value: Any, name: str) -> tuple[Any] | None:
    """The value under a dotted name in a tuple of one, or `None`."""
    fields = fields_of(value)
    if isinstance(fields, Mapping):
        if name in fields:
            return (fields[name],)
        heads = [name[: dot.start()] for dot in re.finditer(r"\.", name)]
        head = next((head for head in heads if head in fields), None)
        return None if head is None else _walk(fields[head], name[len(head) + 1 :])
    if isinstance(fields, Sequence):
        head, _, rest = name.partition(".")
        if head.isdecimal() and int(head) < len(fields):
            item = fields[int(head)]
            return _walk(item, rest) if rest else (item,)
    return None


def _resolve(value: Any, name: str) -> str | None:
    """A usual name as the row spells it."""
    fields = fields_of(value)
    if not isinstance(fields, Mapping):
        return None
    spelled = {str(key).lower(): str(key) for key in reversed(list(fields))}
    if name in fields or name in spelled:
        return name if name in fields else spelled[name]
    head, _, rest = name.partition(".")
    if not rest or head not in spelled:
        return None
    below = _resolve(fields[spelled[head]], rest)
    return None if below is None else f"{spelled[head]}.{below}"


def fields_of(value: Any) -> Any:
    """A dict or list, or the one that a text holds as JSON or as Python prints it; `None` for anything else."""
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        for read in (json.loads, ast.literal_eval):
            try:
                value = read(value.strip())
                break
            except (ValueError, SyntaxError, RecursionError, MemoryError):
                continue
    return value if isinstance(value, (Mapping, list, tuple)) else None
