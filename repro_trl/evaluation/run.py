"""One evaluation from task to figures: sample, verify, merge; on any number of processes, from where it stopped."""

import hashlib
import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from accelerate import PartialState
from tqdm import tqdm

from .figures import Figures, compute_figures
from .records import Key, Part, Record, Sample, Verdict, check_settings, join, read_items, read_parts, write_records
from .sampling import Sampler, Sampling, sample_units, work_units
from .tasks import Task
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
    state: PartialState,
) -> Figures:
    """
    Evaluate one task, on every process; what an earlier run has done is not done again.

    Args:
        task: to evaluate.
        samples: completions of each problem.
        sampling: how they are drawn.
        model_settings: what tells the model from others, held against an earlier run's.
        load_sampler: called when there is something to sample.
        verifier: of the completions.
        output_dir: gets `<task>.jsonl`, all completions with their verdicts.
        state: of the processes.

    Returns:
        The task's figures, on every process.

    Raises:
        ValueError: the folder holds an evaluation with other settings.
    """
    folder = output_dir / "work" / task.name
    folder.mkdir(parents=True, exist_ok=True)
    settings = {**model_settings, "samples": samples, **asdict(sampling), "source": task.source}
    if state.is_main_process:
        check_settings(folder / "settings.json", settings)
    state.wait_for_everyone()

    units = work_units(task.problems, samples, sampling.batch_size)[state.process_index :: state.num_processes]
    mine = {(problem.id, sample) for unit in units for problem, sample in unit}
    _sample(units, mine, sampling, load_sampler, folder, state, task.name)
    _verify(task, mine, verifier, folder, state)
    state.wait_for_everyone()

    path = records_path(output_dir, task.name)
    if state.is_main_process:
        write_records(path, _merged(task, samples, folder))
    state.wait_for_everyone()
    return compute_figures(read_items(path, Record), task.votes)


def records_path(output_dir: Path, task_name: str) -> Path:
    """All completions of a task, with their verdicts."""
    return output_dir / f"{task_name}.jsonl"


def _sample(
    units: list,
    mine: set[Key],
    sampling: Sampling,
    load_sampler: Callable[[], Sampler],
    folder: Path,
    state: PartialState,
    name: str,
) -> None:
    with Part(folder, "samples", state.process_index) as part:
        done = read_parts(folder, "samples", Sample).keys() & mine
        if done == mine:
            return
        with _progress(f"{name}: sampling", len(mine), len(done), state) as bar:
            for batch in sample_units(load_sampler(), units, sampling, frozenset(done)):
                part.append(sample for sample in batch if (sample.problem, sample.sample) not in done)
                bar.update(sum((sample.problem, sample.sample) not in done for sample in batch))


def _verify(task: Task, mine: set[Key], verifier: Verifier, folder: Path, state: PartialState) -> None:
    problems = {problem.id: problem for problem in task.problems}
    with Part(folder, "verdicts", state.process_index) as part:
        done = read_parts(folder, "verdicts", Verdict).keys() & mine
        completions = read_parts(folder, "samples", Sample)
        samples = [sample for key, sample in completions.items() if key in mine and key not in done]
        if not samples:
            return
        with _progress(f"{task.name}: verifying", len(mine), len(done), state) as bar:
            for verdicts in _batched(verifier.verify(problems, samples), _VERDICTS_AT_A_TIME):
                part.append(verdicts)
                bar.update(len(verdicts))


def _batched(verdicts: Iterator[Verdict], size: int) -> Iterator[list[Verdict]]:
    while batch := list(itertools.islice(verdicts, size)):
        yield batch


def _merged(task: Task, samples: int, folder: Path) -> Iterator[Record]:
    completions, verdicts = read_parts(folder, "samples", Sample), read_parts(folder, "verdicts", Verdict)
    for problem in task.problems:
        for number in range(samples):
            yield join(completions[problem.id, number], verdicts[problem.id, number])


def _progress(description: str, total: int, done: int, state: PartialState) -> tqdm:
    """The share of this process, with an estimate of what is left, on the main process."""
    return tqdm(desc=description, total=total, initial=done, disable=not state.is_main_process)


def model_fingerprint(model: str) -> str | None:
    """
    Tells the weights in a folder from others that may come to lie there: a digest of the sizes, beginnings and ends of
    its files. `None` for a model on the Hub, which its revision names.
    """
    if not os.path.isdir(model):
        return None
    digest = hashlib.sha256()
    for path in sorted(Path(model).iterdir()):
        if path.suffix in (".safetensors", ".bin", ".json"):
            size = path.stat().st_size
            with path.open("rb") as file:
                digest.update(f"{path.name} {size}\n".encode() + file.read(1 << 20))
                file.seek(max(0, size - (1 << 20)))
                digest.update(file.read())
    return digest.hexdigest()
