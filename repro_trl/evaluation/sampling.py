"""
A task's completions, cut into units of work that processes share.

Work is cut into the same batches whatever was done before, so that a run that was interrupted repeats the same
arithmetic too.
"""

import math
from collections.abc import Collection, Iterator, Sequence

from transformers import PreTrainedTokenizerBase

from ..generation import Generation, Sampler, prompt_ids
from ..method.segments import find_segment_starts
from ..method.token_text import readable_text
from ..sampling import Sampling, completion_seed
from ..thinking import count_backtracks, thinking_text
from .records import Key, Sample
from .rows import Problem

Unit = list[tuple[Problem, int]]
"""Problems with the number of the sample, which are sampled together."""


def work_units(problems: Sequence[Problem], samples: int, batch_size: int, workers: int = 1) -> list[Unit]:
    """
    All completions of a task, cut into batches: the same ones however often a run is interrupted. Where there would be
    fewer batches than workers, batches are smaller.
    """
    items = [(problem, sample) for problem in problems for sample in range(samples)]
    size = min(batch_size, max(1, math.ceil(len(items) / workers)))
    return [items[start : start + size] for start in range(0, len(items), size)]


def sample_seed(seed: int, problem: Problem, sample: int) -> int:
    """Seed of one completion, in [0, 2^63)."""
    return completion_seed(seed, problem.id, problem.prompt, sample)


def pending_units(units: Sequence[Unit], done: Collection[Key]) -> list[Unit]:
    """The units that hold anything that is not done: a unit is sampled whole even if part of it is done."""
    return [unit for unit in units if any((problem.id, sample) not in done for problem, sample in unit)]


def sample_units(sampler: Sampler, units: Sequence[Unit], sampling: Sampling) -> Iterator[list[Sample]]:
    """Sample the units, one list of samples for each."""
    for unit in units:
        prompts = [prompt_ids(sampler.tokenizer, problem.prompt) for problem, _ in unit]
        seeds = [sample_seed(sampling.seed, problem, sample) for problem, sample in unit]
        generations = sampler.generate(prompts, seeds, sampling)
        yield [
            _read(sampler.tokenizer, problem, sample, generation, sampling)
            for (problem, sample), generation in zip(unit, generations, strict=True)
        ]


def _read(
    tokenizer: PreTrainedTokenizerBase, problem: Problem, sample: int, generation: Generation, sampling: Sampling
) -> Sample:
    text = readable_text(tokenizer, generation.ids, sampling.think_end)
    thought = thinking_text(text, sampling.think_end)
    return Sample(
        problem=problem.id,
        sample=sample,
        completion=text,
        completion_tokens=len(generation.ids),
        thinking_tokens=find_segment_starts(tokenizer, generation.ids, sampling.delimiter, sampling.think_end)[1],
        segments=sum(bool(segment.strip()) for segment in thought.split(sampling.delimiter)),
        backtracks=count_backtracks(text, sampling.delimiter, sampling.think_end),
        truncated=generation.truncated,
    )
