"""A few rows in the columns and forms of eight public datasets, written for the tests, with the answers they hold."""

import json
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Layout:
    """
    Attributes:
        rows: as `datasets` gives them.
        column: where the ground truth is found.
        answers: bare answers of the rows, in their order.
        problem: column with the problem.
        settings: what has to be set; nothing else has.
    """

    rows: list[dict[str, Any]]
    column: str
    answers: list[str | None]
    problem: str
    settings: dict[str, str] = field(default_factory=dict)


WORKED = (
    "We begin by writing the equation in the form that is asked for. Multiplying both sides by the same number and "
    "collecting terms, we see that only one value is possible, and checking it in the original equation shows that it "
    "does satisfy every condition of the problem. "
)
ASK = 'Solve the following math problem step by step. Remember to put your answer on its own line after "Answer:".\n\n'


def _user(text: str) -> list[dict[str, str]]:
    return [{"content": text, "role": "user"}]


LAYOUTS = {
    "DeepScaleR": Layout(
        [
            {"problem": "What is $2 + 3$?", "answer": "5", "solution": WORKED + r"\boxed{5}"},
            {"problem": "Simplify $2/4$.", "answer": r"\frac{1}{2}", "solution": ""},
            {"problem": "How many sides?", "answer": "12", "solution": WORKED},
        ],
        column="answer",
        answers=["5", r"\frac{1}{2}", "12"],
        problem="problem",
    ),
    "DAPO-Math-17k": Layout(
        [
            {
                "data_source": "math_dapo",
                "prompt": _user(f"{ASK}What is {n} + 3?"),
                "ability": "MATH",
                "reward_model": {"ground_truth": str(n + 3), "style": "rule-lighteval/MATH_v2"},
                "extra_info": {"index": f"9a9b6eb4-0{n}"},
            }
            for n in range(3)
        ],
        column="reward_model.ground_truth",
        answers=["3", "4", "5"],
        problem="prompt",
    ),
    "OpenR1-Math-220k": Layout(
        [
            {
                "problem": f"Find $x$ where $x = {n} + 5$.",
                "solution": WORKED,
                "answer": str(n + 5),
                "problem_type": "Algebra",
                "question_type": "math-word-problem",
                "source": "olympiads",
                "uuid": f"u{n}",
                "is_reasoning_complete": [True, True],
                "generations": ["<think>\nHm.\n</think>\n\n" + WORKED] * 2,
                "correctness_math_verify": [True, False],
                "correctness_count": 1,
                "messages": [*_user(f"Find {n}"), {"content": WORKED, "role": "assistant"}],
            }
            for n in range(3)
        ],
        column="answer",
        answers=["5", "6", "7"],
        problem="problem",
    ),
    "NuminaMath-1.5": Layout(
        [
            {
                "problem": f"Problem {n}.",
                "solution": WORKED,
                "answer": answer,
                "problem_type": "Number Theory",
                "question_type": "math-word-problem",
                "problem_is_valid": "Yes",
                "solution_is_valid": "Yes",
                "source": "aops_forum",
                "synthetic": False,
            }
            for n, answer in enumerate([r"(1, 2), (2, 1)", "notfound", "7", "proof"])
        ],
        column="answer",
        answers=["(1, 2), (2, 1)", None, "7", None],
        problem="problem",
    ),
    "Skywork-OR1": Layout(
        [
            {
                "data_source": "train-math-deepscaler",
                "prompt": _user(f"What is {n} + 3? Output the final answer within \\boxed{{}}."),
                "ability": "math",
                "reward_model": {"ground_truth": json.dumps([str(n + 3)]), "style": "rule"},
                "extra_info": {"index": n, "model_difficulty": {"DeepSeek-R1-Distill-Qwen-7B": 4}},
            }
            for n in range(3)
        ],
        column="reward_model.ground_truth",
        answers=["3", "4", "5"],
        problem="prompt",
    ),
    "ORZ": Layout(
        [
            {
                "0": {"from": "human", "value": f"What is {n} + 3?"},
                "1": {"from": "assistant", "ground_truth": {"value": str(n + 3)}},
            }
            for n in range(3)
        ],
        column="1.ground_truth.value",
        answers=["3", "4", "5"],
        problem="0.value",
        settings={"prompt_column": "0.value", "repro_answer_column": "1.ground_truth.value"},
    ),
    "GSM8K": Layout(
        [
            {
                "question": f"Ann has {n} eggs and buys 1,000 more. How many has she?",
                "answer": f"She has {n} + 1,000 = <<{n}+1000={n + 1000}>>1,00{n} eggs.\n#### 1,00{n}",
            }
            for n in range(3)
        ],
        column="answer",
        answers=["1000", "1001", "1002"],
        problem="question",
    ),
    "MATH": Layout(
        [
            {
                "problem": f"Compute ${n} + 3$.",
                "level": "Level 1",
                "type": "Prealgebra",
                "solution": f"{WORKED}We get ${n} + 3 = \\boxed{{{n + 3}}}$.",
            }
            for n in range(3)
        ],
        column="solution",
        answers=["3", "4", "5"],
        problem="problem",
    ),
}
