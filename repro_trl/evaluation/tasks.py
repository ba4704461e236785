"""
The paper's seven tasks, and tasks of your own: where their problems come from and how they become prompts.

`HUB_TASKS` has each dataset's name, revision and split; docs/evaluation.md says where they were read. `rows.py` turns
the rows into problems.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datasets import Dataset, concatenate_datasets, load_dataset
from datasets.exceptions import DatasetsError

from ..command_line import first_line
from ..row_files import SUFFIXES, RowFileError, is_row_file, read_rows, row_files, stem
from . import rows
from .rows import Problem, ProgramTarget, Rows


class TaskError(ValueError):
    """A task that cannot be loaded; says which, why and what to do. Other tasks go on."""


@dataclass(frozen=True)
class Task:
    """
    Problems that are verified in one way.

    Attributes:
        name: of the task; also that of its result file.
        problems: with ids that differ.
        samples: completions of each problem, where nothing else is asked for.
        source: where the problems came from, for the results file.
    """

    name: str
    problems: tuple[Problem, ...]
    samples: int
    source: dict[str, str | None] = field(default_factory=dict)

    @property
    def votes(self) -> bool:
        """Whether completions give answers that can be voted on."""
        return not any(isinstance(problem.target, ProgramTarget) for problem in self.problems)


@dataclass(frozen=True)
class HubTask:
    """
    A task whose dataset is on the Hub.

    Attributes:
        title: column of the paper's table.
        revision: commit of the dataset; `None` where none could be pinned.
        split: of each configuration.
        columns: that must be there.
        samples: completions of each problem: the paper's 16 for the small sets, 4 for the others.
        configs: configurations, concatenated in this order; `None`: the default one.
        files: instead of configurations, files of a repository that `datasets` has no builder for.
    """

    title: str
    dataset: str
    revision: str | None
    split: str
    columns: tuple[str, ...]
    to_problems: Callable[[Rows], Iterable[Problem]]
    samples: int
    configs: tuple[str | None, ...] = (None,)
    files: tuple[str, ...] = ()


HUB_TASKS: dict[str, HubTask] = {
    "aime24": HubTask(
        title="AIME24",
        dataset="HuggingFaceH4/aime_2024",
        revision="2fe88a2f1091d5048c0f36abc874fb997b3dd99a",
        split="train",
        columns=("id", "problem", "answer"),
        to_problems=rows.math_problems("problem", "answer", "id"),
        samples=16,
    ),
    "aime25": HubTask(
        title="AIME25",
        dataset="opencompass/AIME2025",
        revision="a6ad95f611d72cf628a80b58bd0432ef6638f958",
        configs=("AIME2025-I", "AIME2025-II"),
        split="test",
        columns=("question", "answer"),
        to_problems=rows.math_problems("question", "answer"),
        samples=16,
    ),
    "math500": HubTask(
        title="MATH500",
        dataset="HuggingFaceH4/MATH-500",
        revision="6e4ed1a2a79af7d8630a6b768ec859cb5af4d3be",
        split="test",
        columns=("problem", "answer", "unique_id"),
        to_problems=rows.math_problems("problem", "answer", "unique_id"),
        samples=4,
    ),
    "livemathbench": HubTask(
        title="LMB",
        dataset="opencompass/LiveMathBench",
        revision=None,
        configs=("v202505_hard_en",),
        split="test",
        columns=("question", "answer"),
        to_problems=rows.math_problems("question", "answer"),
        samples=16,
    ),
    "gpqa_diamond": HubTask(
        title="GPQA-D",
        dataset="Idavidrein/gpqa",
        revision="633f5ee89ab8ad4522a9f850766b73f62147ffdd",
        configs=("gpqa_diamond",),
        split="train",
        columns=("Record ID", "Question", "Correct Answer", *(f"Incorrect Answer {n}" for n in (1, 2, 3))),
        to_problems=rows.gpqa_problems,
        samples=4,
    ),
    "mbpp": HubTask(
        title="MBPP",
        dataset="google-research-datasets/mbpp",
        revision="4bb6404fdc6cacfda99d4ac4205087b89d32030c",
        configs=("sanitized",),
        split="test",
        columns=("task_id", "prompt", "test_imports", "test_list"),
        to_problems=rows.mbpp_problems,
        samples=4,
    ),
    "livecodebench": HubTask(
        title="LCB",
        dataset="livecodebench/code_generation_lite",
        revision="0fe84c3912ea0c4d4a78037083943e8f0c4dd505",
        split="train",  # of files read as they are
        columns=(
            *("question_id", "question_content", "starter_code", "public_test_cases", "private_test_cases"),
            "metadata",
        ),
        to_problems=rows.livecodebench_problems,
        samples=4,
        files=("test6.jsonl",),
    ),
}


def load_task(name: str, data_dir: str | Path | None = None, revision: str | None = None) -> Task:
    """
    Load a task of the paper by its name, or a local file by its path.

    Args:
        name: a key of `HUB_TASKS`, or the path of a file of rows (row_files.py) or of a folder of such files, with
            the columns that training takes (columns.py).
        data_dir: folder with local copies of datasets, in their own columns: `<name>.jsonl` (or another format of
            row_files.py), or a folder `<name>` with several such files, read in the order of their names. What is not
            there is loaded from the Hub.
        revision: of the dataset on the Hub, instead of the pinned one.

    Raises:
        TaskError: it cannot be loaded, lacks columns, or has no rows.
    """
    try:
        if name in HUB_TASKS:
            return _load_hub_task(name, None if data_dir is None else Path(data_dir), revision)
        return _load_own_task(name, revision)
    except RowFileError as error:
        raise TaskError(f"task {name!r}: {error}") from error


def _load_own_task(name: str, revision: str | None) -> Task:
    path = Path(name)
    if not is_row_file(path) and not path.is_dir():
        raise TaskError(
            f"task {name!r}: there is no such task. Name one of {', '.join(HUB_TASKS)}, or a {', '.join(SUFFIXES)} "
            "file, or a folder of such files."
        )
    if revision is not None:
        raise TaskError(f"task {name!r}: a local file has no revision, but {revision!r} was given.")
    dataset, source = _read_local(row_files(path))
    title = path.resolve().name if path.is_dir() else stem(path)
    return _task(title, lambda: rows.own_problems(dataset), 4, source)


def task_from_rows(name: str, examples: Iterable[Mapping[str, Any]], samples: int = 1) -> Task:
    """A task from rows in memory, with the columns of a local file. Raises as `load_task`."""
    return _task(name, lambda: rows.own_problems([dict(row) for row in examples]), samples, {})


def task_title(name: str) -> str:
    """The task's column in the paper's table, or its own name."""
    return HUB_TASKS[name].title if name in HUB_TASKS else name


def _load_hub_task(name: str, data_dir: Path | None, revision: str | None) -> Task:
    hub_task = HUB_TASKS[name]
    local = _local_files(data_dir, name) if data_dir is not None else []
    if local:
        if revision is not None:
            raise TaskError(f"task {name!r}: revision {revision!r} was given, but {local[0]} is a local copy.")
        dataset, source = _read_local(local)
    else:
        revision = revision or hub_task.revision or _newest_revision(name, hub_task.dataset)
        dataset = _load_from_hub(name, hub_task, revision)
        source = {
            "dataset": hub_task.dataset,
            "revision": revision,
            "configs": ", ".join(config for config in hub_task.configs if config) or None,
            "files": ", ".join(hub_task.files) or None,
            "split": hub_task.split,
        }
    there = rows.column_names(dataset)
    missing = [column for column in hub_task.columns if column not in there]
    if missing:
        raise TaskError(
            f"task {name!r}: {hub_task.dataset} should have the columns {missing}; it has {there}. Is this another "
            "revision, or not a copy of that dataset?"
        )
    return _task(name, lambda: hub_task.to_problems(dataset), hub_task.samples, source)


def _local_files(data_dir: Path, name: str) -> list[Path]:
    if not data_dir.is_dir():
        raise TaskError(f"task {name!r}: data_dir={str(data_dir)!r} is not a folder.")
    copies = [
        path for path in sorted(data_dir.iterdir()) if path.is_file() and is_row_file(path) and stem(path) == name
    ]
    if (data_dir / name).is_dir():
        copies.append(data_dir / name)
    if len(copies) > 1:
        raise TaskError(f"task {name!r}: there are several local copies, {[str(path) for path in copies]}: keep one.")
    return row_files(copies[0]) if copies else []


def _read_local(paths: list[Path]) -> tuple[list[dict[str, Any]], dict[str, str | None]]:
    """Rows of local files, and what the results file says of them."""
    records = [row.record for path in paths for row in read_rows(path)]
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return records, {"file": ", ".join(path.name for path in paths), "sha256": digest.hexdigest()}


def _load_from_hub(name: str, hub_task: HubTask, revision: str) -> Dataset:
    try:
        if hub_task.files:
            urls = [f"hf://datasets/{hub_task.dataset}@{revision}/{file}" for file in hub_task.files]
            return load_dataset("json", data_files=urls, split=hub_task.split)
        parts = [
            load_dataset(hub_task.dataset, config, split=hub_task.split, revision=revision)
            for config in hub_task.configs
        ]
        return parts[0] if len(parts) == 1 else concatenate_datasets(parts)
    except (OSError, ValueError, RuntimeError, DatasetsError) as error:
        raise _hub_error(name, hub_task.dataset, revision, error) from error


def _newest_revision(name: str, dataset: str) -> str:
    """The commit at the head of the dataset, so that the results name what was evaluated."""
    # Only datasets without a pin ask the Hub for one.
    from huggingface_hub import HfApi

    try:
        return HfApi().dataset_info(dataset).sha
    except (OSError, ValueError) as error:
        raise _hub_error(name, dataset, "newest", error) from error


def _hub_error(name: str, dataset: str, revision: str, error: Exception) -> TaskError:
    text = f"{type(error).__name__}: {first_line(error)}"
    gated = any(word in str(error).lower() for word in ("gated", "401", "403", "authenticat"))
    advice = (
        f"Accept its conditions at https://huggingface.co/datasets/{dataset} and log in with `hf auth login`, or put"
        if gated
        else "Check the network and the name of the revision, or put"
    )
    return TaskError(
        f"task {name!r}: {dataset} (revision {revision}) could not be loaded: {text.rstrip('.')}. {advice} a copy "
        f"into a folder and give it as --data_dir (file {name}.jsonl)."
    )


def _task(
    name: str, make_problems: Callable[[], Iterable[Problem]], samples: int, source: dict[str, str | None]
) -> Task:
    try:
        problems = tuple(make_problems())
    except (ValueError, KeyError, TypeError) as error:
        raise TaskError(f"task {name!r}: a row cannot be used: {first_line(error)}") from error
    if not problems:
        raise TaskError(f"task {name!r}: there are no rows.")
    ids = {problem.id for problem in problems}
    if len(ids) < len(problems):
        raise TaskError(f"task {name!r}: {len(problems)} problems share {len(ids)} ids; each problem needs its own.")
    return Task(name, problems, samples, source)
