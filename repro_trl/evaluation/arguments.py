"""Arguments of `repro-trl eval`."""

import argparse

from ..sampling import Sampling, add_vllm_arguments
from ..shared_arguments import (
    add_batch_size,
    add_former_name,
    add_model_arguments,
    add_sampling_arguments,
    non_negative_number,
    positive_integer,
    positive_number,
)

PAPER_TASKS = ("aime24", "aime25", "math500", "livemathbench", "gpqa_diamond", "mbpp", "livecodebench")
"""Names of the paper's tasks, in the order of its table: the keys of `tasks.HUB_TASKS`."""

BATCH_SIZES = {"transformers": 64, "vllm": 1024}
"""Completions sampled together, by backend, where no number is given."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    defaults = Sampling()
    parser.add_argument(
        "--tasks",
        default=",".join(PAPER_TASKS),
        help="Comma-separated tasks: %(default)s, or your own files of rows (jsonl, json, csv, parquet and "
        "others). Default: all of these tasks.",
    )
    parser.add_argument("--data_dir", help="Folder with local copies of the datasets: <task>.jsonl or <task>/*.jsonl.")
    parser.add_argument(
        "--dataset_revision",
        action="append",
        default=[],
        metavar="TASK=COMMIT",
        help="Use this commit of a task's dataset instead of the pinned one; may be repeated.",
    )
    parser.add_argument("--output_dir", help="Folder for completions and results. Default: evaluations/<model>.")
    parser.add_argument(
        "--compare_to",
        metavar="OUTPUT_DIR",
        help="Folder of an earlier evaluation to compare with, problem by problem.",
    )
    parser.add_argument(
        "--repro_think_end",
        default=defaults.think_end,
        help="Text that ends the thought; empty: the whole completion is the thought. Default: %(default)s.",
    )
    parser.add_argument(
        "--verify_seconds",
        type=positive_number,
        default=10.0,
        help="Time limit for one comparison of answers. Default: %(default)s.",
    )
    parser.add_argument(
        "--verify_workers",
        type=positive_integer,
        help="Number of completions verified in parallel. Default: the cores, divided among the processes.",
    )
    add_model_arguments(parser, "Name on the Hub, or local folder.", required=True)
    sampling = add_sampling_arguments(
        parser,
        num_generations=None,
        num_generations_help="Completions per problem. Default: 16 for the small sets, 4 for the others.",
        max_completion_length=defaults.max_new_tokens,
        top_p=defaults.top_p,
        seed=defaults.seed,
    )
    sampling.add_argument(
        "--temperature",
        type=non_negative_number,
        default=defaults.temperature,
        help="Sampling temperature; 0 is greedy. Default: %(default)s.",
    )
    add_batch_size(
        sampling,
        f"Completions sampled together. Default: {BATCH_SIZES['transformers']}, with vLLM {BATCH_SIZES['vllm']}.",
    )
    sampling.add_argument(
        "--backend",
        choices=["auto", "vllm", "transformers"],
        default="auto",
        help="auto: vLLM if it is installed and there is a GPU, else transformers.",
    )
    add_vllm_arguments(parser)
    add_former_name(parser, "--revision", "--dataset_revision")
    add_former_name(parser, "--think_end", "--repro_think_end")
