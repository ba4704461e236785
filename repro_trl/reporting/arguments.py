"""Arguments of `repro-trl report`."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "runs",
        nargs="*",
        metavar="RUN",
        help="Output folder of a training run. Runs that differ only in the seed form an arm.",
    )
    parser.add_argument(
        "--arm",
        action="append",
        default=[],
        metavar="NAME=RUN[,RUN…]",
        help="Put an arm together yourself; may be repeated. These arms come first.",
    )
    parser.add_argument(
        "--accuracy",
        metavar="REWARD",
        help="Reward function to use as accuracy. Default: the only one, or the only one whose name says so.",
    )
    parser.add_argument(
        "--backtracks",
        type=Path,
        metavar="FILE",
        help='JSON file with the phrases of each kind of backtrack, such as {"wait": ["wait", "hold on"]}.',
    )
    parser.add_argument("--png", type=Path, metavar="FILE", help="Write the curves as a picture, too.")
    parser.add_argument("--html", type=Path, metavar="FILE", help="Write curves and tables as one HTML page, too.")
