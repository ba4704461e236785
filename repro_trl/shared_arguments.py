"""
Command-line arguments that several commands share, so that one word means one thing in all of them. TRL's word is
taken where it has one; docs/commands.md lists them. Nothing here loads a model library.
"""

import argparse
import math
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

DTYPES = ("auto", "float32", "bfloat16", "float16", "float64")


class _FormerName(argparse.Action):
    """A name that an argument had once: says so in one line, and does what the argument does."""

    def __init__(self, option_strings: Sequence[str], dest: str, replacement: argparse.Action, **_: Any) -> None:
        super().__init__(
            option_strings,
            dest,
            nargs=replacement.nargs,
            type=replacement.type,
            choices=replacement.choices,
            default=argparse.SUPPRESS,
            help=argparse.SUPPRESS,
        )
        self.replacement = replacement

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        if int(os.environ.get("RANK", 0)) == 0:  # one of a launcher's processes says it
            print(f"{parser.prog}: {option} is now {self.replacement.option_strings[0]}.", file=sys.stderr)
        self.replacement(parser, namespace, values, option)


def add_former_name(parser: argparse.ArgumentParser, name: str, new_name: str) -> None:
    """Go on taking `name` for the argument that is called `new_name` now, with a notice on stderr."""
    # argparse has no public way from a name to its argument.
    parser.add_argument(name, action=_FormerName, replacement=parser._option_string_actions[new_name])


def _number(kind: type, is_valid: Callable[[float], bool], wanted: str, text: str) -> Any:
    try:
        value = kind(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and is_valid(value)):
        raise argparse.ArgumentTypeError(f"{text!r}: give {wanted}")
    return value


# Types of arguments. All are finite.
positive_integer = partial(_number, int, lambda value: value >= 1, "an integer >= 1")
positive_number = partial(_number, float, lambda value: value > 0, "a number > 0")
non_negative_number = partial(_number, float, lambda value: value >= 0, "a number >= 0")
probability_mass = partial(_number, float, lambda value: 0 < value <= 1, "a number in (0, 1]")


def add_model_arguments(parser: argparse.ArgumentParser, help: str, required: bool = False) -> argparse._ArgumentGroup:
    """Which model is loaded, and how."""
    group = parser.add_argument_group("model")
    group.add_argument("--model_name_or_path", "--model", metavar="NAME_OR_PATH", required=required, help=help)
    group.add_argument(
        "--model_revision", default="main", help="Branch, tag or commit on the Hub. Default: %(default)s."
    )
    group.add_argument(
        "--dtype", default="auto", choices=DTYPES, help="Data type of the weights. Default: auto, as saved."
    )
    group.add_argument(
        "--attn_implementation",
        metavar="NAME",
        help="Attention implementation, such as sdpa or flash_attention_2. Default: that of the model.",
    )
    group.add_argument("--trust_remote_code", action="store_true", help="Run code from the model's repository.")
    return group


def add_batch_size(group: argparse._ArgumentGroup, help: str, default: int | None = None) -> None:
    """How many completions share a forward."""
    names = ("--batch_size", "--per_device_eval_batch_size")
    group.add_argument(*names, type=positive_integer, metavar="N", default=default, help=help)


def add_sampling_arguments(
    parser: argparse.ArgumentParser,
    *,
    num_generations: int | None,
    num_generations_help: str,
    max_completion_length: int,
    top_p: float,
    seed: int = 0,
) -> argparse._ArgumentGroup:
    """How completions are drawn; the temperature is added by each command, for it has other limits in each."""
    group = parser.add_argument_group("sampling")
    group.add_argument(
        "--num_generations", type=positive_integer, metavar="N", default=num_generations, help=num_generations_help
    )
    group.add_argument(
        "--max_completion_length",
        type=positive_integer,
        metavar="TOKENS",
        default=max_completion_length,
        help="Maximum length of a completion. Default: %(default)s.",
    )
    group.add_argument(
        "--top_p",
        type=probability_mass,
        default=top_p,
        help="Nucleus sampling: probability mass to keep. Default: %(default)s.",
    )
    group.add_argument("--seed", type=int, default=seed, help="Default: %(default)s.")
    add_former_name(parser, "--num_samples", "--num_generations")
    add_former_name(parser, "--max_new_tokens", "--max_completion_length")
    return group
