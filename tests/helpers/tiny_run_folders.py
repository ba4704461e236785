"""Folders as training runs leave them: real short ones of the example, and ones written by hand."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import grpo_repro
import pandas as pd
import torch
from scripts import run_script

from repro_trl import ReproGRPOConfig


def train_example(folder: Path, *arguments: Any) -> Path:
    """`examples/grpo_repro.py` for three steps of 16 completions, all logged, evaluated before and after."""
    short = (
        *("--output_dir", folder, "--max_steps", 3, "--per_device_train_batch_size", 16, "--logging_steps", 1),
        *("--num_eval_problems", 12, "--per_device_eval_batch_size", 12),
        *("--max_completion_length", 60),
        *("--use_cpu", "true", "--disable_tqdm", "true", "--report_to", "none", *arguments),
    )
    run_script("grpo", grpo_repro, *short)
    return folder


def write_run(
    folder: Path,
    training: Mapping[str, Sequence[float | None]] = {},
    held_out: Mapping[int, Mapping[str, float]] = {},
    settings: Mapping[str, Any] | None = None,
) -> Path:
    """
    A run's folder written by hand.

    Args:
        training: values of each logged quantity at steps 1, 2, …
        held_out: by step, the quantities of an evaluation, without "eval_".
        settings: fields of a `ReproGRPOConfig`; `None`: no training arguments are left.
    """
    folder.mkdir(parents=True, exist_ok=True)
    length = max(map(len, training.values()), default=0)
    log = [{"step": step + 1, **{key: values[step] for key, values in training.items()}} for step in range(length)]
    for step, values in held_out.items():
        log.append({"step": step, "eval_loss": 0.0, **{f"eval_{key}": value for key, value in values.items()}})
    state = {"global_step": length, "log_history": log}
    (folder / "trainer_state.json").write_text(json.dumps(state))
    if settings is not None:
        arguments = ReproGRPOConfig(str(folder), use_cpu=True, bf16=False, **settings)
        torch.save(arguments, folder / "training_args.bin")
    return folder


def write_completions(folder: Path, step: int, completions: Sequence[Any], **columns: Sequence[Any]) -> Path:
    """One file of completions as TRL writes it."""
    file = folder / "completions" / f"completions_{step:05d}.parquet"
    file.parent.mkdir(parents=True, exist_ok=True)
    prompts = [f"problem {step}.{row}" for row in range(len(completions))]
    frame = {"step": [step] * len(prompts), "prompt": prompts, "completion": list(completions), **columns}
    pd.DataFrame(frame).to_parquet(file)
    return file
