"""`repro-trl inspect`: shows which steps of a thought helped, for any model, in one HTML file."""

import argparse
import itertools
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ..command_line import DONE, FAILED, INTERRUPTED
from ..config import AUTO_PREFIX
from ..demo import ANSWER_PREFIX
from ..generation import Generation, TransformersSampler
from ..messages import Messages, prompt_text
from ..output_files import atomic_path, check_output
from ..row_files import RowFileError, plain_numbers
from ..sampling import Sampling, completion_seed
from ..traces import Trace, make_trace, write_traces
from .arguments import scorer_from_arguments
from .form_search import search_form
from .inspect_arguments import INSTRUCTION
from .inspect_source import Source
from .page import write_page
from .rows import Row
from .scorer import CompletionScorer

# Columns of TRL's completions table that are no reward.
_NO_REWARDS = {"step", "advantage"}


def run(arguments: argparse.Namespace) -> int:
    """Write the page and what else is asked for; 1 if rows were refused, 130 if Ctrl-C cut the work short."""
    if len(arguments.problem) != len(arguments.answer):
        raise ValueError(
            f"{len(arguments.problem)} --problem but {len(arguments.answer)} --answer: give one answer for each "
            "problem."
        )
    for file in (arguments.html, arguments.traces, arguments.png):
        if file is not None:
            check_output(file)
    source = Source(arguments)
    is_cut = False
    traces: list[Trace] = []
    if holds_traces := source.holds_traces():
        groups = _by_prompt(list(source.traces()))[: arguments.limit]
        traces = [trace for group in groups for trace in group]
    else:
        try:
            _score(arguments, source, traces)
        except KeyboardInterrupt:
            if not traces:
                raise
            is_cut = True
    if not traces:
        hint = "" if holds_traces else " If the file has no ground truths, pass them with --answers_from."
        raise ValueError(f"there is nothing to show: {source.refused} rows or files were refused.{hint}")
    groups = _by_prompt(traces)
    _write(arguments, traces, groups, holds_traces)
    print(f"Wrote {len(traces)} completions of {len(groups)} prompts to {arguments.html}.")
    if is_cut:
        print("repro-trl inspect: interrupted; the page shows what was scored so far.", file=sys.stderr)
        return INTERRUPTED
    return FAILED if source.refused else DONE


def _write(arguments: argparse.Namespace, traces: list[Trace], groups: list[list[Trace]], hold_traces: bool) -> None:
    if arguments.png and arguments.png_prompt > len(groups):
        raise ValueError(f"--png_prompt {arguments.png_prompt}: there are only {len(groups)} prompts.")
    with atomic_path(arguments.html) as file:
        write_page(file, traces, arguments.title or _title(arguments, hold_traces))
    if arguments.traces:
        with atomic_path(arguments.traces) as file:
            write_traces(file, traces)
    if arguments.png:
        from .picture import write_picture

        with atomic_path(arguments.png) as file:
            write_picture(file, groups[arguments.png_prompt - 1])


def _title(arguments: argparse.Namespace, hold_traces: bool) -> str:
    names = [Path(name).name for name in arguments.source]
    if len(names) > 2:
        names = [f"{names[0]} … {names[-1]}"]
    problems = ", ".join(names) or ("problems typed in" if arguments.problem else "bundled problems")
    if hold_traces:
        return f"Traces of {problems}"
    return f"{arguments.model_name_or_path or 'Bundled model'} on {problems}"


def _by_prompt(traces: list[Trace]) -> list[list[Trace]]:
    """Traces that follow each other and belong to one prompt, as the page groups them."""
    return [list(members) for _, members in itertools.groupby(traces, key=lambda trace: (trace.group, trace.prompt))]


@dataclass(frozen=True)
class _Prompt:
    """The completions of one prompt, given or sampled, and what is known of each."""

    prompt_ids: list[int]
    completions: list[list[int]]
    answers: list[str | None]
    more: list[dict[str, Any]]


def _score(arguments: argparse.Namespace, source: Source, traces: list[Trace]) -> None:
    """Add the traces of all that the source holds, prompt by prompt."""
    if arguments.repro_answer_prefix is None:
        arguments.repro_answer_prefix = AUTO_PREFIX if arguments.model_name_or_path else ANSWER_PREFIX
    scorer = scorer_from_arguments(arguments)
    with tqdm(desc="inspect", unit=" prompts") as progress:
        prompts = _prompts(arguments, scorer, source, progress)
        if arguments.repro_answer_prefix == AUTO_PREFIX:
            prompts = list(prompts)
            search_form(scorer, [(p.prompt_ids, p.completions, p.answers) for p in prompts], "inspect")
        for prompt in prompts:
            scored = scorer.score(prompt.prompt_ids, prompt.completions, prompt.answers).scored
            rows = enumerate(zip(prompt.completions, prompt.answers, prompt.more, strict=True))
            traces += [
                make_trace(scorer.tokenizer, scorer.settings, scored, row, ids, answer, **more)
                for row, (ids, answer, more) in rows
            ]


def _prompts(
    arguments: argparse.Namespace, scorer: CompletionScorer, source: Source, progress: tqdm
) -> Iterator[_Prompt]:
    for number, (rows, is_problem) in enumerate(source.groups(), start=1):
        prompt = _prompt(arguments, scorer, rows[0].prompt, is_problem)
        problem = scorer.prompt_problem(prompt)
        sound: list[tuple[Row, dict[str, Any]]] = []
        for row in rows:
            try:
                if problem:
                    raise ValueError(problem)
                sound.append((row, _logged(row)))
            except ValueError as error:
                source.refuse(RowFileError(f"{row.place}: {error}"))
        if sound:
            prompt_ids = scorer.encode_prompt(prompt)
            encode, shared = scorer.encode_completion, {"group": str(number), "prompt": prompt_text(prompt)}
            known = [(encode(text), row.answer, logged) for row, logged in sound for text in row.completions]
            if not known:
                answer = sound[0][0].answer
                sampled = _sample(arguments, scorer, prompt_ids, number)
                known = [(generation.ids, answer, {"truncated": generation.truncated}) for generation in sampled]
            completions, answers, more = map(list, zip(*known, strict=True))
            yield _Prompt(prompt_ids, completions, answers, [{**shared, **fields} for fields in more])
        progress.update()


def _prompt(
    arguments: argparse.Namespace, scorer: CompletionScorer, prompt: str | Messages, is_problem: bool
) -> str | Messages:
    """A row's prompt as it is put to the model."""
    if not isinstance(prompt, str) or not (is_problem or arguments.as_user_message):
        return prompt
    instruction = arguments.instruction
    if instruction is None:
        instruction = INSTRUCTION if arguments.model_name_or_path else ""
    text = f"{prompt}\n\n{instruction}" if is_problem and instruction else prompt
    if scorer.tokenizer.chat_template is None:  # a base model continues plain text
        return f"{text}\n\n"
    return [{"role": "user", "content": text}]


def _logged(row: Row) -> dict[str, Any]:
    """Rewards and step, where the row is one of TRL's completions table; a `ValueError` if the step is none."""
    if not _NO_REWARDS <= row.record.keys():
        return {}
    record = plain_numbers(row.record)
    step = record["step"]
    if isinstance(step, bool) or not isinstance(step, int) or step < 0:
        raise ValueError(f"'step' must be an integer >= 0, not {step!r:.40}")
    rewards = {
        name: value if math.isfinite(value) else None
        for name, value in record.items()
        if isinstance(value, (int, float)) and name not in _NO_REWARDS and not name.startswith("repro_")
    }
    return {"rewards": rewards, "step": step}


def _sample(
    arguments: argparse.Namespace, scorer: CompletionScorer, prompt_ids: list[int], number: int
) -> list[Generation]:
    """Completions of one prompt."""
    sampling = Sampling(arguments.temperature, arguments.top_p, arguments.max_completion_length)
    # Each completion has random numbers of its own, so the first ones stay the same when more are asked for.
    seeds = [completion_seed(arguments.seed, number, index) for index in range(arguments.num_generations)]
    sampler = TransformersSampler(scorer.model, scorer.tokenizer)
    return sampler.generate([prompt_ids] * len(seeds), seeds, sampling)
