"""What the training commands launch on every process: `python -m repro_trl.training ALGORITHM [--SETTING VALUE …]`."""

import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..command_line import DONE, INTERRUPTED, run_command
from .algorithms import ALGORITHMS
from .arguments import parse_arguments
from .launch import PROCESSES_VARIABLE
from .run import train_and_report


def main(argv: Sequence[str]) -> int:
    name, *tokens = argv
    prepared: list[Any] = []

    def prepare() -> int:
        script = importlib.import_module(ALGORITHMS[name].script)
        arguments = parse_arguments(name, script.ARGUMENTS, tokens, launched=True)
        script_args, training_args, *_ = arguments
        check_processes(training_args.world_size)
        prepared.extend((script.make_trainer(*arguments), script_args.dataset_name))
        return DONE

    if status := run_command(name, prepare):
        return status
    try:
        train_and_report(*prepared)
    except KeyboardInterrupt:
        resumable = any(Path(prepared[0].args.output_dir).glob("checkpoint-*"))
        advice = " To resume from the last checkpoint, run the same command with `--resume_from_checkpoint true`."
        print(f"\nrepro-trl {name}: interrupted.{advice if resumable else ''}", file=sys.stderr)
        return INTERRUPTED
    return DONE


def check_processes(started: int) -> None:
    """Raise a `ValueError` where accelerate has started fewer processes than asked for, as it does on a CPU."""
    asked = os.environ.get(PROCESSES_VARIABLE)
    if asked is not None and int(asked) != started:
        raise ValueError(
            f"num_processes={asked}: accelerate uses {started} here. For several processes on a CPU, use "
            "--accelerate_config multi_cpu --use_cpu true"
        )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
