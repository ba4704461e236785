"""Evaluation, score, inspect and training read a file of rows alike: the same problem and answer of each row."""

import json
from types import SimpleNamespace

import pytest
from tiny_tokenizers import byte_level_tokenizer

from repro_trl.cli import main
from repro_trl.columns import read_answer
from repro_trl.evaluation.rows import MATH_INSTRUCTION
from repro_trl.evaluation.tasks import load_task
from repro_trl.training.arguments import ReproScriptArguments
from repro_trl.training.problems import load_problems
from repro_trl.viewing.scorer import CompletionScorer

THOUGHT = "A: 3+4 = 7\n\nB: 9-4 = 5\n\n</think>\n\n\\boxed{75}"
WORKED = "We add 3 and 4 first. Then we take 4 from 9. So we are done."
# For problem and answer of a row: the row.
ROWS = {
    "prompt beside problem": lambda problem, answer: {"problem": "other", "prompt": problem, "answer": answer},
    "problem beside question": lambda problem, answer: {"question": "other", "problem": problem, "answer": answer},
    "capital letters": lambda problem, answer: {"Question": problem, "Answer": answer},
    "worked solution": lambda problem, answer: {"prompt": problem, "solution": WORKED, "answer": answer},
    "worked answer": lambda problem, answer: {"prompt": problem, "answer": WORKED, "solution": answer},
    "nested": lambda problem, answer: {"prompt": problem, "reward_model": {"ground_truth": answer}, "solution": "0"},
    "expected answer": lambda problem, answer: {"problem": problem, "solution": "0", "expected_answer": answer},
}


def by_evaluation(path, folder):
    problems = load_task(str(path)).problems
    return [(p.prompt[0]["content"].removesuffix(f"\n\n{MATH_INSTRUCTION}"), p.target.answer) for p in problems]


def by_training(path, folder):
    tokenizer = byte_level_tokenizer()
    tokenizer.chat_template = "{{ messages[0]['content'] }}"
    script_args = ReproScriptArguments(dataset_name=str(path), num_eval_problems=0, instruction="")
    training_args = SimpleNamespace(repro_answer_column=None, seed=0)
    train, _ = load_problems(script_args, training_args, tokenizer)
    return [(row["prompt"][0]["content"], read_answer(row, training_args.repro_answer_column)) for row in train]


def by_command(*arguments):
    """What reaches the scorer of `score` and `inspect`."""
    seen, score = [], CompletionScorer.score

    def record(scorer, prompt_ids, completions, answers):
        seen.extend((scorer.tokenizer.decode(prompt_ids), answer) for answer in answers)
        return score(scorer, prompt_ids, completions, answers)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CompletionScorer, "score", record)
        assert main([*map(str, arguments)]) == 0
    return seen


def by_score(path, folder):
    return by_command("score", path, folder / "out.jsonl")


def by_inspect(path, folder):
    return by_command("inspect", path, "--html", folder / "page.html")


@pytest.mark.parametrize("read", [by_evaluation, by_training, by_score, by_inspect])
@pytest.mark.parametrize("form", ROWS)
def test_all_read_the_same_problem_and_answer(tmp_path, monkeypatch, form, read):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    expected = [("A: 3+4 ; B: 9-4", "75"), ("A: 1+1 ; B: 2+2", "24"), ("A: 1+2 ; B: 1+1", "32")]
    rows = [{**ROWS[form](*row), "completion": THOUGHT} for row in expected]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert read(path, tmp_path) == expected
