"""Ground truth to answer text, and stated answers; on real data where it is present."""

import json
import math
import re
import subprocess
import sys
import time
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from repro_trl.answers import (
    extract_answer,
    given_answer,
    stated_answer,
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


@pytest.mark.parametrize(
    ("solution", "answer"),
    [
        ("#### Solution\nWe add 2 and 3.", "#### Solution\nWe add 2 and 3"),
        ("#### Solution\nWe add.\n#### Answer\n5", "5"),
        ("#### Step 1\nWe add.\n#### 5", "5"),
        ("We add.\n#### Solution", "We add.\n#### Solution"),
        ("#### **5**", "5"),
        ("#### 5.", "5"),
        ("#### $1,450.", "1,450"),
        ("#### yes", "yes"),
        ("#### Answer: 5", "5"),
        ('["3"]', "3"),
        ("['3']", "3"),
        ("[3]", "3"),
        (r'["\\frac{1}{2}"]', r"\frac{1}{2}"),
        (r'["\frac{1}{2}"]', r"\frac{1}{2}"),
        ("['3', '4']", "3, 4"),
        ('["$3$"]', "3"),
        ("['None']", None),
        ("[1, 2]", "[1, 2]"),
        ("[x]", "[x]"),
        ("5.", "5"),
        (r"\frac{1}{2}.", r"\frac{1}{2}"),
        ("No solution.", "No solution"),
        ("1, 2, …", "1, 2, …"),
        ("1, 2, ...", "1, 2, ..."),
        ("**5**", "5"),
        ("__5__", "5"),
        ("**$5$**", "5"),
        ("$**5**$", "5"),
        ("<answer>5</answer>", "5"),
        ("<think>hm</think><answer> 5 </answer>", "5"),
        ("<answer>4</answer> no <answer>5</answer>", "5"),
        ("Answer: 5", "5"),
        ("answer: 5", "5"),
        ("**Answer:** 5", "5"),
        ("Final Answer: 5.", "5"),
        ("The answer is 5.", "5"),
        ("The final answer is $5$.", "5"),
        ("We add 2 and 3.\nThe answer is 5.", "5"),
        ("The answer is not obvious.\nWe add 2 and 3.", "The answer is not obvious.\nWe add 2 and 3"),
        ("１２", "12"),
        ("３．５", "3.5"),
        ("－５", "-5"),
        ("共１２个", "共１２个"),
    ],
)
def test_forms_of_ground_truths(solution: str, answer: str | None):
    assert extract_answer(solution) == answer


@pytest.mark.parametrize(
    "solution",
    [
        "nan",
        "NaN",
        "None",
        "none",
        "null",
        "N/A",
        "n/a",
        "NA",
        "notfound",
        "not found",
        "None.",
        "**None**",
        "#### None",
    ],
)
def test_texts_that_say_that_there_is_no_answer(solution: str):
    assert extract_answer(solution) is None


@pytest.mark.parametrize(
    ("solution", "answer"),
    [
        (0, "0"),
        (np.int64(5), "5"),
        (np.float64(0.5), "0.5"),
        (np.float32(0.1), "0.1"),
        (np.float64("nan"), None),
        (np.str_("5"), "5"),
        (np.array(5), "5"),
        (np.array(["5"], dtype=object), "5"),
        (torch.tensor(5), "5"),
        (torch.tensor(0.1), "0.1"),
        (torch.tensor([3, 4]), "3, 4"),
        (Decimal("5.50"), "5.50"),
        (Decimal("5.00"), "5"),
        (Decimal("NaN"), None),
        (Fraction(1, 2), "1/2"),
        (["5"], "5"),
        ([3, 4], "3, 4"),
        ((r"\boxed{5}",), "5"),
        ([None, "5"], "5"),
        ([], None),
        (["nan"], None),
    ],
)
def test_values_of_other_types(solution: object, answer: str | None):
    assert extract_answer(solution) == answer


@pytest.mark.parametrize("solution", [True, np.bool_(True), {"answer": 5}, b"5", [True], [{"answer": 5}]])
def test_other_types_are_refused(solution: object):
    with pytest.raises(ValueError, match="text, a number, a list of these or None"):
        extract_answer(solution)


def test_a_dict_is_refused_with_its_keys():
    with pytest.raises(ValueError, match=r"dict with the keys \['ground_truth', 'style'\].*name the field"):
        extract_answer({"style": "rule", "ground_truth": "5"})


def test_reading_ground_truths_loads_neither_trainers_nor_math_verify():
    code = (
        "import importlib.util, sys\n"
        "spec = importlib.util.spec_from_file_location('answers', 'repro_trl/answers.py')\n"
        "module = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(module)\n"
        "assert module.extract_answer('#### 1,450') == '1450'\n"
        "assert not {'torch', 'trl', 'transformers', 'math_verify', 'sympy', 'numpy'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1])


# Stated answers


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("The answer is 73.", "73"),
        ("The answer is $5$ because $x > 3$.", "5"),
        ("The answer is $5$ or $6$.", "$5$ or $6$"),
        ("The answer is 3.5 km.", "3.5 km"),
        ("The answer to this question is: 5", "5"),
        ("The answer should be 5.", "5"),
        ("The final answer, after all steps, is $5$.", "5"),
        ("**Final Answer**\n\\[\n5\n\\]", "5"),
        ("## Answer\n\n5\n", "5"),
        ("Answer: 4\nAnswer: 5", "5"),
        ("The answer isn't 5.", None),
        ("I do not know the answer. There are 5.", None),
        ("What is the answer? 5 is prime.", None),
        ("5", None),
        ("x = 5", None),
        ("", None),
        ("答案是 5。", "5"),
        ("Respuesta: 5", "5"),
    ],
)
def test_stated_answers(text: str, answer: str | None):
    assert stated_answer(text) == answer


def test_a_box_goes_before_a_stated_answer():
    assert given_answer(r"\boxed{5}. The answer is 6.") == "5"
    assert given_answer(r"The answer is \boxed{6") is None


@pytest.mark.parametrize(
    "text",
    [
        "\\boxed{" * 20000,
        "\\boxed 1 " * 20000,
        "\\boxed{" * 20000 + "5" + "}" * 20000,
        "\\boxed" * 20000,
        "\\boxed " + " " * 10**5,
        "#### " * 20000,
        "answer " * 20000,
        "answer is " * 20000,
        "<answer>" * 20000,
        "**" * 50000,
        "['" + "\\" * 10**5,
        '["' + 'a", "' * 20000,
        *(char * 10**5 for char in "{}$#\\\n"),
    ],
)
def test_long_junk_is_read_in_linear_time(text: str):
    start = time.process_time()
    extract_answer(text)
    given_answer(text)
    assert time.process_time() - start < 2


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
