"""What a training shows: one bar in a terminal, one line per logging step elsewhere, and the table at the end."""

import io
import sys
from types import SimpleNamespace

import pytest
from transformers import ProgressCallback

from repro_trl.training.progress import (
    HELD_OUT_COLUMNS,
    ProgressBar,
    ProgressLines,
    evaluation_columns,
    show_progress,
    training_columns,
)
from repro_trl.training.tables import compare_runs, format_table, write_rows

TRAINING_LOGS = {
    "loss": 0.1,
    "rewards/answer_reward/mean": 0.5,
    "rewards/brevity/mean": -3.0,
    "thinking_tokens": 41.25,
    "backtracks": 1.5,
    "completions/clipped_ratio": 0.0,
    "repro/objective_gain": 0.25,
}
HELD_OUT_LOGS = {
    "eval_held_out/accuracy": 0.25,
    "eval_held_out/thinking_tokens": 50.0,
    "eval_held_out/backtracks": 2.0,
    "eval_held_out/truncation_rate": 0.125,
}


class Trainer:
    def __init__(self, **args):
        self.args = SimpleNamespace(**({"disable_tqdm": False, "eval_on_start": True} | args))
        self.reward_func_names = ["answer_reward", "brevity"]
        self.callbacks = [ProgressCallback]

    def pop_callback(self, callback):
        self.callbacks = [other for other in self.callbacks if other is not callback]

    def add_callback(self, callback):
        self.callbacks.append(callback)


@pytest.fixture
def columns():
    return training_columns(Trainer()), HELD_OUT_COLUMNS


def train(callback, first_process=True):
    """Two steps, each logged, with an evaluation before them."""
    args = SimpleNamespace(eval_on_start=True)
    state = SimpleNamespace(is_world_process_zero=first_process, global_step=0, max_steps=2)
    callback.on_train_begin(args, state, None)
    callback.on_prediction_step(args, state, None)
    callback.on_log(args, state, None, logs=HELD_OUT_LOGS)
    callback.on_log(args, state, None, logs={"eval_loss": 0.0})
    for step in (1, 2):
        callback.on_step_begin(args, state, None)
        state.global_step = step
        callback.on_step_end(args, state, None)
        callback.on_log(args, state, None, logs=TRAINING_LOGS)
    callback.on_log(args, state, None, logs={"train_runtime": 1.0})
    callback.on_train_end(args, state, None)


def test_lines(columns, capsys):
    train(ProgressLines(*columns))
    assert capsys.readouterr().out.splitlines() == [
        "step    0/2  held out:  accuracy 0.25  thinking tokens 50.00  backtracks 2.00  truncated 0.12",
        "step    1/2  training:  accuracy 0.50  thinking tokens 41.25  backtracks 1.50  J gain +0.25",
        "step    2/2  training:  accuracy 0.50  thinking tokens 41.25  backtracks 1.50  J gain +0.25",
    ]


def test_one_bar_and_no_lines(columns, monkeypatch, capsys):
    terminal = io.StringIO()
    monkeypatch.setattr(sys, "stderr", terminal)
    train(ProgressBar(*columns))
    shown = terminal.getvalue()
    assert capsys.readouterr().out == ""
    assert shown.count("\n") == 1  # one bar, closed once
    states = shown.split("\r")
    assert any(state.startswith("evaluating held-out problems 0/2") and "accuracy 0.25" in state for state in states)
    last = states[-1]
    assert last.startswith("2/2 ##########")  # ten signs where there is no width to fill
    assert last.rstrip().endswith("<00:00, accuracy 0.50  thinking 41  backtracks 1.5  J gain +0.25")
    assert len(last.strip()) - 10 < 80


@pytest.mark.parametrize("callback", [ProgressBar, ProgressLines])
def test_only_the_first_process_shows_it(columns, capsys, callback):
    train(callback(*columns), first_process=False)
    printed = capsys.readouterr()
    assert printed.out == printed.err == ""


@pytest.mark.parametrize(
    ("terminal", "disable_tqdm", "kind"),
    [(True, False, ProgressBar), (True, True, ProgressLines), (False, False, ProgressLines)],
)
def test_the_bar_is_for_terminals(monkeypatch, terminal, disable_tqdm, kind):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    trainer = Trainer(disable_tqdm=disable_tqdm)
    show_progress(trainer, evaluation_columns(trainer))
    (callback,) = trainer.callbacks
    assert type(callback) is kind


def test_the_reward_that_counts_as_accuracy_is_the_first():
    trainer = Trainer()
    trainer.reward_func_names = ["verdict", "answer_reward"]
    assert training_columns(trainer)["accuracy"] == "rewards/verdict/mean"
    assert evaluation_columns(trainer)["accuracy"] == "eval_rewards/verdict/mean"
    assert evaluation_columns(trainer)["J gain"] == "eval_repro/objective_gain"


def test_the_table_leaves_out_what_was_not_measured():
    rows = {"before": {"accuracy": 0.25, "J gain": None}, "after": {"accuracy": 1.0, "J gain": None}}
    assert format_table(rows).splitlines() == [
        "held out          accuracy",
        "before               0.250",
        "after                1.000",
    ]


def test_two_runs_side_by_side(tmp_path):
    for name, after, gain in (("plain", 0.5, None), ("repro", 0.75, 1.5)):
        (tmp_path / name).mkdir()
        rows = {"before": {"accuracy": 0.25, "J gain": gain}, "after": {"accuracy": after, "J gain": gain}}
        write_rows(rows, tmp_path / name)
    table = [line.split() for line in compare_runs(tmp_path / "plain", tmp_path / "repro", "PPO").splitlines()]
    assert table == [
        ["held", "out", "accuracy"],
        ["before", "0.250"],
        ["after", "PPO", "0.500"],
        ["after", "PPO", "with", "RePro", "0.750"],
    ]
    write_rows({"before": {"accuracy": 0.3}, "after": {"accuracy": 0.5}}, tmp_path / "plain")
    table = compare_runs(tmp_path / "plain", tmp_path / "repro", "PPO").splitlines()
    assert [line.split("  ")[0] for line in table] == [
        "held out",
        "before PPO",
        "before PPO with RePro",
        "after PPO",
        "after PPO with RePro",
    ]
