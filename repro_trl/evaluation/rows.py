"""Rows of each dataset, in its own columns, as problems with a prompt and what a completion is held against."""

import base64
import hashlib
import io
import json
import pickle
import random
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from datasets import Dataset

from ..columns import ANSWER_COLUMNS, PROBLEM_COLUMNS, find_answer_column, find_column, read_answer, read_column
from ..row_files import as_text
from .line_process import read_json

MATH_INSTRUCTION = "Please reason step by step, and put your final answer within \\boxed{}."
CHOICE_INSTRUCTION = "Please reason step by step, and put the letter of your answer within \\boxed{}."
PROGRAM_INSTRUCTION = "Put the complete program in one ```python code block at the end of your answer."

LETTERS = "ABCD"

Rows = Dataset | list[dict[str, Any]]
"""From the Hub, or from files or memory, where values stay what they are: a dataset's columns have one type each."""

_MBPP_SECONDS = 10.0
_LIVECODEBENCH_SECONDS = 6.0  # the limit of LiveCodeBench's own runner
_MAX_PRIVATE_TESTS = 1 << 30  # bytes after decompression
# What LiveCodeBench's own runner imports before a program: starter code names `List` without importing it.
_LIVECODEBENCH_MODULES = (
    "string re datetime collections heapq bisect copy math random statistics itertools functools operator io sys json "
    "builtins typing"
).split()
LIVECODEBENCH_PRELUDE = "\n".join(
    [f"from {module} import *" for module in _LIVECODEBENCH_MODULES]
    + [f"import {module}" for module in _LIVECODEBENCH_MODULES]
)
"""Runs before each program for LiveCodeBench."""


@dataclass(frozen=True)
class MathTarget:
    """A bare answer, as `repro_trl.answers.extract_answer` gives it."""

    answer: str


@dataclass(frozen=True)
class ChoiceTarget:
    """The letter of the right option."""

    letter: str


@dataclass(frozen=True)
class InputTest:
    """A program reads `input` and must print `output`."""

    input: str
    output: str


@dataclass(frozen=True)
class CallTest:
    """`function`, of the program or its class `Solution`, must return `expected` for `arguments`; JSON values."""

    function: str
    arguments: tuple[Any, ...]
    expected: Any


@dataclass(frozen=True)
class AssertTest:
    """Statements that run after the program and must not raise."""

    code: str


Test = InputTest | CallTest | AssertTest


@dataclass(frozen=True)
class ProgramTarget:
    """
    Tests that a program must pass, each within `seconds` of wall-clock time. `load` gives them: those of LiveCodeBench
    are large, and unpacked when they are needed. `prelude` runs in the program's scope before it.
    """

    load: Callable[[], tuple[Test, ...]]
    seconds: float
    prelude: str = ""


@dataclass(frozen=True)
class Problem:
    """
    A problem with an id unlike any other of its task. The prompt is messages for the model's chat template, or plain
    text.
    """

    id: str
    prompt: list[dict[str, str]] | str
    target: MathTarget | ChoiceTarget | ProgramTarget


def column_names(dataset: Rows) -> list[str]:
    """Of all rows."""
    if isinstance(dataset, Dataset):
        return dataset.column_names
    return list(dict.fromkeys(name for row in dataset for name in row))


def math_problems(
    problem_column: str, answer_column: str, id_column: str | None = None
) -> Callable[[Rows], Iterable[Problem]]:
    """Rows with a problem and its answer, in columns that may be nested. Without an id column, they get numbers."""

    def to_problems(dataset: Rows) -> Iterable[Problem]:
        for index, row in enumerate(dataset):
            id = str(index if id_column is None else row[id_column])
            answer = read_answer(row, answer_column)
            if answer is None:
                raise ValueError(f"problem {id!r} has no answer: {read_column(row, answer_column)!r}.")
            yield Problem(id, _math_prompt(id, read_column(row, problem_column)), MathTarget(answer))

    return to_problems


def own_problems(dataset: Rows) -> Iterable[Problem]:
    """
    Rows of a local file; they are numbered from 0. Their columns are found as in training (columns.py). A prompt that
    is a list of messages is taken as it is; to text the instruction to box the answer is added. A `ValueError` if a
    column is missing, or a row has no answer.
    """
    rows = list(dataset)
    problem_column, answer_column = find_column(rows, PROBLEM_COLUMNS), find_answer_column(rows)
    if problem_column is None or answer_column is None:
        raise ValueError(
            f"the columns are {column_names(dataset)}. Name one {' or '.join(PROBLEM_COLUMNS)}, and one "
            f"{', '.join(ANSWER_COLUMNS[:-1])} or {ANSWER_COLUMNS[-1]}."
        )
    return math_problems(problem_column, answer_column)(dataset)


def _math_prompt(id: str, problem: Any) -> list[dict[str, str]]:
    if not isinstance(problem, list):
        problem = as_text(problem)
    if not problem:
        raise ValueError(f"problem {id!r} has no text.")
    return problem if isinstance(problem, list) else _user(problem, MATH_INSTRUCTION)


def _user(*paragraphs: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": "\n\n".join(paragraph.strip() for paragraph in paragraphs)}]


def gpqa_problems(dataset: Rows) -> Iterable[Problem]:
    """GPQA rows, their options in an order that depends on the record alone."""
    for row in dataset:
        options = [row["Correct Answer"], *(row[f"Incorrect Answer {number}"] for number in (1, 2, 3))]
        order = list(range(len(options)))
        random.Random(hashlib.sha256(row["Record ID"].encode()).digest()).shuffle(order)
        lines = "\n".join(f"{letter}) {as_text(options[i]).strip()}" for letter, i in zip(LETTERS, order, strict=True))
        prompt = _user(row["Question"], lines, CHOICE_INSTRUCTION)
        yield Problem(row["Record ID"], prompt, ChoiceTarget(LETTERS[order.index(0)]))


def mbpp_problems(dataset: Rows) -> Iterable[Problem]:
    """Rows of sanitized MBPP. The prompt shows the tests, as the benchmark does: they fix the function's name."""
    for row in dataset:
        imports, tests = list(row["test_imports"]), list(row["test_list"])
        if not tests:
            raise ValueError(f"problem {row['task_id']} has no tests.")
        checks = tuple(AssertTest("\n".join([*imports, test])) for test in tests)
        shown = "Your program should pass these tests:\n\n```python\n" + "\n".join(tests) + "\n```"
        prompt = _user(row["prompt"], shown, PROGRAM_INSTRUCTION)
        yield Problem(str(row["task_id"]), prompt, ProgramTarget(lambda checks=checks: checks, _MBPP_SECONDS))


def livecodebench_problems(dataset: Rows) -> Iterable[Problem]:
    """Rows of LiveCodeBench's code generation, without their tests, which are read from the dataset when needed."""
    columns = ["question_id", "question_content", "starter_code"]
    texts = dataset.select_columns(columns) if isinstance(dataset, Dataset) else dataset
    for index, row in enumerate(texts):
        if row["starter_code"]:
            task = (
                "Write a Python program that solves the problem. Keep the names of this starter code, and write no "
                f"code that reads input or prints:\n\n```python\n{row['starter_code'].rstrip()}\n```"
            )
        else:
            task = "Write a Python program that reads the input from standard input and prints the output."
        yield Problem(
            str(row["question_id"]),
            _user(row["question_content"], task, PROGRAM_INSTRUCTION),
            ProgramTarget(
                lambda index=index: livecodebench_tests(dataset[index]), _LIVECODEBENCH_SECONDS, LIVECODEBENCH_PRELUDE
            ),
        )


def livecodebench_tests(row: dict[str, Any]) -> tuple[Test, ...]:
    """
    Public and private tests of a row. Private ones are JSON, or JSON that was pickled, compressed and encoded in
    base64; of a pickle only plain values are read. A `ValueError` for no tests, or tests of another form.
    """
    function = json.loads(row["metadata"]).get("func_name")
    cases = json.loads(row["public_test_cases"]) + _private_tests(row["private_test_cases"])
    if not cases:
        raise ValueError(f"problem {row['question_id']} has no tests.")
    return tuple(_livecodebench_test(case, function) for case in cases)


def _livecodebench_test(case: dict[str, str], function: str | None) -> Test:
    if case["testtype"] == "stdin":
        return InputTest(case["input"], case["output"])
    if case["testtype"] != "functional" or function is None:
        raise ValueError(f"testtype {case['testtype']!r} with the function {function!r} is unknown.")
    arguments = tuple(read_json(line) for line in case["input"].split("\n"))
    return CallTest(function, arguments, read_json(case["output"]))


def _private_tests(text: str) -> list[dict[str, str]]:
    if text.lstrip().startswith("["):
        return json.loads(text)
    decompressor = zlib.decompressobj()
    data = decompressor.decompress(base64.b64decode(text), _MAX_PRIVATE_TESTS)
    if decompressor.unconsumed_tail:
        raise ValueError(f"private tests take more than {_MAX_PRIVATE_TESTS} bytes.")
    return json.loads(_PlainUnpickler(io.BytesIO(data)).load())


class _PlainUnpickler(pickle.Unpickler):
    """Reads text, numbers and containers; a pickle that names a class or function could run code."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"private tests name {module}.{name}; they should be plain text.")
