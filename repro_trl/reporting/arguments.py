"""Arguments of `repro-trl report`."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "runs",
        nargs="*",
        metavar="RUN",
        help="Output folder of a training run; runs whose settings differ in the seed alone form an arm.",
    )
    parser.add_argument(
        "--arm",
        action="append",
        default=[],
        metavar="NAME=RUN[,RUN…]",
        help="An arm put together by hand; may be repeated, and goes before the others.",
    )
    parser.add_argument(
        "--accuracy",
        metavar="REWARD",
        help="Reward function that stands for accuracy. Default: the only one, or the only one named so.",
    )
    parser.add_argument(
        "--backtracks",
        type=Path,
        metavar="FILE",
        help='JSON file with the phrases of each kind of backtrack, such as {"wait": ["wait", "hold on"]}.',
    )
    parser.add_argument("--png", type=Path, metavar="FILE", help="Also write the curves as a picture.")
    parser.add_argument("--html", type=Path, metavar="FILE", help="Also write curves and tables as one page.")
