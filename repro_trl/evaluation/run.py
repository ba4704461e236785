"""One evaluation from task to completions with verdicts, on any number of processes, from where it stopped."""

import dataclasses
import itertools
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ..command_line import FailedWork
from ..generation import Sampler
from ..jsonl import write_atomically
from ..sampling import Sampling
from .line_process import NoAnswer
from .records import Key, Sample, Verdict, check_neighbours, check_settings, item_line, join, part, read_parts
from .sampling import pending_units, sample_units, work_units
from .sandbox import SandboxError
from .tasks import Task
from .team import Team
from .verify import Verifier

_VERDICTS_AT_A_TIME = 256


def evaluate_task(
    task: Task,
    samples: int,
    sampling: Sampling,
    model_settings: dict[str, Any],
    load_sampler: Callable[[], Sampler],
    verifier: Verifier,
    output_dir: Path,
    team: Team,
) -> None:
    """
    Evaluate one task, on every process; what an earlier run has done is not done again.

    Args:
        model_settings: what tells the model from others, held against an earlier run's.
        load_sampler: called on all processes, or on none when everything is sampled.
        output_dir: gets `<task>.jsonl`, all completions with their verdicts.

    Raises:
        ValueError: the folder holds an evaluation with other settings.
        FailedWork: verification cannot go on.
    """
    folder = work_folder(output_dir, task.name)
    shared = {**model_settings, **dataclasses.asdict(sampling)}
    settings = {**shared, "samples": samples, "source": task.source, "votes": task.votes}
    with team.together():
        if team.state.is_main_process:
            check_neighbours(folder.parent, shared)
            folder.mkdir(parents=True, exist_ok=True)
            check_settings(folder / "settings.json", settings)
    _sample(task, samples, sampling, load_sampler, folder, team)
    _verify(task, samples, verifier, folder, team)
    with team.together():
        if team.state.is_main_process:
            completions, verdicts = read_parts(folder, "samples", Sample), read_parts(folder, "verdicts", Verdict)
            records = [join(completions[key], verdicts[key]) for key in _keys(task, samples)]
            write_atomically(records_path(output_dir, task.name), b"".join(map(item_line, records)).decode())


def work_folder(output_dir: Path, task_name: str) -> Path:
    """What processes have written of a task, and with which settings."""
    return output_dir / "work" / task_name


def records_path(output_dir: Path, task_name: str) -> Path:
    """All completions of a task, with their verdicts."""
    return output_dir / f"{task_name}.jsonl"


def _sample(
    task: Task, samples: int, sampling: Sampling, load_sampler: Callable[[], Sampler], folder: Path, team: Team
) -> None:
    units = work_units(task.problems, samples, sampling.batch_size, team.workers)
    with ExitStack() as stack:
        with team.together():
            writer = stack.enter_context(part(folder, "samples", team.worker)) if team.writes else None
        # All parts are locked: one process reads them for all, and so all go one way from here.
        with team.together():
            done = read_parts(folder, "samples", Sample).keys() if team.state.is_main_process else set()
        done = team.from_main(frozenset(done))
        pending = pending_units(units, done)
        if not pending:
            return
        sampler = load_sampler()
        mine = pending[team.worker :: team.workers]
        total = sum(map(len, mine))
        # Processes that share a model need each other while they sample; of these a launcher ends the ones that wait.
        with team.together() if team.size == 1 else nullcontext():
            with _progress(f"{task.name}: sampling", total, team) as bar:
                for batch in sample_units(sampler, mine, sampling):
                    if writer is not None:
                        new = [sample for sample in batch if (sample.problem, sample.sample) not in done]
                        writer.append(map(item_line, new))
                    bar.update(len(batch))
    team.state.wait_for_everyone()


def _verify(task: Task, samples: int, verifier: Verifier, folder: Path, team: Team) -> None:
    problems = {problem.id: problem for problem in task.problems}
    with ExitStack() as stack:
        with team.together():
            writer = stack.enter_context(part(folder, "verdicts", team.state.process_index))
        with team.together():
            verdicts = read_parts(folder, "verdicts", Verdict) if team.state.is_main_process else {}
        # A verdict that was not reached in time is asked for again when there is more of it.
        done = {key for key, verdict in verdicts.items() if verdict.seconds_given >= verifier.math_seconds}
        pending = team.from_main([key for key in _keys(task, samples) if key not in done])
        with team.together():
            mine = pending[team.state.process_index :: team.state.num_processes]
            if not mine:
                return
            completions = read_parts(folder, "samples", Sample)
            try:
                verdicts = verifier.verify(problems, [completions[key] for key in mine])
                with _progress(f"{task.name}: verifying", len(mine), team) as bar:
                    while batch := list(itertools.islice(verdicts, _VERDICTS_AT_A_TIME)):
                        writer.append(map(item_line, batch))
                        bar.update(len(batch))
            except (NoAnswer, SandboxError) as error:
                raise FailedWork(f"completions can no longer be verified: {error}") from error


def _keys(task: Task, samples: int) -> list[Key]:
    return [(problem.id, number) for problem in task.problems for number in range(samples)]


def _progress(description: str, total: int, team: Team) -> tqdm:
    """What the main process has to do in this run, with an estimate of what is left."""
    return tqdm(desc=description, total=total, disable=not team.state.is_main_process)
