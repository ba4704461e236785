"""Runs a training script in this process, as `accelerate launch` on one process does."""

from types import ModuleType
from typing import Any

from repro_trl.training.arguments import parse_arguments
from repro_trl.training.run import train_and_report


def run_script(name: str, script: ModuleType, *arguments: Any) -> None:
    """The script of the command `name` with these arguments."""
    parsed = parse_arguments(name, script.ARGUMENTS, [str(argument) for argument in arguments])
    train_and_report(script.make_trainer(*parsed), parsed[0].dataset_name)
