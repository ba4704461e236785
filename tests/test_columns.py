import json

import pytest

from repro_trl.columns import (
    ANSWER_COLUMNS,
    PROBLEM_COLUMNS,
    column_paths,
    find_answer_column,
    find_column,
    ground_truth_paths,
    has_column,
    read_answer,
    read_column,
)

WORKED = "Adding up all of the terms, we find that the sum is the one we were looking for. " * 5

VERL = {
    "data_source": "math_dapo",
    "prompt": [{"role": "user", "content": "1 + 1"}],
    "reward_model": {"ground_truth": "34", "style": "rule-lighteval/MATH_v2"},
    "extra_info": {"index": "7", "answer": WORKED},
}


@pytest.mark.parametrize(
    ("row", "column", "answer"),
    [
        ({"solution": WORKED, "answer": "5"}, "answer", "5"),
        ({"solution": "5", "answer": WORKED}, "solution", "5"),
        ({"solution": WORKED + r"\boxed{5}", "answer": None}, "solution", "5"),
        ({"Problem": "", "Solution": WORKED, "Answer": 5}, "Answer", "5"),
        ({"solution": r"\boxed{5}"}, "solution", "5"),
        ({"final_answer": "5", "r1_solution_1": WORKED}, "final_answer", "5"),
        (VERL, "reward_model.ground_truth", "34"),
        ({"extra_info": {"answer": "5", "split": "train"}}, "extra_info.answer", "5"),
        ({"verification_info": {"ground_truth": "5"}}, "verification_info.ground_truth", "5"),
        ({"verification_info": json.dumps({"ground_truth": "5"})}, "verification_info.ground_truth", "5"),
        ({"verification_info": "{'answer': 5}"}, "verification_info.answer", "5"),
        ({"reward_model.ground_truth": "5"}, "reward_model.ground_truth", "5"),  # a flattened dataset
        ({"reward_model": None, "solution": "5"}, "solution", "5"),
    ],
)
def test_answer_is_preferred_to_a_worked_solution(row, column, answer):
    assert find_answer_column([row]) == column
    assert read_answer(row, column) == answer


def test_choice_is_made_over_all_rows_that_are_given():
    assert find_answer_column([{"answer": None, "solution": WORKED}, {"answer": "5", "solution": WORKED}]) == "answer"
    assert find_answer_column([{"reward_model": None}, VERL]) == "reward_model.ground_truth"


def test_without_any_answer_the_first_column_there_is_is_taken_or_none():
    assert find_answer_column([{"solution": WORKED, "answer": ""}]) == "answer"
    assert find_answer_column([{"text": "5"}]) is None
    assert find_answer_column([]) is None


def test_one_order_of_problem_columns():
    assert find_column([{"question": "", "problem": "", "prompt": ""}], PROBLEM_COLUMNS) == "prompt"
    assert find_column([{"Question": ""}], PROBLEM_COLUMNS) == "Question"
    assert ANSWER_COLUMNS[-1] == "solution"


def test_dotted_names_lead_through_dicts_lists_and_json():
    row = {"conversations": [{"from": "human"}, {"from": "assistant", "ground_truth": {"value": "9"}}]}
    assert read_column(row, "conversations.1.ground_truth.value") == "9"
    assert read_column({"meta": json.dumps({"a": {"b": 0}})}, "meta.a.b") == 0
    assert read_column({"a": {"b.c": 1}}, "a.b.c") == 1
    assert read_column({"a.b": 3, "a": {"b": 4}}, "a.b") == 3
    assert has_column({"a": {"b": None}}, "a.b")
    for missing in ("a.c", "b", "a.b.c", "conversations.2", "conversations.x"):
        assert not has_column({"a": {"b": 1}, **row}, missing)
        assert read_column({"a": {"b": 1}, **row}, missing) is None


def test_paths_show_what_a_row_can_be_read_by():
    assert column_paths(VERL) == [
        "data_source",
        "prompt",
        "reward_model",
        "reward_model.ground_truth",
        "reward_model.style",
        "extra_info",
        "extra_info.index",
        "extra_info.answer",
    ]
    row = {"meta": {"gold": "5", "id": 1}, "1": {"ground_truth": {"value": "7"}}, "gt": 3, "text": ""}
    assert ground_truth_paths(row) == ["meta.gold", "1.ground_truth.value", "gt"]


def test_value_that_is_no_answer_is_named_with_its_column():
    with pytest.raises(ValueError, match="'reward_model'"):
        read_answer(VERL, "reward_model")
