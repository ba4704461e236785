"""`accelerate launch` for a training command, as TRL's command line has it."""

import importlib.util
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .names import is_true, nearest, option_name
from .quiet import quiet_launcher

MODULE = "repro_trl.training"
PROCESSES_VARIABLE = "REPRO_TRL_NUM_PROCESSES"
"""Environment variable with the number of processes that the user asked for."""
CONFIG_DIR = Path(__file__).parents[1] / "accelerate_configs"


def accelerate_configs() -> dict[str, Path]:
    """This package's configs for `accelerate launch`, by name."""
    return {file.stem: file for file in CONFIG_DIR.glob("*.yaml")}


def resolve_accelerate_config(value: str) -> str:
    """
    The file that `--accelerate_config` names: a path, a config of this package or of TRL. A `ValueError` for any
    other.
    """
    if Path(value).is_file():
        return value
    trl = Path(importlib.util.find_spec("trl").origin).parent / "accelerate_configs"
    named = {file.stem: file for file in trl.glob("*.yaml")} | accelerate_configs()
    name = value.removesuffix(".yaml")
    if name not in named:
        raise ValueError(
            f"accelerate_config={value!r}: this is neither a file nor one of {', '.join(sorted(named))}. "
            f"The nearest is {nearest(name, named)!r}"
        )
    return str(named[name])


def launcher_options() -> dict[str, Any]:
    """The options of `accelerate launch`: argparse actions by name."""
    from accelerate.commands.launch import launch_command_parser  # imports torch

    actions = launch_command_parser()._option_string_actions
    options = {option_name(option): action for option, action in actions.items()}
    return {name: action for name, action in options.items() if name not in ("h", "help")}


def launcher_tokens(settings: Mapping[str, Any], options: Mapping[str, Any]) -> list[str]:
    """
    Settings of a YAML file as arguments of `accelerate launch`, of which `options` holds the actions.

    Raises:
        ValueError: a switch that is neither true nor false, or a list or mapping.
    """
    tokens = []
    for name, value in settings.items():
        if isinstance(value, list | dict):
            raise ValueError(f"{name}={value!r}: give one value")
        if options[name].nargs == 0:
            tokens += [f"--{name}"] if is_true(value, name) else []
        elif value is not None:
            tokens += [f"--{name}", str(value)]
    return tokens


def launch(launcher_arguments: Sequence[str], script_arguments: Sequence[str]) -> int:
    """
    Run `python -m repro_trl.training` with `script_arguments` on the processes that `accelerate launch` starts.
    Returns the exit status: that of the process, or of the first one that failed.

    Raises:
        ValueError: what `accelerate launch` says against its arguments, or a value where none belongs.
    """
    from accelerate.commands.launch import launch_command, launch_command_parser
    from accelerate.utils import patch_environment
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    quiet_launcher()
    arguments = launch_command_parser().parse_args([*launcher_arguments, "--module", MODULE, *script_arguments])
    if arguments.training_script != MODULE:
        raise ValueError(f"{arguments.training_script!r}: give settings by name, such as `--num_processes 2`")
    number = arguments.num_processes
    # The processes are told how many the user asked for: accelerate can start fewer without a word.
    asked = {} if number is None else {PROCESSES_VARIABLE: number}
    with _interrupts_go_to_the_training(), patch_environment(**asked):
        try:
            launch_command(arguments)
        except subprocess.CalledProcessError as error:
            return error.returncode if error.returncode > 0 else 128 - error.returncode
        except ChildFailedError as error:
            return error.get_first_failure()[1].exitcode
    return 0


@contextmanager
def _interrupts_go_to_the_training() -> Iterator[None]:
    """Ctrl-C reaches every process of the terminal. The training ends by itself then, and is waited for."""
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
