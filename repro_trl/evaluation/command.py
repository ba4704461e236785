"""`repro-trl eval`: the paper's table for a checkpoint of your own."""

import argparse
import json
import os
import sys
from collections.abc import Mapping
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import gather_object

from .figures import Comparison, Figures, as_json, compare
from .records import Record, read_items, write_atomically
from .run import evaluate_task, model_fingerprint, records_path
from .sampling import Sampler, default_backend, load_sampler
from .sandbox import SandboxError, usable_isolation
from .settings import BATCH_SIZES, Sampling
from .tables import accuracy_cell, comparison_table, cost_table, difference_cell, paper_table
from .tasks import HUB_TASKS, Task, TaskError, load_task
from .verify import Verifier


def run(arguments: argparse.Namespace) -> int:
    """Evaluate on every process; the main one writes and prints. Returns 1 if a task could not be evaluated."""
    # Without an accelerator a launcher's processes find each other only when told so. They wait for the slowest.
    state = PartialState(cpu=not torch.accelerator.is_available(), timeout=timedelta(days=7))
    try:
        return _run(arguments, state)
    except ValueError as error:
        if state.is_main_process:
            print(f"repro-trl eval: {error}", file=sys.stderr)
        return 2


def _run(arguments: argparse.Namespace, state: PartialState) -> int:
    backend = default_backend() if arguments.backend == "auto" else arguments.backend
    sampling = Sampling(
        temperature=arguments.temperature,
        top_p=arguments.top_p,
        max_new_tokens=arguments.max_completion_length,
        seed=arguments.seed,
        batch_size=BATCH_SIZES[backend] if arguments.batch_size is None else arguments.batch_size,
        think_end=arguments.repro_think_end or None,
    )
    if arguments.compare_to is not None and not Path(arguments.compare_to, "results.json").is_file():
        raise ValueError(f"compare_to={arguments.compare_to!r} is no folder of an evaluation: it has no results.json.")
    model = arguments.model_name_or_path
    output_dir = Path(arguments.output_dir or Path("evaluations", model.strip("/").replace("/", "--")))
    output_dir.mkdir(parents=True, exist_ok=True)
    model_settings = {
        "model": model,
        "model_revision": arguments.model_revision,
        "model_fingerprint": model_fingerprint(model),
        "backend": backend,
        "dtype": arguments.dtype,
        "attn_implementation": arguments.attn_implementation,
    }
    tasks, errors = _load_tasks(arguments, state)

    @cache
    def sampler() -> Sampler:
        return load_sampler(
            arguments.model_name_or_path,
            arguments.model_revision,
            backend,
            arguments.dtype,
            state.device,
            state.num_processes,
            arguments.attn_implementation,
            arguments.trust_remote_code,
        )

    workers = arguments.verify_workers
    if workers is None:
        workers = max(1, (os.cpu_count() or 1) // state.num_processes)
    figures: dict[str, Figures] = {}
    with Verifier(workers, arguments.verify_seconds, sampling.think_end) as verifier:
        for task in tasks:
            samples = arguments.num_generations or task.samples
            figures[task.name] = evaluate_task(
                task, samples, sampling, model_settings, sampler, verifier, output_dir, state
            )
    if state.is_main_process:
        comparisons = _compare(arguments.compare_to, figures, output_dir, errors)
        _report(arguments, model_settings, sampling, tasks, figures, comparisons, errors, output_dir)
    return 1 if errors else 0


def _load_tasks(arguments: argparse.Namespace, state: PartialState) -> tuple[list[Task], dict[str, str]]:
    """Tasks that every process can evaluate, and the errors of the others."""
    names = [name.strip() for name in arguments.tasks.split(",") if name.strip()]
    if not names:
        raise ValueError(f"tasks={arguments.tasks!r} names none; give some of {', '.join(HUB_TASKS)}, or files.")
    revisions = {}
    for text in arguments.dataset_revision:
        name, _, revision = text.partition("=")
        if name not in names or not revision:
            raise ValueError(f"--dataset_revision {text!r}: give TASK=COMMIT for one of the tasks {names}.")
        revisions[name] = revision
    tasks: list[Task] = []
    errors: dict[str, str] = {}
    with state.main_process_first():  # it downloads, the others read what it has stored
        for name in names:
            try:
                task = load_task(name, arguments.data_dir, revisions.get(name))
                if not task.votes:
                    usable_isolation()  # programs are not even asked for where they cannot be run
                tasks.append(task)
            except (TaskError, SandboxError) as error:
                errors[name] = str(error)
    # Nobody may begin a task that others do not have.
    for other in gather_object([errors]):
        errors |= other
    kept = [task for task in tasks if not any(_is_task(name, task) for name in errors)]
    taken = [task.name for task in kept]
    if len(set(taken)) < len(taken):
        raise ValueError(f"tasks={arguments.tasks!r}: the tasks need different names, got {taken}.")
    if state.is_main_process:
        for error in errors.values():
            print(f"repro-trl eval: {error}", file=sys.stderr)
    return kept, errors


def _is_task(name: str, task: Task) -> bool:
    return task.name == (name if name in HUB_TASKS else Path(name).stem)


def _compare(
    folder: str | None, figures: Mapping[str, Figures], output_dir: Path, errors: dict[str, str]
) -> dict[str, Comparison]:
    comparisons = {}
    for task in figures if folder is not None else ():
        path = records_path(Path(folder), task)
        if not path.is_file():
            errors[f"compare_to {task}"] = f"compare_to={folder!r} has no {path.name}."
            continue
        try:
            comparisons[task] = compare(read_items(path, Record), read_items(records_path(output_dir, task), Record))
        except ValueError as error:
            errors[f"compare_to {task}"] = f"compare_to={folder!r}, {task}: {error}"
    return comparisons


def _report(
    arguments: argparse.Namespace,
    model_settings: dict[str, Any],
    sampling: Sampling,
    tasks: list[Task],
    figures: dict[str, Figures],
    comparisons: dict[str, Comparison],
    errors: dict[str, str],
    output_dir: Path,
) -> None:
    results: dict[str, Any] = {
        **model_settings,
        "sampling": vars(sampling),
        "tasks": {
            task.name: {"source": task.source, **as_json(figures[task.name])} for task in tasks if task.name in figures
        },
        "errors": errors,
    }
    model = arguments.model_name_or_path
    rows = {model: {task: accuracy_cell(row) for task, row in figures.items()}}
    if arguments.compare_to is not None:
        earlier = json.loads(Path(arguments.compare_to, "results.json").read_text(encoding="utf-8"))
        label = earlier["model"] if earlier["model"] != model else f"{earlier['model']} (compared to)"
        cells = {task: _cell_of(row) for task, row in earlier["tasks"].items() if task in figures}
        difference = {task: difference_cell(row) for task, row in comparisons.items()}
        rows = {label: cells, **rows, "difference": difference}
        results["compared_to"] = {
            "model": earlier["model"],
            "tasks": {task: as_json(comparison) for task, comparison in comparisons.items()},
        }
    write_atomically(output_dir / "results.json", json.dumps(results, indent=2, ensure_ascii=False) + "\n")
    for style in ("markdown", "terminal"):
        tables = [paper_table(rows, style), cost_table(figures, style)]
        if comparisons:
            tables.append(comparison_table(comparisons, style))
        notes = [f"Not evaluated: {error}" for error in errors.values()]
        text = "\n\n".join([*(tables if figures else []), *notes]) + "\n"
        if style == "markdown":
            write_atomically(output_dir / "results.md", text)
        else:
            print("\n" + text + f"\nCompletions and results are in {output_dir}")


def _cell_of(row: dict[str, Any]) -> str:
    error = row["standard_error"]
    return f"{100 * row['accuracy']:.1f}" + ("" if error is None else f" ± {100 * error:.1f}")
