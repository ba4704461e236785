"""Reward functions for TRL trainers."""

import json
import pickle
import threading
import time
from pathlib import Path

import pytest
from trl.rewards import accuracy_reward as trl_accuracy_reward

from repro_trl.rewards import answer_reward, make_answer_reward

MATH = Path(__file__).parents[2] / "shared" / "data" / "math_cot_100.jsonl"


def test_answer_reward_forms():
    texts = [r"\boxed{72}", r"\boxed{71}", "", r"\boxed{1450}", r"\boxed{27}", r"\boxed{0}"]
    solutions = ["so 72\n#### 72", r"so \boxed{72}", "72", "#### 1,450", 27.0, None]
    expected = [1.0, 0.0, 0.0, 1.0, 1.0, None]
    assert answer_reward(texts, solutions) == expected
    conversations = [[{"role": "assistant", "content": text}] for text in texts]
    assert answer_reward(completions=conversations, solution=solutions, prompts=None, other=[1] * 6) == expected


def test_answer_reward_judges_the_last_message():
    call = {"role": "assistant", "tool_calls": [{"type": "function"}]}
    tool = {"role": "tool", "name": "calculator", "content": r"\boxed{5}"}
    answer = {"role": "assistant", "content": r"\boxed{5}"}
    completions = [[call, tool, answer], [call, tool], [call], [{"role": "assistant", "content": None}], []]
    assert answer_reward(completions, ["5"] * 5) == [1.0, 0.0, 0.0, 0.0, 0.0]


def test_answer_reward_needs_one_solution_each():
    with pytest.raises(ValueError):
        answer_reward(["a", "b"], ["5"])


def test_make_answer_reward():
    reward = pickle.loads(pickle.dumps(make_answer_reward("answer", think_end="[end]")))
    assert reward.__name__ == "answer_reward"
    completions = [r"\boxed{6} [end] \boxed{5}"]
    assert reward(completions=completions, prompts=["?"], answer=["5"], solution=["6"]) == [1.0]
    assert make_answer_reward()(completions=completions, solution=["6"]) == [0.0]
    with pytest.raises(ValueError, match=r"answer_column='answer'.*\['solution'\]"):
        reward(completions=completions, solution=["6"])


def test_answer_reward_off_the_main_thread():
    rewards = []
    thread = threading.Thread(target=lambda: rewards.extend(answer_reward([r"\boxed{4/8}"], ["0.5"])))
    thread.start()
    thread.join()
    assert rewards == [1.0]


def test_agreement_with_trl():
    if not MATH.exists():
        pytest.skip(f"real data not found: {MATH}")
    rows = [json.loads(line) for line in MATH.read_text(encoding="utf-8").splitlines()]
    for row in rows[:30]:
        conversations = [[{"role": "assistant", "content": code}] for code in row["code"]]
        expected = trl_accuracy_reward(conversations, [row["solution"]] * len(conversations))
        assert answer_reward(conversations, [row["solution"]] * len(conversations)) == expected


def test_hundreds_of_verdicts_take_no_seconds():
    completions = [rf"<think> …</think> \boxed{{{i % 10}}}" for i in range(5000)]
    start = time.process_time()
    # A second of math-verify is about a thousand comparisons; repeated ones are not made again.
    assert sum(answer_reward(completions, ["7"] * 5000)) == 500
    assert time.process_time() - start < 1
