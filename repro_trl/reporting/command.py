"""`repro-trl report`: compare training runs by what they left in their folders."""

import argparse
import sys

from rich.console import Console

from ..command_line import DONE, FAILED
from ..output_files import atomic_path, check_output
from ..thinking import BACKTRACK_PHRASES, backtrack_patterns, read_backtrack_phrases
from .arms import Arm, group_runs
from .charts import save_picture
from .comparison import compare
from .page import render_page
from .runs import Run, UnreadableRunError, read_run
from .table import print_comparison


def run(arguments: argparse.Namespace) -> int:
    """Print and write the report; 1 if a run's folder holds nothing that can be read, and the others are shown."""
    if not arguments.runs and not arguments.arm:
        raise ValueError("give the output folder of at least one training run.")
    for file in (arguments.png, arguments.html):
        if file is not None:
            check_output(file)
    phrases = read_backtrack_phrases(arguments.backtracks) if arguments.backtracks else BACKTRACK_PHRASES
    patterns = backtrack_patterns(phrases)
    unreadable: list[UnreadableRunError] = []

    def read(paths: list[str]) -> list[Run]:
        runs = []
        for path in paths:
            try:
                runs.append(read_run(path, arguments.accuracy, patterns))
            except UnreadableRunError as error:
                unreadable.append(error)
            except OSError as error:  # of permissions, or of the disk
                unreadable.append(UnreadableRunError(f"{path}: {error.filename or 'it'} cannot be read ({error})."))
        return runs

    arms = [Arm(name, runs) for name, paths in _arms_by_hand(arguments.arm) if (runs := read(paths))]
    if runs := read(arguments.runs):
        arms += group_runs(runs)
    if not arms:
        raise ValueError(" ".join(map(str, unreadable)))
    comparison = compare(arms, patterns)
    # Where output is no terminal rich assumes 80 columns, and would break lines that a file can hold whole.
    print_comparison(comparison, Console() if sys.stdout.isatty() else Console(width=160, highlight=False))
    if arguments.png:
        with atomic_path(arguments.png) as file:
            save_picture(comparison, file)
        print(f"Picture: {arguments.png}")
    if arguments.html:
        page = render_page(comparison, phrases)
        with atomic_path(arguments.html) as file:
            file.write_text(page, encoding="utf-8")
        print(f"Page: {arguments.html}")
    for error in unreadable:
        print(f"repro-trl report: skipped: {error}", file=sys.stderr)
    return FAILED if unreadable else DONE


def _arms_by_hand(entries: list[str]) -> list[tuple[str, list[str]]]:
    arms: dict[str, list[str]] = {}
    for entry in entries:
        name, _, paths = entry.partition("=")
        if not name or not all(paths.split(",")):
            raise ValueError(f"--arm {entry!r}: give NAME=RUN or NAME=RUN,RUN…")
        if name in arms:
            raise ValueError(f"--arm {entry!r}: there already is an arm of this name. Put their runs in one --arm.")
        arms[name] = paths.split(",")
    return list(arms.items())
