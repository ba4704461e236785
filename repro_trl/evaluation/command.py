"""`repro-trl eval`: the paper's table for a checkpoint of your own."""

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import gather_object

from ..command_line import run_command
from ..generation import Sampler, default_backend, load_sampler
from ..jsonl import lock
from ..models import check_dtype, model_files, resolve_revision
from ..sampling import Backend, Sampling, VllmSettings, add_vllm_arguments, vllm_settings_from_arguments
from .results import Compared, report
from .run import evaluate_task
from .sandbox import SandboxError, usable_isolation
from .tasks import HUB_TASKS, Task, TaskError, load_task
from .team import FailedElsewhereError, Team
from .verify import Verifier

_BATCH_SIZES = {"transformers": 64, "vllm": 1024}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    defaults = Sampling()
    parser.add_argument("--model", required=True, help="Name on the Hub, or folder.")
    parser.add_argument("--model_revision", help="Branch, tag or commit of a model on the Hub.")
    parser.add_argument(
        "--tasks",
        default=",".join(HUB_TASKS),
        help="Separated by commas: %(default)s, or files of your own (json, jsonl, parquet, csv).",
    )
    parser.add_argument("--data_dir", help="Folder with local copies of the datasets: <task>.jsonl or <task>/*.jsonl.")
    parser.add_argument(
        "--revision",
        action="append",
        default=[],
        metavar="TASK=COMMIT",
        help="Commit of a task's dataset instead of the pinned one; may be given several times.",
    )
    parser.add_argument("--output_dir", help="For completions and results. Default: evaluations/<model>.")
    parser.add_argument("--compare_to", metavar="OUTPUT_DIR", help="Earlier evaluation, compared problem by problem.")
    parser.add_argument(
        "--num_samples", type=int, help="Completions of each problem. Default: 16 for the small sets, 4 for others."
    )
    parser.add_argument(
        "--temperature", type=float, default=defaults.temperature, help="Default: %(default)s; 0 is greedy."
    )
    parser.add_argument("--top_p", type=float, default=defaults.top_p, help="Default: %(default)s.")
    parser.add_argument("--max_new_tokens", type=int, default=defaults.max_new_tokens, help="Default: %(default)s.")
    parser.add_argument("--seed", type=int, default=defaults.seed, help="Default: %(default)s.")
    parser.add_argument(
        "--batch_size",
        type=int,
        help="Completions sampled together. Default: "
        f"{_BATCH_SIZES['transformers']}, with vLLM {_BATCH_SIZES['vllm']}.",
    )
    parser.add_argument(
        "--backend",
        choices=["auto", "vllm", "transformers"],
        default="auto",
        help="auto: vLLM where it is installed and there is a GPU, else transformers.",
    )
    parser.add_argument("--dtype", default="auto", help="Of the weights. Default: as they were saved.")
    parser.add_argument(
        "--think_end",
        default=defaults.think_end,
        help="Text that ends the thought; empty: a completion is thought to its end. Default: %(default)s.",
    )
    parser.add_argument(
        "--verify_seconds", type=float, default=10.0, help="For one comparison of answers. Default: %(default)s."
    )
    parser.add_argument(
        "--verify_workers", type=int, help="Completions verified at one time. Default: the cores, shared by processes."
    )
    add_vllm_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Evaluate on every process; the main one writes and prints. Returns 1 if a task could not be evaluated."""
    kept = "What was done is kept; the same command goes on from there."
    return run_command("eval", lambda: _run(arguments), kept)


def _run(arguments: argparse.Namespace) -> int:
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
    output_dir = Path(arguments.output_dir or Path("evaluations", arguments.model.strip("/").replace("/", "--")))
    with team.together():
        model_settings = _model_settings(arguments, backend, vllm_settings) if state.is_main_process else {}
    model_settings = team.from_main(model_settings)

    @cache
    def sampler() -> Sampler:
        return load_sampler(
            arguments.model,
            model_settings["model_commit"],
            backend,
            arguments.dtype,
            state.device,
            state.num_processes,
            state.process_index,
            vllm_settings,
        )

    workers = arguments.verify_workers
    if workers is None:
        workers = max(1, (os.cpu_count() or 1) // state.num_processes)
    with ExitStack() as stack:
        with team.together():
            verifier = stack.enter_context(Verifier(workers, arguments.verify_seconds, sampling.think_end))
            if state.is_main_process:
                stack.enter_context(_only_run(output_dir))
        for task in tasks:
            samples = arguments.num_samples or task.samples
            evaluate_task(task, samples, sampling, model_settings, sampler, verifier, output_dir, team)
        with team.together():
            if state.is_main_process:
                names = [task.name for task in tasks]
                report(output_dir, model_settings, sampling, names, errors, earlier)
        errors = team.from_main(errors)  # of comparisons, too
    return 1 if errors else 0


def _sampling(arguments: argparse.Namespace, backend: Backend) -> Sampling:
    if arguments.num_samples is not None and arguments.num_samples < 1:
        raise ValueError(f"num_samples={arguments.num_samples}: give 1 or more.")
    check_dtype(arguments.dtype)
    return Sampling(
        temperature=arguments.temperature,
        top_p=arguments.top_p,
        max_new_tokens=arguments.max_new_tokens,
        seed=arguments.seed,
        batch_size=_BATCH_SIZES[backend] if arguments.batch_size is None else arguments.batch_size,
        think_end=arguments.think_end or None,
    )


def _vllm_settings(arguments: argparse.Namespace, backend: Backend, state: PartialState) -> VllmSettings:
    settings = vllm_settings_from_arguments(arguments)
    if backend == "vllm" or settings == VllmSettings():
        return settings
    if state.is_main_process:
        print("repro-trl eval: the settings of vLLM are skipped: transformers samples.", file=sys.stderr)
    return VllmSettings()


def _model_settings(arguments: argparse.Namespace, backend: Backend, vllm_settings: VllmSettings) -> dict[str, Any]:
    """What tells one model's completions from another's, beside `Sampling`."""
    commit = resolve_revision(arguments.model, arguments.model_revision)
    files = model_files(arguments.model, commit)
    return {
        "model": arguments.model,
        "model_revision": arguments.model_revision,
        "model_commit": commit,
        "model_files": files,
        "model_fingerprint": hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest(),
        "backend": backend,
        "dtype": arguments.dtype,
        "vllm_max_model_length": vllm_settings.max_model_length,
    }


@contextmanager
def _only_run(output_dir: Path) -> Iterator[None]:
    """Makes the folder, and keeps other evaluations from it: one that runs already is waited for."""
    path = output_dir / "work" / "lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        lock(file, output_dir, wait=True)
        yield


def _load_tasks(arguments: argparse.Namespace, team: Team) -> tuple[list[Task], dict[str, str]]:
    """
    Tasks that every process can evaluate, and the errors of the others.

    Raises:
        ValueError: there is no task that can be evaluated.
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
            raise ValueError("no task can be evaluated, and nothing is written. " + " ".join(errors.values()))
    if team.state.is_main_process:
        for error in errors.values():
            print(f"repro-trl eval: {error}", file=sys.stderr)
    return kept, errors


def _task_names(arguments: argparse.Namespace) -> tuple[list[str], dict[str, str]]:
    """The tasks that are asked for, each once, and the revisions of their datasets."""
    names = list(dict.fromkeys(name.strip() for name in arguments.tasks.split(",") if name.strip()))
    if not names:
        raise ValueError(f"tasks={arguments.tasks!r} names none; give some of {', '.join(HUB_TASKS)}, or files.")
    revisions = {}
    for text in arguments.revision:
        name, _, revision = text.partition("=")
        if name not in names or not revision:
            raise ValueError(f"revision={text!r}: give TASK=COMMIT for one of the tasks {names}.")
        revisions[name] = revision
    return names, revisions


def _is_task(name: str, task: Task) -> bool:
    return task.name == (name if name in HUB_TASKS else Path(name).stem)
