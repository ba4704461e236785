"""The tasks of the study behind one face: where the policy starts, its problems, what its segments are worth."""

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, get_args

from datasets import Dataset
from pocket import traces as pocket_traces

from repro_trl.demo import task as pocket_task

from . import chain, search
from .make import MODELS_DIR

NUM_SUMS = 3
"""Digits problems have this many: one more than k, so that even the shortest thought has more starts than are kept."""


class Problem(Protocol):
    """What the study reads of a problem."""

    text: str
    answer: str


@dataclass(frozen=True)
class Task:
    """One family of problems.

    Attributes:
        model_dir: the warmed-up policy that every run starts from.
        max_completion_length: tokens.
        problems: endless problems for a seed, of the training or the held-out part, which share none.
        label_segments: what each segment of a thought did.
        labels: all that `label_segments` gives.
        useful: the labels of segments that bring the thought nearer to the answer.
        plain_step, wrong_step: labels of a right and of a wrong step, for the narrower comparison.
    """

    name: str
    model_dir: Path
    max_completion_length: int
    problems: Callable[[int, bool], Iterator[Any]]
    label_segments: Callable[[Any, Sequence[str]], list[str]]
    labels: frozenset[str]
    useful: frozenset[str]
    plain_step: str = "step"
    wrong_step: str = "wrong"

    def sample_problems(self, size: int, seed: int, held_out: bool) -> list[Any]:
        """The first `size` problems of a seed. Made once for all arms."""
        return _sample(self.problems, size, seed, held_out)


@functools.cache
def _sample(source: Callable[[int, bool], Iterator[Any]], size: int, seed: int, held_out: bool) -> list[Any]:
    return list(itertools.islice(source(seed, held_out), size))


def dataset(problems: Sequence[Problem]) -> Dataset:
    """Rows for a trainer: `prompt` (conversational) and `solution` (`\\boxed{…}`)."""
    return Dataset.from_dict(
        {
            "prompt": [[{"role": "user", "content": problem.text}] for problem in problems],
            "solution": [f"\\boxed{{{problem.answer}}}" for problem in problems],
        }
    )


def _digits_problems(seed: int, held_out: bool) -> Iterator[pocket_task.Problem]:
    return (problem for problem in pocket_task.problems(seed, held_out) if len(problem.items) == NUM_SUMS)


TASKS = {
    task.name: task
    for task in (
        Task(
            "digits",
            MODELS_DIR / "digits",
            80,
            _digits_problems,
            pocket_traces.label_segments,
            frozenset(get_args(pocket_traces.Label)),
            frozenset({"step", "fix"}),
        ),
        Task(
            "search",
            MODELS_DIR / "search",
            112,
            search.problems,
            search.label_segments,
            frozenset(get_args(search.Label)),
            search.USEFUL,
        ),
        Task(
            "chain",
            MODELS_DIR / "chain",
            224,
            chain.problems,
            chain.label_segments,
            frozenset(get_args(chain.Label)),
            chain.USEFUL,
        ),
    )
}
