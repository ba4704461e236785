"""Where the answers come from: what is found, said, refused, and kept, without a trainer."""

import json
from decimal import Decimal
from types import SimpleNamespace

import numpy as np
import pytest
from accelerate import PartialState
from datasets import Dataset, IterableDataset
from ranks import run_ranks

from repro_trl.trainers.ground_truth import GroundTruth

WORKED = "Adding up all of the terms, we find that the sum is the one we were looking for. " * 5
SHORT_WORKED = "She sold 48/2 = 24 clips in May. So she sold 48+24 = 72 clips altogether."


def ground_truth(data, answer_fn=None, is_main_process=True, **settings):
    dataset = Dataset.from_list(data) if isinstance(data, list) else data
    args = {"repro_alpha": 0.05, "repro_answer_column": None, "remove_unused_columns": False, **settings}
    return GroundTruth(dataset, SimpleNamespace(**args), answer_fn, is_main_process)


def test_column_and_one_example_are_said_once(capsys, caplog):
    truth = ground_truth([{"prompt": "?", "solution": WORKED, "answer": a} for a in ["5", "6", "7", None]])
    said = capsys.readouterr().out.splitlines()
    assert said == [
        "Reading the ground truth from column 'answer' (not from 'solution'), for example '5'. "
        "75% of the 4 rows have an answer."
    ]
    assert truth.column == "answer" and truth.answer_of({"answer": r"so \boxed{8}"}) == "8"
    ground_truth([{"answer": "5"}], is_main_process=False)
    assert not capsys.readouterr().out and not caplog.text


def test_share_of_a_huge_dataset_is_that_of_a_sample_spread_over_it(capsys):
    ground_truth([{"answer": str(i) if i < 3000 else None} for i in range(4000)])
    assert "75% of the 2,000 rows sampled from 4,000 have an answer" in capsys.readouterr().out


def test_few_answers_are_a_warning(capsys, caplog):
    ground_truth([{"answer": "5" if i == 300 else None} for i in range(1000)])
    assert "Less than 1% of the 1,000 rows have an answer" in caplog.text and not capsys.readouterr().out


@pytest.mark.parametrize("blank", ["", "  ", None, r"\boxed{5", float("nan")])
@pytest.mark.parametrize("named", [None, "solution"])
def test_a_column_that_holds_nothing_is_an_error(blank, named):
    with pytest.raises(ValueError, match="repro_answer_column='solution': found no answer in the 3 rows"):
        ground_truth([{"prompt": "?", "solution": blank}] * 3, repro_answer_column=named)


def test_error_for_an_empty_column_names_the_one_that_has_answers():
    rows = [{"prompt": "?", "answer": "", "solution": "5"}]
    with pytest.raises(ValueError, match=r"repro_answer_column='answer'.*'solution' may have them"):
        ground_truth(rows, repro_answer_column="answer")


@pytest.mark.parametrize("worked", [WORKED, SHORT_WORKED, "First we add.\n\nThen we get the number five, as we said."])
def test_worked_solutions_in_place_of_answers_are_refused_with_share_and_example(worked):
    rows = [{"solution": worked}, {"solution": worked}, {"solution": "5"}]
    with pytest.raises(ValueError) as error:
        ground_truth(rows)
    assert "67% of the answers look like worked solutions" in str(error.value)
    assert repr(worked)[:40] in str(error.value) and "\\boxed{}" in str(error.value)


def test_few_worked_solutions_are_a_warning_with_share_and_example(caplog):
    ground_truth([{"solution": WORKED}] + [{"solution": "5"}] * 3)
    assert "25% of the answers look like worked solutions" in caplog.text and "for example 'Adding up" in caplog.text


@pytest.mark.parametrize(
    "answer", ["St. Louis", r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}", "x = 1, y = 2.5", "A"]
)
def test_answers_of_several_words_are_answers(capsys, caplog, answer):
    ground_truth([{"answer": answer}])
    assert "All of the 1 rows" in capsys.readouterr().out and not caplog.text


def test_nested_columns_are_found_or_named():
    verl = {"prompt": "?", "reward_model": {"ground_truth": "5", "style": "rule"}}
    assert ground_truth([verl]).column == "reward_model.ground_truth"
    named = ground_truth([{"prompt": "?", "meta": {"a": {"b": 5}}}], repro_answer_column="meta.a.b")
    assert named.answer_of({"meta": {"a": {"b": 7}}}) == "7"
    assert (
        ground_truth([{"verification_info": json.dumps({"ground_truth": 5})}]).answer_of(
            {"verification_info": '{"ground_truth": 6}'}
        )
        == "6"
    )


@pytest.mark.parametrize(
    ("row", "column", "message"),
    [
        ({"reward_model": {"ground_truth": "5"}}, "reward_model", "has dicts as values.*'reward_model.ground_truth'"),
        (
            {"reward_model": {"ground_truth": "5"}},
            "reward_model.truth",
            "'reward_model.truth' is not a column.*'reward_model.ground_truth'",
        ),
        ({"meta": {"gold": "5"}}, None, "'meta.gold' looks like one"),
        ({"meta": json.dumps({"gold": "5"})}, None, "'meta.gold' looks like one"),
        ({"truth": "5"}, None, "'truth' looks like one"),
        ({"answer": "5"}, "truth", "repro_answer_column='truth' is not a column of the dataset, which has .*'answer'"),
        ({"answer": True}, None, "column 'answer'.*True"),
    ],
)
def test_errors_name_what_to_write(row, column, message):
    with pytest.raises(ValueError, match=message):
        ground_truth([{"prompt": "?", **row}], repro_answer_column=column)


def test_data_without_any_ground_truth_are_a_warning(caplog):
    truth = ground_truth([{"prompt": "?"}])
    assert not truth.has_answers and truth.answer_of({"prompt": "?"}) is None
    assert "no column with a ground truth, only ['prompt']" in caplog.text


def test_nothing_is_checked_or_said_with_alpha_zero(capsys, caplog):
    for rows in ([{"solution": ""}], [{"prompt": "?"}]):
        truth = ground_truth(rows, repro_alpha=0)
        truth.observe(rows)
    ground_truth([{"solution": WORKED}], repro_alpha=0, repro_answer_column="nowhere")
    assert not capsys.readouterr().out and not caplog.text


# ----------------------------------------------------------------------------------------------------------- answer_fn


@pytest.mark.parametrize(
    ("value", "answer"),
    [
        (0, "0"),
        (27.0, "27"),
        (np.int64(5), "5"),
        (np.float64(0.5), "0.5"),
        (Decimal("0.50"), "0.50"),
        (["3"], "3"),
        (float("nan"), None),
        (r"so \boxed{5}", "5"),
        ("6 * 7 = 42\n#### 42", "42"),
        ("", None),
        (None, None),
    ],
)
def test_answer_fn_is_held_to_what_a_column_is(value, answer):
    truth = ground_truth([{"key": 0}, {"key": 1}], answer_fn=lambda row: value if row["key"] else "1")
    assert truth.answer_of({"key": 1}) == answer and truth.answer_of({"key": 0}) == "1"


@pytest.mark.parametrize(
    ("answer_fn", "message"),
    [
        (lambda row: None, "answer_fn: found no answer in the 2 rows"),
        (lambda row: row["solution"], r"answer_fn reads the column 'solution'.*\['text'\]"),
        (lambda row: {"a": 1}, "answer_fn: "),
        (lambda row: True, "answer_fn: .*"),
        (lambda row: WORKED, "answer_fn: 100% of the answers look like worked solutions"),
    ],
)
def test_answer_fn_is_checked_before_training(answer_fn, message):
    with pytest.raises(ValueError, match=message):
        ground_truth([{"text": "5"}] * 2, answer_fn=answer_fn)


def test_answer_fn_keeps_all_columns(caplog):
    truth = ground_truth([{"prompt": "?", "a": 1, "b": 2}], lambda row: row["a"], remove_unused_columns=True)
    assert truth.kept_columns(["prompt", "images"]) == ["prompt", "images", "a", "b"]
    assert "remove_unused_columns=True is ignored" in caplog.text
    stream = IterableDataset.from_generator(lambda: iter([{"prompt": "?"}]))
    with pytest.raises(ValueError, match="remove_unused_columns"):
        ground_truth(stream, lambda row: 1, remove_unused_columns=True)


def test_column_is_kept_with_what_it_is_nested_in():
    truth = ground_truth([{"prompt": "?", "reward_model": {"ground_truth": "5"}}], remove_unused_columns=True)
    assert "reward_model" in truth.kept_columns(["prompt"])
    assert ground_truth([{"answer": "5"}]).kept_columns(["prompt"]) == ["prompt", "answer"]


# ------------------------------------------------------------------------------------------------- formats and streams


@pytest.mark.parametrize("format", ["numpy", "torch", "pandas", None])
@pytest.mark.parametrize("values", [[5, 0], [0.5, 2.0], ["5", r"\boxed{6}"]])
def test_formatted_datasets(format, values):
    dataset = Dataset.from_list([{"prompt": "?", "answer": value} for value in values])
    plain = [ground_truth(dataset).answer_of(row) for row in dataset]
    formatted = dataset.with_format(format if format != "pandas" else None)
    truth = ground_truth(formatted)
    assert [truth.answer_of(row) for row in formatted] == plain and None not in plain


def test_decimal_columns_and_transforms():
    import pyarrow

    table = pyarrow.table({"answer": pyarrow.array([Decimal("1.50"), Decimal("2.00")])})
    truth = ground_truth(Dataset(table))
    assert truth.answer_of({"answer": Decimal("2.00")}) == "2"
    made = Dataset.from_list([{"raw": "5"}] * 3).with_transform(lambda rows: {"answer": rows["raw"]})
    assert ground_truth(made).column == "answer"


def stream_of(rows):
    return IterableDataset.from_generator(lambda: iter(rows))


def observe(truth, rows, batches):
    for _ in range(batches):
        truth.observe(rows)


def test_stream_is_checked_on_its_first_batches(capsys):
    rows = [{"prompt": "?", "solution": WORKED, "answer": a} for a in ("5", None)]
    truth = ground_truth(stream_of(rows))
    assert truth.column is None and truth.answer_of(rows[0]) is None
    observe(truth, rows, 10)
    assert truth.answer_of(rows[0]) == "5"
    (line,) = capsys.readouterr().out.splitlines()
    assert "column 'answer'" in line and "50% of the rows of the first 4 generation batches have an answer" in line


@pytest.mark.parametrize("blank", ["", None])
def test_stream_without_answers_is_a_warning_and_then_an_error(caplog, blank):
    rows = [{"prompt": "?", "solution": blank}]
    truth = ground_truth(stream_of(rows))
    observe(truth, rows, 1)
    assert "repro_answer_column='solution': found no answer in the first generation batch" in caplog.text
    with pytest.raises(ValueError, match="repro_answer_column='solution': found no answer in the rows"):
        observe(truth, rows, 3)


def test_stream_of_worked_solutions_is_refused():
    with pytest.raises(ValueError, match="100% of the answers"):
        observe(ground_truth(stream_of([])), [{"solution": WORKED}], 4)


def test_stream_without_the_column(caplog):
    with pytest.raises(ValueError, match="'truth' looks like one"):
        observe(ground_truth(stream_of([])), [{"truth": "5"}], 1)
    with pytest.raises(ValueError, match="repro_answer_column='gone' is not a column"):
        observe(ground_truth(stream_of([]), repro_answer_column="gone"), [{"answer": "5"}], 1)
    known = Dataset.from_list([{"answer": "5"}]).to_iterable_dataset()
    with pytest.raises(ValueError, match="repro_answer_column='gone' is not a column"):
        ground_truth(known, repro_answer_column="gone")
    truth = ground_truth(stream_of([]))
    observe(truth, [{"prompt": "?"}], 5)
    assert not truth.has_answers and caplog.text.count("no column with a ground truth") == 1


def _observe_on_rank(answers_of_ranks, batches):
    state = PartialState(cpu=True)
    answer = answers_of_ranks[state.process_index]
    rows = [{"prompt": "?"} if answer == "no column" else {"prompt": "?", "answer": answer}]
    truth = ground_truth(stream_of([]), is_main_process=state.is_main_process)
    try:
        observe(truth, rows, batches)
    except ValueError as error:
        return str(error)
    return truth.column


@pytest.mark.distributed
@pytest.mark.parametrize(
    ("answers", "outcome"),
    [(["", "5"], "answer"), (["no column", "5"], "answer"), (["", ""], "found no answer in the rows")],
)
def test_processes_of_a_stream_judge_all_rows_together(tmp_path, answers, outcome):
    results = run_ranks(_observe_on_rank, tmp_path, answers, 4)
    assert len(results) == 2 and results[0] == results[1] and outcome in results[0]
