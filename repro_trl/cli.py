"""The command `repro-trl`: one subcommand for each thing that is done outside a training script."""

import argparse
import importlib
import sys
from collections.abc import Sequence

# Subcommand: (module with `add_arguments(parser)` and `run(arguments) -> exit status`, one line of help).
COMMANDS: dict[str, tuple[str, str]] = {
    "eval": ("repro_trl.evaluation.command", "Evaluate a checkpoint on the paper's benchmarks."),
    "report": ("repro_trl.reporting.command", "Compare training runs: a table, curves, flags, several seeds per arm."),
    "inspect": ("repro_trl.viewing.inspect_command", "Show which steps of a thought helped, in one HTML file."),
    "score": ("repro_trl.viewing.score_command", "Add RePro's scores to a jsonl file of completions."),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the subcommand that `argv` (default: the command line) names and return its exit status."""
    argv = sys.argv[1:] if argv is None else list(argv)
    parser = argparse.ArgumentParser(prog="repro-trl", description="RePro process rewards, outside a training script.")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (module_name, summary) in COMMANDS.items():
        subparser = subparsers.add_parser(name, help=summary, description=summary)
        # Models and plots take seconds to import: only what was asked for is.
        if name in argv[:1]:
            module = importlib.import_module(module_name)
            module.add_arguments(subparser)
            subparser.set_defaults(run=module.run)
    arguments = parser.parse_args(argv)
    return arguments.run(arguments)
