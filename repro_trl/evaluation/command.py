"""`repro-trl eval`: the paper's table for a checkpoint of your own."""

import argparse
import dataclasses
import hashlib
import json
import os
import sys
from contextlib import ExitStack
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import gather_object

from ..generation import Sampler, default_backend, load_sampler
from ..jsonl import lock
from ..models import model_files, resolve_revision
from ..sampling import Backend, Sampling, VllmSettings
from .arguments import BATCH_SIZES
from .results import Compared, report
from .run import evaluate_task
from .sandbox import SandboxError, usable_isolation
from .tasks import HUB_TASKS, Task, TaskError, load_task
from .team import FailedElsewhereError, Team
from .verify import Verifier


def run(arguments: argparse.Namespace) -> int:
    """Evaluate on every process; the main one writes and prints. Returns 1 if a task could not be evaluated."""
    # Without an accelerator a launcher's processes find each other only when told so. They wait for the slowest.
    state = PartialState(cpu=not torch.accelerator.is_available(), timeout=timedelta(days=7))
    try:
        return _evaluate(arguments, state)
    except FailedElsewhereError as failure:
        return failure.status


def _evaluate(arguments: argparse.Namespace, state: PartialState) -> int:
    with Team(state).together():
        backend = default_backend() if arguments.backend == "auto" else arguments.backend
        sampling = _sampling(arguments, backend)
        vllm_settings = _vllm_settings(arguments, backend, state)
        team = Team(state, vllm_settings.tensor_parallel_size)
        earlier = None if arguments.compare_to is None else Compared(Path(arguments.compare_to))
    tasks, errors = _load_tasks(arguments, team)
    folder = arguments.model_name_or_path.strip("/").replace("/", "--")
    output_dir = Path(arguments.output_dir or Path("evaluations", folder))
    with team.together():
        model_settings = _model_settings(arguments, backend, vllm_settings) if state.is_main_process else {}
    model_settings = team.from_main(model_settings)

    @cache
    def sampler() -> Sampler:
        return load_sampler(
            arguments.model_name_or_path,
            model_settings["model_commit"],
            backend,
            arguments.dtype,
            state.device,
            state.num_processes,
            state.process_index,
            vllm_settings,
            arguments.trust_remote_code,
            arguments.attn_implementation,
        )

    workers = arguments.verify_workers or max(1, (os.cpu_count() or 1) // state.num_processes)
    with ExitStack() as stack:
        with team.together():
            verifier = stack.enter_context(Verifier(workers, arguments.verify_seconds, sampling.think_end))
            if state.is_main_process:
                # Other evaluations are kept from the folder: one that runs already is waited for.
                (output_dir / "work").mkdir(parents=True, exist_ok=True)
                lock(stack.enter_context((output_dir / "work" / "lock").open("ab")), output_dir, wait=True)
        for task in tasks:
            samples = arguments.num_generations or task.samples
            evaluate_task(task, samples, sampling, model_settings, sampler, verifier, output_dir, team)
        with team.together():
            if state.is_main_process:
                names = [task.name for task in tasks]
                report(output_dir, model_settings, sampling, names, errors, earlier)
        errors = team.from_main(errors)  # of comparisons, too
    return 1 if errors else 0


def _sampling(arguments: argparse.Namespace, backend: Backend) -> Sampling:
    return Sampling(
        temperature=arguments.temperature,
        top_p=arguments.top_p,
        max_new_tokens=arguments.max_completion_length,
        seed=arguments.seed,
        batch_size=BATCH_SIZES[backend] if arguments.batch_size is None else arguments.batch_size,
        think_end=arguments.repro_think_end or None,
    )


def _vllm_settings(arguments: argparse.Namespace, backend: Backend, state: PartialState) -> VllmSettings:
    settings = VllmSettings(**{f.name: getattr(arguments, f"vllm_{f.name}") for f in dataclasses.fields(VllmSettings)})
    if backend == "vllm" or settings == VllmSettings():
        return settings
    if state.is_main_process:
        print("repro-trl eval: the vLLM settings are ignored, because the backend is transformers.", file=sys.stderr)
    return VllmSettings()


def _model_settings(arguments: argparse.Namespace, backend: Backend, vllm_settings: VllmSettings) -> dict[str, Any]:
    """What tells one model's completions from another's, beside `Sampling`."""
    commit = resolve_revision(arguments.model_name_or_path, arguments.model_revision)
    files = model_files(arguments.model_name_or_path, commit)
    return {
        "model": arguments.model_name_or_path,
        "model_revision": arguments.model_revision,
        "model_commit": commit,
        "model_files": files,
        "model_fingerprint": hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest(),
        "backend": backend,
        "dtype": arguments.dtype,
        "attn_implementation": arguments.attn_implementation,
        "vllm_max_model_length": vllm_settings.max_model_length,
    }


def _load_tasks(arguments: argparse.Namespace, team: Team) -> tuple[list[Task], dict[str, str]]:
    """
    Tasks that every process can evaluate, and the errors of the others. A `ValueError` if no task can be evaluated.
    """
    with team.together():
        names, revisions = _task_names(arguments)
    tasks: list[Task] = []
    errors: dict[str, str] = {}
    with team.state.main_process_first():  # it downloads, the others read what it has stored
        for name in names:
            try:
                task = load_task(name, arguments.data_dir, revisions.get(name))
                if not task.votes:
                    usable_isolation()  # programs are not even asked for where they cannot be run
                tasks.append(task)
            except (TaskError, SandboxError, OSError) as error:
                errors[name] = str(error)
    # Nobody may begin a task that others do not have.
    for other in gather_object([errors]):
        errors |= other
    kept = [task for task in tasks if not any(_is_task(name, task) for name in errors)]
    taken = [task.name for task in kept]
    with team.together():
        if len(set(taken)) < len(taken):
            raise ValueError(f"tasks={arguments.tasks!r}: the tasks need different names, got {taken}.")
        if not kept:
            raise ValueError("no task can be evaluated, so nothing is written. " + " ".join(errors.values()))
    if team.state.is_main_process:
        for error in errors.values():
            print(f"repro-trl eval: {error}", file=sys.stderr)
    return kept, errors


def _task_names(arguments: argparse.Namespace) -> tuple[list[str], dict[str, str]]:
    """The tasks that are asked for, each once, and the revisions of their datasets."""
    names = list(dict.fromkeys(name.strip() for name in arguments.tasks.split(",") if name.strip()))
    if not names:
        raise ValueError(f"tasks={arguments.tasks!r} is empty: give some of {', '.join(HUB_TASKS)}, or files.")
    revisions = {}
    for text in arguments.dataset_revision:
        name, _, revision = text.partition("=")
        if name not in names or not revision:
            raise ValueError(f"--dataset_revision {text!r}: give TASK=COMMIT for one of the tasks {names}.")
        revisions[name] = revision
    return names, revisions


def _is_task(name: str, task: Task) -> bool:
    return task.name == (name if name in HUB_TASKS else Path(name).stem)
