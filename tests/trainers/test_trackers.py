"""RePro's metrics reach the trackers under stable names. Nothing is sent anywhere."""

import json
import os
import sqlite3
import subprocess
import sys

import pytest
from tiny_policy import save_tiny_policy
from tiny_runs import settings, token_reward

from repro_trl import ReproGRPOConfig, ReproGRPOTrainer
from repro_trl.demo import task

NAMES = {
    "train/repro/objective_first",
    "train/repro/objective_last",
    "train/repro/objective_gain",
    "train/repro/magnitude_score",
    "train/repro/stability_score",
    "train/repro/process_reward/mean",
    "train/repro/process_reward/std",
    "train/repro/segments",
    "train/repro/advantage_share",
    "train/repro/no_answer_ratio",
    "train/repro/no_delimiter_ratio",
    "train/repro/no_think_end_ratio",
    "train/repro/seconds",
    "eval/repro/objective_gain",
}


def train(folder, tracker: str) -> None:
    policy = save_tiny_policy(folder / "policy")
    args = ReproGRPOConfig(
        **settings(
            folder / "run",
            report_to=tracker,
            trackio_space_id=None,
            project="repro-test",
            run_name="tiny",
            eval_strategy="steps",
            eval_steps=2,
            per_device_eval_batch_size=8,
        )
    )
    dataset = task.train_dataset(size=8, seed=3)
    ReproGRPOTrainer(str(policy), token_reward, args, dataset, dataset).train()


def run(folder, tracker: str, **environment: str) -> None:
    """In a process of its own: trackers keep state in the process, and read folders from the environment early."""
    paths = [os.path.dirname(__file__), *filter(None, sys.path)]
    program = (
        f"from pathlib import Path; import test_trackers; test_trackers.train(Path({str(folder)!r}), {tracker!r})"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "HF_HUB_OFFLINE": "1", **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_tensorboard(tmp_path):
    pytest.importorskip("tensorboard", reason="needs tensorboard (the extra `test`)")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logs = tmp_path / "tensorboard"
    run(tmp_path, "tensorboard", TENSORBOARD_LOGGING_DIR=str(logs))
    events = EventAccumulator(str(logs)).Reload()
    assert set(events.Tags()["scalars"]) >= NAMES
    assert [event.step for event in events.Scalars("train/repro/objective_gain")] == [1, 2]


def test_trackio(tmp_path):
    pytest.importorskip("trackio", reason="needs trackio (the extra `test`)")
    run(tmp_path, "trackio", TRACKIO_DIR=str(tmp_path / "trackio"))
    (database,) = (tmp_path / "trackio").glob("*.db")
    with sqlite3.connect(database) as connection:
        rows = [json.loads(text) for (text,) in connection.execute("select metrics from metrics")]
    assert {name for row in rows for name in row} >= NAMES


def test_wandb_offline(tmp_path):
    pytest.importorskip("wandb", reason="needs wandb (the extra `test`)")
    run(tmp_path, "wandb", WANDB_MODE="offline", WANDB_DIR=str(tmp_path))
    (record,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    content = record.read_bytes()
    # wandb keeps the names of nested metrics as they are, in a record file of its own.
    assert all(name.encode() in content for name in NAMES)
