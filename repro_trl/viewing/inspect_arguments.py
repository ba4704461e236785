"""Arguments of `repro-trl inspect`."""

import argparse
from pathlib import Path

from ..recipe import RECIPE
from ..row_files import COMPRESSIONS, SUFFIXES
from ..shared_arguments import add_former_name, add_sampling_arguments, positive_integer
from .arguments import add_row_arguments, add_scoring_arguments

_DESCRIPTION = f"""
Takes completions that a file holds, or else samples some for its problems, scores them with the model, and writes a
page that needs no network: each thought by segment, coloured by process reward, with the advantage of every token.
Files may be {", ".join(SUFFIXES)}, those of text also with {" or ".join(COMPRESSIONS)} behind, folders of them,
the parquet files of TRL's logged completions, or trace files, which are shown as they are. Without a source the
problems are those of the embedded model, which is asked for its answers as in its training recipe, with
--repro_answer_prefix $'</think>\\n\\n'.
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
        help="Page to write. Default: %(default)s.",
    )
    parser.add_argument("--png", type=Path, metavar="FILE", help="Also write a picture of one prompt's completions.")
    parser.add_argument(
        "--png_prompt", type=positive_integer, default=1, metavar="N", help="Which prompt. Default: the first."
    )
    parser.add_argument("--traces", type=Path, metavar="FILE", help="Also write a trace file.")
    parser.add_argument("--title", help="Of the page. Default: what was inspected.")
    parser.add_argument("--problem", action="append", default=[], help="A problem typed in; may be repeated.")
    parser.add_argument("--answer", action="append", default=[], help="Its ground truth; one for each --problem.")
    parser.add_argument(
        "--answers_from", type=Path, metavar="FILE", help="Problems with ground truths, for completions without."
    )
    parser.add_argument("--split", default="train", help="Of a dataset on the Hub. Default: %(default)s.")
    parser.add_argument(
        "--limit",
        type=positive_integer,
        metavar="N",
        help=f"Prompts to take. Default: {DEFAULT_LIMIT} to sample for, else all.",
    )
    sampling = add_sampling_arguments(
        parser,
        num_generations=4,
        num_generations_help="For each problem. Default: %(default)s.",
        max_completion_length=1024,
        top_p=1.0,
    )
    sampling.add_argument("--sample", action="store_true", help="Sample even where the source has completions.")
    sampling.add_argument(
        "--instruction",
        help=f"Put after problems that are plain text. Default: {INSTRUCTION!r}; nothing for the embedded model.",
    )
    add_row_arguments(parser)
    add_scoring_arguments(parser, defaults=RECIPE)
    add_former_name(parser, "--num_samples", "--num_generations")
    add_former_name(parser, "--max_new_tokens", "--max_completion_length")
    parser.set_defaults(repro_answer_prefix=None)  # the bundled model's is known
