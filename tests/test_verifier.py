"""Verdicts on completions: on judged pairs of every kind, on recorded verdicts, and on junk."""

import json
import re
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from repro_trl.answers import extract_answer, last_box
from repro_trl.verifier import verify_answer

DATA = Path(__file__).parents[2] / "shared" / "data"
PAIRS = [json.loads(line) for line in (Path(__file__).parent / "verifier" / "pairs.jsonl").open(encoding="utf-8")]


def read(name: str) -> list[dict]:
    path = DATA / f"{name}.jsonl"
    if not path.exists():
        pytest.skip(f"real data not found: {path}")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def wrong_verdicts(pairs: list[dict]) -> list[dict]:
    return [pair for pair in pairs if verify_answer(pair["completion"], extract_answer(pair["gold"])) != pair["right"]]


@pytest.mark.parametrize("kind", sorted({pair["kind"] for pair in PAIRS}))
def test_judged_pairs(kind: str):
    pairs = [pair for pair in PAIRS if pair["kind"] == kind]
    assert {pair["right"] for pair in pairs} == {True, False}
    assert wrong_verdicts(pairs) == []


def test_judged_pairs_are_many_and_distinct():
    counts = Counter((pair["gold"], pair["completion"]) for pair in PAIRS)
    assert len(counts) >= 600 and max(counts.values()) == 1


def test_judged_pairs_of_benchmarks_forms():
    assert wrong_verdicts(read("verifier_pairs")) == []


def test_most_verdicts_do_not_depend_on_the_side():
    for pair in PAIRS:
        box = last_box(pair["completion"])
        # math-verify follows the form of the ground truth: an equation is no number, and an unordered list no pair.
        if box is None or "=" in pair["gold"] + box or pair["kind"] == "sets and pairs":
            continue
        assert verify_answer(rf"\boxed{{{pair['gold']}}}", extract_answer(box)) == pair["right"], pair


@pytest.mark.parametrize(
    ("completion", "answer", "verdict"),
    [
        (r"\boxed{5}", "5", True),
        (r"\boxed{6}", "5", False),
        (r"\boxed{0.5}", r"\frac{1}{2}", True),
        (r"\boxed{10000}", r"10{,}000", True),
        (r"\boxed{x=5}", "5", True),
        (r"\boxed{A}", "B", False),
        (r"first \boxed{3}, no: \boxed{5}", "5", True),
        (r"\boxed{5}, no: \boxed{3}", "5", False),
        (r"\boxed{5} or \boxed{3", "5", True),
        ("The final answer is $5$.", "5", True),
        ("The final answer is $6$.", "5", False),
        ("The final answer is 5.", "5", True),
        ("5", "5", False),
        ("So we get 5.", "5", False),
        (r"\boxed{5", "5", False),
        (r"\boxed{}", "5", False),
        ("", "5", False),
        ("<think> hm", "5", False),
        (r"🦉 \boxed{五}", "五", True),
        (r"\boxed{5}", None, None),
        # after the marker only
        (r"\boxed{5} </think> \boxed{6}", "5", False),
        (r"\boxed{6} </think> \boxed{5}", "5", True),
        (r"\boxed{5} </think> so it is", "5", False),
        ("The answer is 5. </think> so it is", "5", False),
        ("The answer is 6. </think> **Final Answer**: 5", "5", True),
        (r"\boxed{5} </think> </think>", "5", False),
        (r"\boxed{5} and never </thinking>", "5", True),
    ],
)
def test_verify_answer(completion: str, answer: str | None, verdict: bool | None):
    assert verify_answer(completion, answer) is verdict


def test_think_end_is_a_parameter():
    assert verify_answer(r"\boxed{6} [end] \boxed{5}", "5", think_end="[end]") is True
    assert verify_answer(r"\boxed{5} [end] nothing", "5", think_end="[end]") is False
    assert verify_answer(r"\boxed{5} </think> nothing", "5", think_end=None) is True


JUNK = [
    "{" * 3000,
    "\\boxed{" + "{" * 50 + "5" + "}" * 51,
    "\\boxed{" + "(" * 5000 + "}",
    "\\boxed{" * 5000,
    "\\[" * 20000,
    "answer " * 5000,
    "The answer is " * 5000,
    "x" * 100_000,
    "\\boxed{" + "x" * 100_000 + "}",
    "\\boxed{" + "1+" * 190 + "}",
    "\\boxed{" + "\\frac{1}{" * 9 + "2" + "}" * 9 + "}",
    "\\boxed{" + "\\frac" * 60 + "}",
    "\\boxed{" + "9" * 100_000 + "}",
    "\\boxed{" + "9" * 390 + "}",
    "\\boxed{\\frac{1}{0}}",
    "\\boxed{\x00\ufffd\u202e}",
    "\\boxed{9^{9^9}}",
    "\\boxed{9^{9^{9}}}",
    "\\boxed{(9^9)^{9^9}}",
    "\\boxed{9^{9\\cdot9^{9}}}",
    "\\boxed{9999999^{9999999}}",
    "\\boxed{10^{999999999}}",
    "\\boxed{1.5\\times10^{999999999}}",
    "\\boxed{x^{9^{9^9}}}",
    "\\boxed{100000!}",
    "\\boxed{(9!)!}",
    "\\boxed{e^{e^{e^{79}}}}",
    "\\boxed{\\binom{1000000}{500000}}",
    "\\boxed{(x+y+z)^{90}}",
    "\\boxed{\\sum_{k=1}^{10000000} k}",
    "\\boxed{\\int_0^1 x^x dx}",
]


@pytest.mark.parametrize("junk", JUNK)
def test_junk_completions_are_wrong_and_cheap(junk: str):
    start = time.process_time()
    assert verify_answer(junk, "5") is False
    assert time.process_time() - start < 3


def test_junk_is_as_cheap_outside_the_main_thread():
    verdicts = []

    def verify():
        verdicts.extend(verify_answer(junk, r"\frac{1}{7}") for junk in JUNK)

    thread = threading.Thread(target=verify, daemon=True)  # a hang must not keep the tests from ending
    thread.start()
    thread.join(120)
    assert verdicts == [False] * len(JUNK)


def test_a_ground_truth_that_is_a_text_is_said_and_equals_itself_only():
    text = "We add 2 and 3. " * 100 + "So it is 5"
    with pytest.warns(UserWarning, match=r"ground truth of 1610 characters .* 'We add 2"):
        assert verify_answer(r"\boxed{5}", text) is False
    with pytest.warns(UserWarning):
        assert verify_answer(rf"\boxed{{{text} }}", f" {text}") is True


@pytest.mark.parametrize("answer", ["{", "}{", "\\", "$", "\\frac{1}{", "\x00", "五", "(" * 200])
def test_odd_ground_truth_matches_itself_only(answer: str):
    assert verify_answer(r"\boxed{5}", answer) is False
    if extract_answer(rf"\boxed{{{answer}}}") == answer:
        assert verify_answer(rf"\boxed{{{answer}}}", answer) is True


def test_verdicts_off_the_main_thread():
    verdicts = []
    thread = threading.Thread(target=lambda: verdicts.append(verify_answer(r"\boxed{\sqrt8}", r"2\sqrt{2}")))
    thread.start()
    thread.join()
    assert verdicts == [True]


# On recorded completions


def recorded() -> list[tuple[int, int, str, str, bool]]:
    return [
        (row["idx"], i, completion, row["answer"], bool(score))
        for row in read("math_cot_100")
        for i, (completion, score) in enumerate(zip(row["code"], row["score"], strict=True))
    ]


def test_agreement_with_recorded_verdicts():
    disagreements = [
        (row, i) for row, i, completion, answer, right in recorded() if verify_answer(completion, answer) != right
    ]
    # The record takes 10000 for another number than 10{,}000.
    assert disagreements == [(72, 7)]


def test_right_answers_stay_right_with_unbraced_fractions_and_with_a_stop():
    rewritten = 0
    for _, _, completion, answer, right in recorded():
        box = last_box(completion)
        if not right:
            continue
        assert verify_answer(rf"\boxed{{{box}.}}", answer), box
        unbraced = re.sub(r"\\[dt]?frac\{(\w)\}\{(\w)\}", r"\\frac \1\2", box)
        unbraced = re.sub(r"\\[dt]?frac\{(\w+)\}\{(\w+)\}", r"\\frac{\1} {\2}", unbraced)
        rewritten += unbraced != box
        assert verify_answer(rf"\boxed{{{unbraced}}}", answer), unbraced
    assert rewritten > 100
