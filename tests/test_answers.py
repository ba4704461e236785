"""Ground truth to answer text, templates, verdicts; on real data where it is present."""

import json
import math
import pickle
import re
import threading
import time
from pathlib import Path

import pytest
from trl.rewards import accuracy_reward as trl_accuracy_reward

from repro_trl.answers import (
    DEFAULT_ANSWER_TEMPLATE,
    accuracy_reward,
    answer_text,
    extract_answer,
    make_accuracy_reward,
    validate_answer_template,
    verify_answer,
)

DATA = Path(__file__).parents[2] / "shared" / "data"


def read(name: str) -> list[dict]:
    path = DATA / f"{name}.jsonl"
    if not path.exists():
        pytest.skip(f"real data not found: {path}")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


# Ground truth


@pytest.mark.parametrize(
    ("solution", "answer"),
    [
        (None, None),
        ("", None),
        (" \n\t", None),
        (math.nan, None),
        (math.inf, None),
        (3, "3"),
        (-7, "-7"),
        (27.0, "27"),
        (0.5, "0.5"),
        (-2.5e-5, "-0.000025"),
        (1e-7, "0.0000001"),
        (1e22, "10000000000000000000000"),
        ("  42 \n", "42"),
        ("025", "025"),
        ("4:30 p.m.", "4:30 p.m."),
        ("$5$", "5"),
        ("$$x + 1$$", "x + 1"),
        (r"$\$5$", r"\$5"),
        ("$5", "$5"),
        (r"5\$", r"5\$"),
        ("$x$ and $y$", "$x$ and $y$"),
        ("\\frac{1}{2}", "\\frac{1}{2}"),
        ("Ответ: 五 🦉", "Ответ: 五 🦉"),
    ],
)
def test_bare_answers(solution: str | int | float | None, answer: str | None):
    assert extract_answer(solution) == answer


@pytest.mark.parametrize(
    ("solution", "answer"),
    [
        (r"so $\boxed{42}$.", "42"),
        (r"first \boxed{1}, then \boxed{2}.", "2"),
        (r"\boxed{\frac{1}{\sqrt{2}}}", r"\frac{1}{\sqrt{2}}"),
        (r"\boxed{\left\{1, 2\right\}}", r"\left\{1, 2\right\}"),
        (r"\boxed{\{ x \mid x > 1 }", r"\{ x \mid x > 1"),
        (r"\boxed{(0, \infty]}", r"(0, \infty]"),
        (r"\boxed {7}", "7"),
        ("\\boxed{\n 7 }", "7"),
        (r"\fbox{7} cm", "7"),
        (r"or $\framebox{204}$ minutes", "204"),
        (r"\boxed{\boxed{7}}", "7"),
        (r"$\boxed 12$.", "12"),
        (r"\(\boxed \frac{1}{2}\) is it", r"\frac{1}{2}"),
        (r"\boxed 5, which", "5"),
        (r"\boxed x$", "x"),
        (r"aligned \\ \boxed{7} \\", "7"),
        (r"escaped twice \\boxed{7}", "7"),
        (r"a { stray brace and \boxed{7}", "7"),
        (r"a } stray brace and \boxed{7}", "7"),
        (r"\boxed{四十二 ½}", "四十二 ½"),
        ("#### 9\n\\boxed{7}", "7"),
        # the last box is cut off or empty: the one before it counts
        (r"\boxed{6} and \boxed{7", "6"),
        (r"\boxed{6} and \boxed{}", "6"),
        (r"\boxed{\boxed{7}", "7"),
        # no box is left
        (r"we get \boxed{7", None),
        (r"within \boxed{}", None),
        (r"\boxed{\frac{1}{2}", None),
        ("#### 9\n\\boxed{7", "9"),
        # prose about boxes
        (r"put it in \boxed and pay $5", r"put it in \boxed and pay $5"),
        (r"\boxedsomething{7}", r"\boxedsomething{7}"),
    ],
)
def test_boxed_answers(solution: str, answer: str | None):
    assert extract_answer(solution) == answer


@pytest.mark.parametrize(
    ("solution", "answer"),
    [
        ("2 + 2 = 4\n#### 4", "4"),
        ("#### 1,450", "1450"),
        ("#### -12,345,678.90", "-12345678.90"),
        ("#### $1,450", "1450"),
        ("#### 1,2", "1,2"),
        ("#### (1, 450)", "(1, 450)"),
        ("#### 5 apples", "5 apples"),
        ("#### 1\n#### 2\r\n", "2"),
        ("all on one line #### 3", "3"),
        ("##### 5", "##### 5"),
    ],
)
def test_gsm8k_answers(solution: str, answer: str):
    assert extract_answer(solution) == answer


@pytest.mark.parametrize("solution", [True, ["5"], {"answer": 5}, b"5"])
def test_other_types_are_refused(solution: object):
    with pytest.raises(ValueError, match="text, a number or None"):
        extract_answer(solution)


@pytest.mark.parametrize(
    "text",
    [
        "\\boxed{" * 20000,
        "\\boxed 1 " * 20000,
        "\\boxed{" * 20000 + "5" + "}" * 20000,
        "\\boxed" * 20000,
        "\\boxed " + " " * 10**5,
        "#### " * 20000,
        *(char * 10**5 for char in "{}$#\\\n"),
    ],
)
def test_long_junk_is_read_in_linear_time(text: str):
    start = time.perf_counter()
    extract_answer(text)
    assert time.perf_counter() - start < 2


@pytest.mark.parametrize("name", ["gsm8k_test", "gsm8k_train"])
def test_gsm8k_data(name: str):
    for row in read(name):
        # The data's own rule: what follows the only "####", which is a number that may have commas.
        number = row["answer"].split("####")[1].strip().replace(",", "")
        assert float(number) is not None
        assert extract_answer(row["answer"]) == number


def test_aime_data():
    rows = read("aime24")
    for row in rows:
        assert re.fullmatch(r"\d{1,3}", row["answer"]) and extract_answer(row["answer"]) == row["answer"]
        # Worked solutions box it too, some in bold, in parentheses, or without leading zeros.
        assert int(re.search(r"\d+", extract_answer(row["solution"]))[0]) == int(row["answer"])


def test_amc_data():
    for row in read("amc23"):
        assert isinstance(row["answer"], float)
        assert extract_answer(row["answer"]) == f"{row['answer']:.0f}"


def test_math_data():
    for row in read("math_cot_100"):
        assert extract_answer(row["solution"]) == row["answer"]
        assert extract_answer(row["answer"]) == row["answer"]


# Template


@pytest.mark.parametrize(
    ("template", "text"),
    [
        (DEFAULT_ANSWER_TEMPLATE, r"\boxed{\frac{1}{2}}"),
        ("{answer}", r"\frac{1}{2}"),
        (r"The answer is \(\boxed{{{answer}}}\).", r"The answer is \(\boxed{\frac{1}{2}}\)."),
        (r"\text{{final}} {answer}", r"\text{final} \frac{1}{2}"),
        (r"\boxed{{ {answer} }}", r"\boxed{ \frac{1}{2} }"),
        (r"\left\{{ {answer} \right.", r"\left\{ \frac{1}{2} \right."),
    ],
)
def test_answer_text(template: str, text: str):
    validate_answer_template(template)
    assert answer_text(r"\frac{1}{2}", template) == text


@pytest.mark.parametrize(
    ("template", "fixed"),
    [
        (r"\boxed{answer}", r"\boxed{{{answer}}}"),
        (r"\boxed{{answer}}", r"\boxed{{{answer}}}"),
        (r"\boxed{{{{answer}}}}", r"\boxed{{{answer}}}"),
        (r"\boxed {answer}", r"\boxed {{{answer}}}"),
        (r"\boxed{ {answer} }", r"\boxed{{ {answer} }}"),
        (r"The answer is \boxed{answer}.", r"The answer is \boxed{{{answer}}}."),
        (r"\text{final} {answer}", r"\text{{final}} {answer}"),
        (r"\text{final: {answer}}", r"\text{{final: {answer}}}"),
        (r"\frac{1}{2} \boxed{answer}", r"\frac{{1}}{{2}} \boxed{{{answer}}}"),
        ("{{answer}}", "{answer}"),
        ("x^{answer}", "x^{{{answer}}}"),
    ],
)
def test_template_with_a_slip(template: str, fixed: str):
    with pytest.raises(ValueError) as error:
        validate_answer_template(template)
    message = str(error.value)
    assert f"repro_answer_template={template!r}" in message and f"Perhaps you mean {fixed} (" in message
    validate_answer_template(fixed)
    with pytest.raises(ValueError, match="repro_answer_template"):
        answer_text("5", template)


@pytest.mark.parametrize(
    "template",
    [
        "",
        "the answer",
        "{}",
        "{0}",
        "{solution}",
        "{answer} {answer}",
        "{answer!r}",
        "{answer:>5}",
        "{answer.real}",
        "{answer[0]}",
        "{answer",
        "answer}",
        r"\boxed{{{answer}",
        r"\boxed{answer} {answer}",
        "}}{answer}{{",
    ],
)
def test_template_without_one_plain_placeholder(template: str):
    with pytest.raises(ValueError, match="repro_answer_template"):
        validate_answer_template(template)


# Verdicts


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
        ("5", "5", False),
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


@pytest.mark.parametrize(
    "junk",
    [
        "{" * 3000,
        "\\boxed{" + "{" * 50 + "5" + "}" * 51,
        "\\boxed{" + "(" * 5000 + "}",
        "\\boxed{" * 5000,
        "\\[" * 20000,
        "answer " * 5000,
        "\\boxed{" + "1+" * 200 + "}",
        "\\boxed{\\frac{1}{0}}",
        "\\boxed{\x00\ufffd\u202e}",
    ],
)
def test_junk_completions_are_wrong_and_cheap(junk: str):
    start = time.perf_counter()
    assert verify_answer(junk, "5") is False
    assert time.perf_counter() - start < 3


@pytest.mark.parametrize("answer", ["{", "}{", "\\", "$", "\\frac{1}{", "\x00", "五", "(" * 200])
def test_odd_ground_truth_matches_itself_only(answer: str):
    assert verify_answer(r"\boxed{5}", answer) is False
    if extract_answer(rf"\boxed{{{answer}}}") == answer:
        assert verify_answer(rf"\boxed{{{answer}}}", answer) is True


# Reward function


def test_accuracy_reward_forms():
    texts = [r"\boxed{72}", r"\boxed{71}", "", r"\boxed{1450}", r"\boxed{27}", r"\boxed{0}"]
    solutions = ["so 72\n#### 72", r"so \boxed{72}", "72", "#### 1,450", 27.0, None]
    expected = [1.0, 0.0, 0.0, 1.0, 1.0, None]
    assert accuracy_reward(texts, solutions) == expected
    conversations = [[{"role": "assistant", "content": text}] for text in texts]
    assert accuracy_reward(completions=conversations, solution=solutions, prompts=None, other=[1] * 6) == expected


def test_accuracy_reward_judges_the_last_message():
    call = {"role": "assistant", "tool_calls": [{"type": "function"}]}
    tool = {"role": "tool", "name": "calculator", "content": r"\boxed{5}"}
    answer = {"role": "assistant", "content": r"\boxed{5}"}
    completions = [[call, tool, answer], [call, tool], [call], [{"role": "assistant", "content": None}], []]
    assert accuracy_reward(completions, ["5"] * 5) == [1.0, 0.0, 0.0, 0.0, 0.0]


def test_accuracy_reward_needs_one_solution_each():
    with pytest.raises(ValueError):
        accuracy_reward(["a", "b"], ["5"])


def test_make_accuracy_reward():
    reward = pickle.loads(pickle.dumps(make_accuracy_reward("answer", think_end="[end]")))
    assert reward.__name__ == "accuracy_reward"
    completions = [r"\boxed{6} [end] \boxed{5}"]
    assert reward(completions=completions, prompts=["?"], answer=["5"], solution=["6"]) == [1.0]
    assert make_accuracy_reward()(completions=completions, solution=["6"]) == [0.0]
    with pytest.raises(ValueError, match=r"answer_column='answer'.*\['solution'\]"):
        reward(completions=completions, solution=["6"])


def test_accuracy_reward_off_the_main_thread():
    rewards = []
    thread = threading.Thread(target=lambda: rewards.extend(accuracy_reward([r"\boxed{4/8}"], ["0.5"])))
    thread.start()
    thread.join()
    assert rewards == [1.0]


def test_agreement_with_recorded_verdicts():
    rows = read("math_cot_100")
    for column in ("solution", "answer"):
        disagreements = []
        for row in rows:
            rewards = accuracy_reward(row["code"], [row[column]] * len(row["code"]))
            pairs = enumerate(zip(rewards, row["score"], strict=True))
            disagreements += [(row["idx"], i) for i, (reward, score) in pairs if reward != float(score)]
        # The record takes 10000 for another number than 10{,}000.
        assert disagreements == [(72, 7)]


def test_agreement_with_trl():
    rows = read("math_cot_100")
    for row in rows[:30]:
        conversations = [[{"role": "assistant", "content": code}] for code in row["code"]]
        expected = trl_accuracy_reward(conversations, [row["solution"]] * len(conversations))
        assert accuracy_reward(conversations, [row["solution"]] * len(conversations)) == expected


def test_hundreds_of_verdicts_take_no_seconds():
    completions = [rf"<think> …</think> \boxed{{{i % 10}}}" for i in range(5000)]
    start = time.perf_counter()
    # A second of math-verify is about a thousand comparisons; repeated ones are not made again.
    assert sum(accuracy_reward(completions, ["7"] * 5000)) == 500
    assert time.perf_counter() - start < 1
