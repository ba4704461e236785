import json
import math
import pickle
import zipfile

import pytest
from pocket.make import MODEL_DIR
from tiny_run_folders import write_completions, write_run
from transformers import AutoTokenizer

from repro_trl.cli import main
from repro_trl.messages import completion_text
from repro_trl.reporting import read_run
from repro_trl.reporting.completions import thought_statistics
from repro_trl.reporting.saved_settings import read_settings

ACCURACY = "rewards/accuracy/mean"


def test_settings_are_those_of_the_arguments(tmp_path):
    write_run(tmp_path, {"loss": [0.0]}, settings={"repro_alpha": 0.25, "seed": 7, "reward_weights": [1.0, 0.5]})
    (tmp_path / "config.json").write_text('{"hidden_size": 8}')
    settings, broken = read_settings(tmp_path)
    assert not broken and settings["config_class"] == "ReproGRPOConfig" and settings["model.hidden_size"] == 8
    assert settings["repro_alpha"] == 0.25 and settings["reward_weights"] == [1.0, 0.5]
    assert settings["lr_scheduler_type"] == "linear"  # an enum
    assert read_run(tmp_path).seed == 7


class _Hostile:
    def __reduce__(self):
        return exec, ("raise SystemExit('the pickle ran')",)


def test_a_hostile_pickle_runs_nothing(tmp_path):
    with zipfile.ZipFile(tmp_path / "training_args.bin", "w") as archive:
        archive.writestr("training_args/data.pkl", pickle.dumps({"repro_alpha": _Hostile()}))
    assert read_settings(tmp_path) == ({}, ["training_args.bin has no training arguments"])


@pytest.mark.parametrize("name", ["training_args.bin", "config.json", "run.json", "tokenizer.json"])
@pytest.mark.parametrize("content", [b"", b"no zip", b"{", b"[1]", b"\xff\xfe", b"[" * 100_000])
def test_a_broken_file_costs_a_run_what_it_tells_and_no_more(tmp_path, name, content):
    write_run(tmp_path, {ACCURACY: [0.5]}, settings={"seed": 3})
    write_completions(tmp_path, 1, ["a</think>b"], accuracy=[1.0])
    (tmp_path / name).write_bytes(content)
    run = read_run(tmp_path)
    assert run.log[0][ACCURACY] == 0.5 and run.training[1].accuracy == 1.0
    assert (run.seed == 3) == (name != "training_args.bin")
    notes = " ".join(run.notes)
    assert ("its tokenizer cannot be loaded" if name == "tokenizer.json" else name) in notes


@pytest.mark.parametrize("content", ["", "{", "{}", "[]", "null", '{"global_step": 9}', '{"global_step": "x", "log_h'])
def test_an_older_checkpoint_takes_the_place_of_a_broken_state(tmp_path, content):
    for step in (3, 6, 9):
        write_run(tmp_path / f"checkpoint-{step}", {ACCURACY: [0.5] * step}, settings={})
    write_run(tmp_path, {ACCURACY: [0.5] * 10}, settings={})
    for place in (tmp_path, tmp_path / "checkpoint-9"):
        (place / "trainer_state.json").write_text(content)
    run = read_run(tmp_path)
    assert len(run.log) == 6
    (note,) = [note for note in run.notes if "cannot be read as a trainer state" in note]
    assert "checkpoint-9" in note and note.endswith("using the log of checkpoint-6/trainer_state.json")


def test_log_entries_that_are_none_are_left_out_and_said(tmp_path):
    write_run(tmp_path, {ACCURACY: [0.5, 0.6]})
    state = json.loads((tmp_path / "trainer_state.json").read_text())
    state["log_history"] += [
        {"step": "three", ACCURACY: 0.7},
        "text",
        None,
        {ACCURACY: 1},
        {"step": 4, ACCURACY: "0.9"},
    ]
    (tmp_path / "trainer_state.json").write_text(json.dumps(state))
    run = read_run(tmp_path)
    assert [entry.get(ACCURACY) for entry in run.log] == [0.5, 0.6, None]
    assert any("entries without a step" in note and ACCURACY in note for note in run.notes)


def test_a_broken_file_of_completions_is_left_out_and_said(tmp_path):
    write_run(tmp_path, {ACCURACY: [0.5] * 4})
    for step in (1, 2, 3, 4):
        write_completions(tmp_path, step, [f"thought {step}"], accuracy=[1.0])
    whole = (tmp_path / "completions" / "completions_00002.parquet").read_bytes()
    (tmp_path / "completions" / "completions_00002.parquet").write_bytes(whole[: len(whole) // 2])
    write_completions(tmp_path, 3, [1.5], accuracy=[1.0])
    run = read_run(tmp_path)
    assert list(run.training) == [1, 4]
    (note,) = [note for note in run.notes if "skipped" in note]
    assert "completions_00002" in note and "1 more" in note


def test_rewards_that_are_text_are_no_verdicts(tmp_path):
    write_run(tmp_path, {ACCURACY: [0.5]})
    write_completions(tmp_path, 1, ["thought"], accuracy=["right"])
    assert math.isnan(read_run(tmp_path).training[1].accuracy)


def test_one_run_that_cannot_be_read_leaves_the_others(tmp_path, capsys):
    whole = write_run(tmp_path / "whole", {ACCURACY: [0.5]})
    broken = write_run(tmp_path / "broken", {ACCURACY: [0.5]})
    (broken / "trainer_state.json").write_text('{"global_st')
    page = tmp_path / "new" / "folder" / "page.html"
    assert main(["report", str(broken), str(whole), "--html", str(page)]) == 1
    printed = capsys.readouterr()
    assert "whole: whole (seed unknown)" in printed.out and page.is_file()
    assert "skipped: " in printed.err and "trainer_state.json cannot be read" in printed.err
    assert main(["report", str(broken), "--html", str(tmp_path / "no.html")]) == 2
    assert not (tmp_path / "no.html").exists()


def test_an_empty_or_missing_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match="neither logs"):
        read_run(tmp_path)
    with pytest.raises(ValueError, match="no such folder"):
        read_run(tmp_path / "nowhere")


def test_a_stopped_run_is_read_from_its_newest_checkpoint(tmp_path):
    for step in (5, 10):
        write_run(tmp_path / f"checkpoint-{step}", {ACCURACY: [0.5] * step}, settings={"seed": step})
    write_run(tmp_path / "checkpoint-none", {ACCURACY: [0.5] * 99})
    for step in (9, 10, 11):
        write_completions(tmp_path, step, [f"thought {step}"], accuracy=[1.0])
    run = read_run(tmp_path)
    assert (len(run.log), run.seed, list(run.training)) == (10, 10, [9, 10])
    assert any("1 step(s) after the end of the logs, at step 10" in note for note in run.notes)


def test_the_state_that_goes_furthest_is_taken(tmp_path):
    write_run(tmp_path, {ACCURACY: [0.5] * 8}, settings={})
    write_run(tmp_path / "checkpoint-6", {ACCURACY: [0.5] * 6}, settings={})
    assert len(read_run(tmp_path).log) == 8


def test_missing_pieces_are_said(tmp_path):
    notes = " ".join(read_run(write_run(tmp_path / "logs", {ACCURACY: [0.5]})).notes)
    assert "no training_args.bin" in notes and "no completions were logged" in notes and "no RePro metrics" in notes
    write_completions(tmp_path / "completions only", 3, ["a</think>b"], accuracy=[1.0])
    run = read_run(tmp_path / "completions only")
    notes = " ".join(run.notes)
    assert "no trainer_state.json" in notes and "no tokenizer" in notes
    assert run.training[3].accuracy == 1 and run.accuracy_reward == "accuracy"


@pytest.mark.parametrize(
    ("rewards", "wanted", "chosen"),
    [
        (["score"], None, "score"),
        (["score", "accuracy_reward"], None, "accuracy_reward"),
        (["score", "answer_reward"], None, "answer_reward"),
        (["format", "length"], None, None),
        (["format", "length"], "length", "length"),
        (["accuracy", "strict accuracy"], None, None),
        (["format", "answer_reward"], None, "answer_reward"),
        (["format", "accuracy_reward"], "answer_reward", "accuracy_reward"),
        (["format", "answer_reward"], "accuracy_reward", "answer_reward"),
        (["answer_reward", "accuracy_reward"], None, None),
        (["answer_reward", "accuracy_reward"], "accuracy_reward", "accuracy_reward"),
    ],
)
def test_the_reward_that_stands_for_accuracy(tmp_path, rewards, wanted, chosen):
    write_run(tmp_path, {f"rewards/{name}/mean": [0.5] for name in rewards})
    run = read_run(tmp_path, wanted)
    assert run.accuracy_reward == chosen
    assert any("--accuracy" in note for note in run.notes) == (chosen is None)


def test_an_unknown_reward_is_refused(tmp_path):
    write_run(tmp_path, {ACCURACY: [0.5]})
    with pytest.raises(ValueError, match=r"'verdict'.*accuracy"):
        read_run(tmp_path, "verdict")


def test_rows_of_an_evaluation_are_told_from_training_ones(tmp_path):
    evaluation = {"runtime": 2.0, "samples_per_second": 1.0, ACCURACY: 0.5}
    write_run(tmp_path, {ACCURACY: [0.5] * 3}, {2: evaluation})
    write_completions(tmp_path, 1, ["a", "b", "c"], accuracy=[1.0, 1.0, 1.0])
    write_completions(tmp_path, 2, ["left over", "x", "y"], accuracy=[1.0, 0.0, 0.0])
    # Between two generations TRL writes the same completions again.
    table = json.loads((tmp_path / "trainer_state.json").read_text())
    assert table["global_step"] == 3
    (tmp_path / "completions" / "completions_00003.parquet").write_bytes(
        (tmp_path / "completions" / "completions_00002.parquet").read_bytes()
    )
    run = read_run(tmp_path)
    assert list(run.training) == [1] and list(run.held_out) == [2]
    assert run.held_out[2].num_completions == 2 and run.held_out[2].accuracy == 0


def test_the_run_s_own_delimiter_and_marker_are_used(tmp_path):
    write_run(tmp_path, {ACCURACY: [0.5]}, settings={"repro_delimiter": ";", "repro_think_end": "</t>"})
    write_completions(tmp_path, 1, ["wait; 2; wait</t>wait; wait", "wait\n\nwait"], accuracy=[1.0, None])
    run = read_run(tmp_path)
    assert run.training[1].backtracks == 1.5 and run.training[1].unclosed_thoughts == 0.5
    assert run.training[1].accuracy == 1
    write_run(tmp_path, {ACCURACY: [0.5]}, settings={"repro_think_end": ""})
    assert read_run(tmp_path).training[1].backtracks == 1.5


def test_a_marker_that_is_nowhere_is_said(tmp_path):
    write_run(tmp_path, {ACCURACY: [0.5]}, settings={})
    write_completions(tmp_path, 1, ["a", None], accuracy=[1.0, 0.0])
    assert any("no completion has '</think>'" in note for note in read_run(tmp_path).notes)


@pytest.mark.parametrize(
    ("completion", "text"),
    [
        (None, ""),
        ("a</think>b", "a</think>b"),
        ([], ""),
        ([{"role": "assistant", "content": "a"}, {"role": "tool", "content": "7"}], "a"),
        ([{"role": "assistant", "content": "a"}, {"role": "assistant", "content": "b"}], "ab"),
        ([{"role": "assistant", "content": "b", "reasoning_content": "a"}], "a</think>b"),
        ([{"role": "assistant", "content": None, "tool_calls": []}], ""),
        ([{"role": "assistant", "content": [{"type": "text", "text": "a"}, {"type": "image"}]}], "a"),
        ([None, {"role": "assistant", "content": ["a", None]}, {"role": "assistant", "content": 7}], ""),
    ],
)  # fmt: skip
def test_text_of_a_completion(completion, text):
    assert completion_text(completion) == text


def test_thoughts_by_verdict():
    tokenizer = AutoTokenizer.from_pretrained(MODEL_DIR)
    completions = ["A: 1+1 = 2</think>x", "B", " </think>B", "C: 1"]
    statistics = thought_statistics(completions, [1.0, 0.0, float("nan"), None], tokenizer)
    lengths = [len(tokenizer(text)["input_ids"]) for text in ("A: 1+1 = 2", "B", " ", "C: 1")]
    assert statistics.thinking_tokens == sum(lengths) / 4
    assert (statistics.thinking_tokens_correct, statistics.thinking_tokens_wrong) == (lengths[0], lengths[1])
    assert statistics.accuracy == 0.5 and statistics.empty_thoughts == 0.25 and statistics.unclosed_thoughts == 0.5


def test_nothing_to_average_is_nan():
    statistics = thought_statistics([], None, AutoTokenizer.from_pretrained(MODEL_DIR))
    assert statistics.num_completions == 0 and statistics.accuracy != statistics.accuracy
    assert statistics.backtracks_by_kind["wait"] != statistics.backtracks_by_kind["wait"]
