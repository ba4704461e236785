"""Rows of prompts, completions and answers, from a file or a dataset: checked, in the forms TRL knows."""

import dataclasses
import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from ..answers import extract_answer
from ..columns import COMPLETION_COLUMNS, PROBLEM_COLUMNS, find_answer_column, find_column, has_column, read_column
from ..messages import Messages, completion_text, prompt_text
from ..row_files import RowFileError, scan_rows

HEAD = 20
"""Rows that tell what a source is, for the first ones may be broken."""


@dataclass(frozen=True)
class Columns:
    """
    Names of the columns to read, dotted where they are nested; `None`: the first there is of the usual names. Where no
    answer column was asked for, `usual_answer` is that of the source as a whole; a row without it is read by the usual
    names.
    """

    prompt: str | None = None
    completion: str | None = None
    answer: str | None = None
    usual_answer: str | None = None


@dataclass(frozen=True)
class Row:
    """
    One checked row.

    Attributes:
        place: its source and number there, for messages.
        record: the row as it was read.
        completions: texts; empty where none were asked for.
        has_list: whether the row has a list of completions rather than a single one.
        answer: bare ground truth.
    """

    place: str
    record: dict[str, Any]
    prompt: str | Messages
    completions: list[str]
    has_list: bool
    answer: str | None


class AnswerBook:
    """
    Ground truths by problem, from rows of problems, for completions that were logged without them. A prompt is taken
    for the longest problem that it contains.
    """

    def __init__(self, rows: Iterable["Row"]) -> None:
        self._answers = {_problem_text(row.prompt): row.answer for row in rows}
        self._by_length = sorted(self._answers, key=len, reverse=True)

    def find(self, prompt: str | Messages) -> str | None:
        """The ground truth of a prompt; a `ValueError` if no problem is part of it."""
        text = _problem_text(prompt)
        problem = text if text in self._answers else next((known for known in self._by_length if known in text), None)
        if problem is None:
            raise ValueError("its prompt contains none of the problems with a ground truth")
        return self._answers[problem]


def _problem_text(prompt: str | Messages) -> str:
    return prompt if isinstance(prompt, str) else prompt_text(prompt[-1:])


Record = tuple[str, Any]
"""What was read, after its source and number there; an error in the place of what cannot be read."""


def scan(file: Path) -> Iterator[Record]:
    """The records of a file."""
    for row in scan_rows(file):
        yield (str(file), row) if isinstance(row, RowFileError) else (row.place, row.record)


def begin(records: Iterator[Record], columns: Columns) -> tuple[list[Any], Columns, Iterator[Record]]:
    """The first records of a source without their places, its columns, and all of its records."""
    head = list(itertools.islice(records, HEAD))
    first = [record for _, record in head]
    usual_answer = find_answer_column([record for record in first if isinstance(record, dict)])
    return first, dataclasses.replace(columns, usual_answer=usual_answer), itertools.chain(head, records)


def check_row(
    place: str, record: Any, columns: Columns, with_completions: bool = True, answers: AnswerBook | None = None
) -> Row | RowFileError:
    """
    The row in a record, or why there is none.

    Args:
        place, record: see `Record`.
        with_completions: whether it must have completions.
        answers: where the ground truth is looked up; by default in the record.
    """
    if isinstance(record, RowFileError):
        return record
    try:
        if not isinstance(record, dict):
            raise ValueError(f"not an object but {_kind(record)}")
        column = columns.prompt or find_column([record], PROBLEM_COLUMNS)
        prompt = _check_prompt(*_value(record, column, "prompt", columns.prompt))
        has_list, completions = False, []
        if with_completions:
            column = columns.completion or find_column([record], COMPLETION_COLUMNS)
            has_list, completions = _check_completions(*_value(record, column, "completion", columns.completion))
        if answers is not None:
            answer = answers.find(prompt)
        else:
            column = columns.answer or _answer_column(record, columns)
            answer = _check_answer(*_value(record, column, "answer", columns.answer))
    except ValueError as error:
        return RowFileError(f"{place}: {error}")
    return Row(place, record, prompt, completions, has_list, answer)


def has_completions(record: Any, columns: Columns) -> bool:
    """Whether a row has a column of completions."""
    if not isinstance(record, dict):
        return False
    if columns.completion:
        return has_column(record, columns.completion)
    return find_column([record], COMPLETION_COLUMNS) is not None


def groups(rows: Iterator[Row]) -> Iterator[list[Row]]:
    """Rows that follow each other and have the same prompt belong together: its completions are one group."""
    return (list(group) for _, group in itertools.groupby(rows, key=lambda row: row.prompt))


def _value(record: dict[str, Any], column: str | None, kind: str, asked: str | None) -> tuple[str, Any]:
    if column is not None and has_column(record, column):
        return column, read_column(record, column)
    fields = ", ".join(map(repr, record)) or "none"
    if asked:
        raise ValueError(f"no {kind}: {asked!r} is not among its fields, {fields}")
    raise ValueError(f"no {kind}: none of its fields, {fields}, has a usual name; --{kind}_column names one")


def _answer_column(record: dict[str, Any], columns: Columns) -> str | None:
    usual = columns.usual_answer
    return usual if usual is not None and has_column(record, usual) else find_answer_column([record])


def _check_answer(name: str, value: Any) -> str | None:
    try:
        answer = extract_answer(value)
    except ValueError:
        raise ValueError(f"{name!r} must be text, a number, a list of these or null, not {_kind(value)}") from None
    return answer if answer is None else _check_text(name, answer)


def _check_prompt(name: str, value: Any) -> str | Messages:
    if isinstance(value, str):
        if not value:
            raise ValueError(f"{name!r} is empty")
        return _check_text(name, value)
    if not isinstance(value, list) or not value:
        raise ValueError(f"{name!r} must be text or a list of messages, not {_kind(value)}")
    for message in value:
        _check_message(name, message)
    return value


def _check_completions(name: str, value: Any) -> tuple[bool, list[str]]:
    if isinstance(value, str) or _is_messages(value):
        return False, [_check_completion(name, value)]
    if not isinstance(value, list) or not value:
        raise ValueError(f"{name!r} must be text, or a list of texts, not {_kind(value)}")
    return True, [_check_completion(name, completion) for completion in value]


def _check_completion(name: str, value: Any) -> str:
    if _is_messages(value):
        if len(value) > 1:
            raise ValueError(f"a completion in {name!r} has {len(value)} messages; only one can be scored")
        value = completion_text(value)
    if not isinstance(value, str):
        raise ValueError(f"a completion in {name!r} must be text, not {_kind(value)}")
    return _check_text(name, value)


def _is_messages(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) for item in value)


def _check_message(name: str, message: Any) -> None:
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise ValueError(f"a message in {name!r} has no role")
    if not isinstance(message.get("content"), str):
        raise ValueError(f"the content of a message in {name!r} must be text, not {_kind(message.get('content'))}")
    _check_text(name, message["content"])


def _check_text(name: str, text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{name!r} contains half a surrogate pair, \\u{ord(text[error.start]):04x}") from None
    return text


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, (list, str)) and not value:
        return "an empty list" if isinstance(value, list) else "empty text"
    names = {bool: "a truth value", str: "text", list: "a list", dict: "an object"}
    names |= dict.fromkeys((int, float, Decimal), "a number")
    return names.get(type(value), type(value).__name__)
