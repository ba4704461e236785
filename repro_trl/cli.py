"""The command `repro-trl`: one subcommand for each thing that is done outside a training script."""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from .command_line import USAGE, run_command

# Subcommand: (module with `add_arguments(parser)`, one line of help). These modules load no model library, so that
# help comes at once. Beside each lies the one that does the work by `run(arguments) -> exit status`; its name has
# `command` for `arguments`.
COMMANDS: dict[str, tuple[str, str]] = {
    "eval": ("repro_trl.evaluation.arguments", "Evaluate a checkpoint on the paper's benchmarks."),
    "report": (
        "repro_trl.reporting.arguments",
        "Compare training runs: tables, curves, flags, several seeds per arm.",
    ),
    "inspect": ("repro_trl.viewing.inspect_arguments", "Show which steps of a thought helped, in one HTML file."),
    "score": ("repro_trl.viewing.score_arguments", "Add RePro's scores to a file of completions."),
}

# Subcommands that go on from where they stopped.
_RESUMED = ("eval", "score")
_KEPT = "Finished work is kept; run the same command again to resume."

# Subcommands that train, with one line of help. What their arguments are is known to dataclasses of other libraries.
TRAINING_COMMANDS: dict[str, str] = {
    "grpo": "Train with GRPO and RePro.",
    "ppo": "Train with PPO and RePro.",
    "reinforce-pp": "Train with REINFORCE++ and RePro.",
}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One sentence, as all other errors of a command; argparse would print the whole usage before it."""
        text = f"{self.prog}: {message}. `{self.prog} --help` lists all options.\n"
        self.exit(USAGE, text if int(os.environ.get("RANK", 0)) == 0 else None)  # one of a launcher's ranks says it


def main(argv: Sequence[str] | None = None) -> int:
    """Run the subcommand that `argv` (default: the command line) names and return its exit status."""
    argv = sys.argv[1:] if argv is None else list(argv)
    if argv and argv[0] in TRAINING_COMMANDS:
        from .training.command import run

        return run_command(argv[0], lambda: run(argv[0], argv[1:]))
    parser = _Parser(
        prog="repro-trl",
        description="RePro process rewards for TRL: train models, then evaluate, inspect and compare them.",
    )
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, summary in TRAINING_COMMANDS.items():
        subparsers.add_parser(name, help=summary)
    for name, (module_name, summary) in COMMANDS.items():
        subparser = subparsers.add_parser(name, help=summary, description=summary)
        if name in argv[:1]:
            importlib.import_module(module_name).add_arguments(subparser)
    try:
        arguments = parser.parse_args(argv)
    except SystemExit as stop:  # after help, or a sentence on what is wrong
        return stop.code
    work = COMMANDS[arguments.command][0].replace("arguments", "command")
    kept = _KEPT if arguments.command in _RESUMED else ""
    return run_command(arguments.command, lambda: importlib.import_module(work).run(arguments), kept)
