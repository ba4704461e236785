"""Arguments of `repro-trl score`."""

import argparse
from pathlib import Path

from ..row_files import COMPRESSIONS, SUFFIXES
from .arguments import add_row_arguments, add_scoring_arguments

FIELD = "repro"
"""The field that each row gets."""

_DESCRIPTION = f"""
Each row gets a field {FIELD!r}: an object, or a list of objects if the row has a list of completions. It contains
boundaries (tokens before each boundary), entropies (nats, at the boundaries that are segment starts), objective (J,
nats per answer token), magnitude, stability and scores at the boundaries, process_rewards and normalized_rewards of
the segments between them, and advantages of the tokens; or not_scored with the reason. Consecutive rows with the same
prompt are one group for the normalisation. The default settings are those of training. The input can be
a {", ".join(SUFFIXES)} file (text files also with {" or ".join(COMPRESSIONS)}), or a folder of them. Rows that cannot
be read are reported with their line numbers and skipped, and the exit status is then 1. To resume an interrupted run,
run the same command again.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = f"{parser.description} {_DESCRIPTION}"
    parser.add_argument(
        "input",
        type=Path,
        help="File or folder of rows, each with a prompt, its completion or completions, and an answer.",
    )
    parser.add_argument("output", type=Path, help="JSONL file to write.")
    parser.add_argument("--overwrite", action="store_true", help="Start over instead of resuming the output.")
    add_row_arguments(parser)
    add_scoring_arguments(parser)
