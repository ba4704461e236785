"""
The chain task at a larger size, on an accelerator: long thoughts, a policy of 10 to 30 million parameters.

    PYTHONPATH=examples python -m study.large --device cuda --output outputs/large

Makes the policy by the warm-up of `make.py`, from nothing; then trains GRPO's main arms from it, one after the other,
and appends each result to `cells.jsonl` in the output folder. Started again, it goes on with what is missing.
"""

import argparse
import functools
import warnings
from dataclasses import asdict, replace
from pathlib import Path

import torch
import transformers
from transformers import AutoTokenizer

from . import chain, records
from .cell import Cell, run_cell
from .make import MODELS_DIR, WARM_UPS, make_model, train
from .run import describe_environment, summary
from .tasks import TASKS, Task

ARMS = ("plain", "repro", "recipe", "recipe shuffled")
FAULTLESS = chain.TraceStyle(clean=1, clean_slip=0, early=0)
STYLE = chain.TraceStyle(clean_slip=0.02, slip=0.08, check_slip=0.03)
"""Fewer slips than in the small task, because there are more steps in which to make one."""


def large_task(folder: Path, num_changes: int) -> Task:
    """The chain task with more changes to a problem. With 24 a thought has about 500 tokens."""
    return replace(
        TASKS["chain"],
        model_dir=folder,
        max_completion_length=48 * num_changes,
        problems=functools.partial(chain.problems, length=num_changes),
    )


def make_policy(task: Task, options: argparse.Namespace) -> None:
    """Warm a new policy up and save it where the task looks for it."""
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(MODELS_DIR / "digits")
    model = make_model(tokenizer, options.hidden_size, options.num_layers, max_length=2048).to(options.device)
    print(f"{model.num_parameters():,} parameters", flush=True)
    stages = ((options.warm_up_steps // 3, FAULTLESS), (options.warm_up_steps - options.warm_up_steps // 3, STYLE))
    warm_up = replace(WARM_UPS["chain"], problems=task.problems, stages=stages, learning_rate=options.learning_rate)
    train(model, tokenizer, warm_up)
    model.save_pretrained(task.model_dir)
    tokenizer.save_pretrained(task.model_dir)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder for policy and results")
    parser.add_argument("--device", default="cuda", help="cpu, or where the accelerator is (default: %(default)s)")
    parser.add_argument("--num_changes", type=int, default=24, help="of a problem, at most 26 (default: %(default)s)")
    parser.add_argument("--hidden_size", type=int, default=384, help="a multiple of 16 (default: %(default)s)")
    parser.add_argument("--num_layers", type=int, default=8, help="default: %(default)s")
    parser.add_argument("--warm_up_steps", type=int, default=6000, help="default: %(default)s")
    parser.add_argument("--learning_rate", type=float, default=1e-3, help="of the warm-up (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=48, help="of each training run (default: %(default)s)")
    parser.add_argument("--arms", nargs="+", default=list(ARMS), help="default: %(default)s")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="default: %(default)s")
    options = parser.parse_args(arguments)

    warnings.filterwarnings("ignore")
    transformers.utils.logging.set_verbosity_error()
    task = large_task(options.output / "policy", options.num_changes)
    if not (task.model_dir / "model.safetensors").is_file():
        make_policy(task, options)
    results = options.output / "cells.jsonl"
    environment = describe_environment() | {"device": options.device}
    done = {records.cell_of(record).name for record in records.read(results)}
    for cell in (Cell("chain", "grpo", arm, seed) for seed in options.seeds for arm in options.arms):
        if cell.name not in done:
            result = run_cell(cell, options.steps, task, options.device)
            records.append(results, asdict(cell) | result | environment)
            print(f"{cell.name}{summary(result)}; {result['seconds']:.0f} s", flush=True)


if __name__ == "__main__":
    main()
