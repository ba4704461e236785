"""`repro-trl report`: compare training runs by what they left in their folders."""

import argparse
import importlib.util
import sys
from pathlib import Path

from rich.console import Console

from ..thinking import BACKTRACK_PHRASES, backtrack_patterns, read_backtrack_phrases
from .arms import Arm, group_runs
from .comparison import compare
from .page import render_page
from .runs import read_run
from .table import print_comparison


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "runs",
        nargs="*",
        metavar="RUN",
        help="output folder of a training run; runs whose settings differ in the seed alone form an arm",
    )
    parser.add_argument(
        "--arm",
        action="append",
        default=[],
        metavar="NAME=RUN[,RUN…]",
        help="an arm put together by hand; may be repeated, and goes before the others",
    )
    parser.add_argument(
        "--accuracy",
        metavar="REWARD",
        help="reward function that stands for accuracy (default: the only one, or the only one named so)",
    )
    parser.add_argument(
        "--backtracks",
        metavar="FILE",
        help='JSON file with the phrases of each kind of backtrack, such as {"wait": ["wait", "hold on"]}',
    )
    parser.add_argument("--png", metavar="FILE", help="write the curves as a picture (needs the extra 'plots')")
    parser.add_argument("--html", metavar="FILE", help="write curves and tables as one self-contained page")


def run(arguments: argparse.Namespace) -> int:
    try:
        _report(arguments)
    except (ValueError, OSError) as error:
        print(f"repro-trl report: {error}", file=sys.stderr)
        return 1
    return 0


def _report(arguments: argparse.Namespace) -> None:
    if not arguments.runs and not arguments.arm:
        raise ValueError("give the output folder of at least one training run.")
    if arguments.png and importlib.util.find_spec("matplotlib") is None:
        raise ValueError("--png needs matplotlib: pip install 'repro-trl[plots]'.")
    phrases = read_backtrack_phrases(arguments.backtracks) if arguments.backtracks else BACKTRACK_PHRASES
    patterns = backtrack_patterns(phrases)

    def read(path: str):
        return read_run(path, arguments.accuracy, patterns)

    arms = []
    for entry in arguments.arm:
        name, _, paths = entry.partition("=")
        if not name or not all(paths.split(",")):
            raise ValueError(f"--arm {entry!r}: give NAME=RUN or NAME=RUN,RUN…")
        arms.append(Arm(name, [read(path) for path in paths.split(",")]))
    if arguments.runs:
        arms += group_runs([read(path) for path in arguments.runs])
    comparison = compare(arms, patterns)
    # Where output is no terminal rich assumes 80 columns, and would break lines that a file can hold whole.
    print_comparison(comparison, Console() if sys.stdout.isatty() else Console(width=160, highlight=False))
    if arguments.png:
        from .picture import save_picture

        save_picture(comparison, arguments.png)
        print(f"Picture: {arguments.png}")
    if arguments.html:
        Path(arguments.html).write_text(render_page(comparison, phrases), encoding="utf-8")
        print(f"Page: {arguments.html}")
