"""The letter that a reply chooses: real forms of replies (tests/data/choice_replies.json), and what must not count."""

import json
from pathlib import Path

import pytest

from repro_trl.evaluation.choices import choice_letter

REPLIES = json.loads((Path(__file__).parent / "data" / "choice_replies.json").read_text(encoding="utf-8"))


def test_there_are_enough_replies():
    assert len(REPLIES) >= 60 and len({reply["reply"] for reply in REPLIES}) == len(REPLIES)
    assert {reply["letter"] for reply in REPLIES} == {"A", "B", "C", "D", None}


@pytest.mark.parametrize("reply", REPLIES, ids=lambda reply: reply["form"])
def test_replies(reply):
    assert choice_letter(reply["reply"], "ABCD") == reply["letter"]


def test_line_ends_change_nothing():
    for reply in REPLIES:
        assert choice_letter(reply["reply"].replace("\n", "\r\n") + "\r\n", "ABCD") == reply["letter"], reply["form"]


@pytest.mark.parametrize("letter", "ABCD")
@pytest.mark.parametrize(
    "form",
    [
        "\\boxed{{{0}}}",
        "$\\boxed{{\\text{{{0}}}}}$",
        "\\boxed{{({0})}}",
        "\\boxed{{{0}. 5 m/s}}",
        "\\fbox{{{0}}}",
        "Answer: {0}",
        "answer: {0}.",
        "**Answer:** {0}",
        "**Answer: {0}**",
        "Answer: ({0})",
        "Answer: [{0}]",
        'Answer: "{0}"',
        "Answer: ${0}$",
        "Answer: $\\mathrm{{{0}}}$",
        "The answer is {0}.",
        "The correct answer is ({0}) because of this.",
        "The final answer is option {0}.",
        "The correct option is {0}",
        "Option {0} is the correct answer.",
        "({0})",
        "{0}",
        "{0}.",
        "### Answer\n{0}",
        "So, {0}.",
        "I choose {0}.",
        "答案：{0}",
        "答案是{0}。",
        "Antwort: {0}",
        "Ответ: {0}",
        "정답: {0}",
        "<answer>{0}</answer>",
        '{{"answer": "{0}"}}',
        "The answer is not X. The answer is {0}.",
        "A) 1\nB) 2\nC) 3\nD) 4\n\nAnswer: {0}",
    ],
)
def test_every_letter_in_every_form(form, letter):
    assert choice_letter(form.format(letter), "ABCD") == letter


def test_letters_that_are_no_options():
    assert choice_letter("\\boxed{E}", "ABCD") is None
    assert choice_letter("Answer: E", "ABCDE") == "E"
    assert choice_letter("\\boxed{Both}", "ABCD") is None
    assert choice_letter("Answer: B\n\nThe energy is \\boxed{E}", "ABCD") == "B"


@pytest.mark.parametrize(
    "text",
    [
        "{" * 100_000,
        "\\boxed{" * 20_000,
        "\\boxed{" * 3000 + "B" + "}" * 3000,
        "\\text{" * 10_000,
        "the answer is " * 10_000,
        "answer" + " " * 100_000,
        "A) x\n" * 20_000,
        "if the answer would be A " * 5000,
        "not A, " * 10_000,
        "答" * 50_000,
        "\x00\ud800 \\boxed{\x00}",
    ],
    ids=range(11),
)
def test_derailed_replies_are_no_error(text):
    assert choice_letter(text, "ABCD") in {*"ABCD", None}
