"""The program that a reply gives: real forms of replies (tests/data/program_replies.json), and blocks alone."""

import importlib
import json
import warnings
from pathlib import Path

import pytest

from repro_trl.evaluation import programs
from repro_trl.evaluation.code_blocks import CodeBlock, code_blocks
from repro_trl.evaluation.programs import called_names, program

REPLIES = json.loads((Path(__file__).parent / "data" / "program_replies.json").read_text(encoding="utf-8"))
FENCE = "```"


def test_there_are_enough_replies():
    assert len(REPLIES) >= 60 and len({reply["form"] for reply in REPLIES}) == len(REPLIES)


@pytest.mark.parametrize("reply", REPLIES, ids=lambda reply: reply["form"])
def test_replies(reply):
    assert program(reply["reply"], reply["functions"]) == reply["program"]


def test_line_ends_change_nothing():
    for reply in REPLIES:
        text = reply["reply"].replace("\r", "").replace("\n", "\r\n")
        assert program(text, reply["functions"]) == reply["program"], reply["form"]


@pytest.mark.parametrize(
    ("text", "blocks"),
    [
        (f"{FENCE}python\nx\n{FENCE}", [CodeBlock("x\n", True, True)]),
        (f"{FENCE}\nx\n{FENCE}", [CodeBlock("x\n", False, True)]),
        (f"{FENCE}python\nx", [CodeBlock("x\n", True, False)]),
        (f"  {FENCE} python\n  x\n  {FENCE}", [CodeBlock("x\n", True, True)]),
        (f"{FENCE}cpp\nx\n{FENCE}", []),
        (
            f"{FENCE}python\nx\n\n{FENCE}python\ny\n{FENCE}",
            [CodeBlock("x\n\n", True, False), CodeBlock("y\n", True, True)],
        ),
        (f"{FENCE}inline{FENCE} and {FENCE}more{FENCE}", []),
        ("", []),
    ],
)
def test_blocks(text, blocks):
    assert code_blocks(text) == blocks


@pytest.mark.parametrize(
    "text",
    [
        FENCE * 10_000,
        f"{FENCE}python\n" * 2000,
        f"{FENCE}markdown\n" * 2000,
        "(" * 100_000,
        f"{FENCE}python\n" + "(" * 100_000,
        f"{FENCE}python\n" + "-" * 100_000,
        f"{FENCE}python\n\x00\n{FENCE}",
        "import a\n\x00",
        "def \ud800",
        "a = 1\n" * 5000 + "?",
    ],
    ids=range(10),
)
def test_derailed_replies_are_no_error(text):
    assert program(text) is None or isinstance(program(text), str)


def test_parsing_a_reply_warns_of_nothing():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        importlib.reload(programs)  # which adds its filter
        assert programs.program(f"{FENCE}python\nprint('\\d', input() is 1)\n{FENCE}") is not None
    assert not caught


def test_names_that_tests_call():
    assert called_names("import math\nassert set(f(1)) == {math.pi} and g.h(2)") == {"f", "g"}
