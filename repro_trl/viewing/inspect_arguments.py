"""Arguments of `repro-trl inspect`."""

import argparse
from pathlib import Path

from ..recipe import RECIPE
from ..row_files import COMPRESSIONS, SUFFIXES
from ..shared_arguments import add_sampling_arguments, positive_integer
from .arguments import add_row_arguments, add_scoring_arguments

_DESCRIPTION = f"""
Takes the completions in a file, or samples some for its problems. Scores them with the model and writes a page that
works offline: each thought by segment, coloured by process reward, with the advantage of every token. Sources can be
{", ".join(SUFFIXES)} files (text files also with {" or ".join(COMPRESSIONS)}), folders of them, the parquet files of
TRL's logged completions, or trace files, which are shown as they are. By default, completions are scored with the
recommended recipe. Without a source, the problems are those of the bundled model, and the answer is scored where this
model gives it, with --repro_answer_prefix $'</think>\\n\\n'.
"""
INSTRUCTION = "Please reason step by step, and put your final answer within \\boxed{}."
DEFAULT_LIMIT = 8
"""Prompts that are sampled for where no number is given."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = f"{parser.description} {_DESCRIPTION}"
    parser.add_argument(
        "source", nargs="*", help="Files or folders of traces, completions or problems, or one dataset on the Hub."
    )
    parser.add_argument(
        "--html",
        "--output",
        type=Path,
        metavar="FILE",
        default=Path("traces.html"),
        help="HTML page to write. Default: %(default)s.",
    )
    parser.add_argument(
        "--png", type=Path, metavar="FILE", help="Also write a picture of the completions of one prompt."
    )
    parser.add_argument(
        "--png_prompt",
        type=positive_integer,
        default=1,
        metavar="N",
        help="Which prompt the picture shows. Default: the first.",
    )
    parser.add_argument("--traces", type=Path, metavar="FILE", help="Also write a trace file.")
    parser.add_argument("--title", help="Title of the page. Default: what was inspected.")
    parser.add_argument("--problem", action="append", default=[], help="A problem to sample for; may be repeated.")
    parser.add_argument("--answer", action="append", default=[], help="Ground truth of a --problem; one for each.")
    parser.add_argument(
        "--answers_from",
        type=Path,
        metavar="FILE",
        help="File with problems and ground truths, for completions without.",
    )
    parser.add_argument("--split", default="train", help="Split of a dataset on the Hub. Default: %(default)s.")
    parser.add_argument(
        "--limit",
        type=positive_integer,
        metavar="N",
        help=f"Maximum number of prompts. Default: {DEFAULT_LIMIT} if completions are sampled, else all.",
    )
    sampling = add_sampling_arguments(
        parser,
        num_generations=4,
        num_generations_help="Completions per problem. Default: %(default)s.",
        max_completion_length=1024,
        top_p=1.0,
    )
    sampling.add_argument("--sample", action="store_true", help="Sample even if the source has completions.")
    sampling.add_argument(
        "--instruction",
        help=f"Text appended to problems that are plain text. Default: {INSTRUCTION!r}; nothing for the bundled "
        "model.",
    )
    add_row_arguments(parser)
    add_scoring_arguments(parser, defaults=RECIPE)
    parser.set_defaults(repro_answer_prefix=None)  # the bundled model's is known
