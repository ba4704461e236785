"""
Does it work? The grid of `grid.py`: three tasks, four algorithms, with and without RePro, controls, ablations, seeds.

    python study/run.py                        # everything that is missing, on all cores
    python study/run.py --parts main           # four algorithms x {plain, RePro} x 5 seeds x 3 tasks
    python study/run.py --only digits/grpo/repro/0 --results /tmp/again.jsonl     # one cell again
    python study/run.py --list                 # what there is, and what is done

Stop it at any time: a cell that is finished stays, and the next start goes on with the others. `report.py` makes
tables, plots and verdicts of the results. Each worker is one process with one thread.
"""

import argparse
import concurrent.futures
import datetime
import fcntl
import multiprocessing
import os
import platform
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[0:1] = [str(ROOT), str(ROOT / "examples")]  # so that `study` and `pocket` are found from anywhere


def main() -> None:
    from study import grid, records, tasks

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=grid.PARTS, default=list(grid.PARTS), help="default: all")
    parser.add_argument("--tasks", nargs="+", choices=tasks.TASKS, default=list(tasks.TASKS), help="default: all")
    parser.add_argument("--only", nargs="+", metavar="CELL", help="cells by name, such as digits/grpo/repro/0")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes; default: one per core")
    parser.add_argument("--results", type=Path, default=records.CELLS_FILE, help="default: %(default)s")
    parser.add_argument("--list", action="store_true", help="name the cells and say which are done")
    options = parser.parse_args()

    cells = {cell.name: cell for part in options.parts for cell in grid.PARTS[part]()}
    cells = {name: cell for name, cell in cells.items() if cell.task in options.tasks}
    if options.only:
        unknown = [name for name in options.only if name not in cells]
        if unknown:
            parser.error(f"no such cell: {', '.join(unknown)} (--list names them)")
        cells = {name: cells[name] for name in options.only}
    done = {records.cell_of(record).name for record in records.read(options.results)}
    if options.list:
        for name in cells:
            print(f"{'done' if name in done else '    '}  {name}")
        return
    missing = [cell for name, cell in cells.items() if name not in done]
    make_policies(missing)
    print(f"{len(cells) - len(missing)} of {len(cells)} cells are done.", flush=True)
    options.results.parent.mkdir(parents=True, exist_ok=True)
    with options.results.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            parser.error(f"another run is writing {options.results}")
        run_all(missing, options.workers, options.results)


def make_policies(cells: list[Any]) -> None:
    """Warm up the starting policies that are wanted and not there."""
    from study.make import MODELS_DIR, WARM_UPS, make

    for name in WARM_UPS.keys() & {cell.task for cell in cells}:
        folder = MODELS_DIR / name
        if not (folder / "model.safetensors").is_file():
            print(f"Making the starting policy of the {name} task in {folder}: minutes on one core.", flush=True)
            make(WARM_UPS[name], folder)


def run_all(cells: list[Any], workers: int, results: Path) -> None:
    """Run the cells in order on `workers` processes; append each result as it comes."""
    from study import records

    environment = describe_environment()
    started = time.monotonic()
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(workers, mp_context=spawn, initializer=start_worker) as pool:
        futures = {pool.submit(run_one, cell): cell for cell in cells}
        try:
            for count, future in enumerate(concurrent.futures.as_completed(futures), start=1):
                cell, result = futures[future], future.result()
                records.append(results, asdict(cell) | result | environment)
                left = (time.monotonic() - started) / count * (len(cells) - count)
                print(
                    f"[{count}/{len(cells)}] {cell.name}{summary(result)}; {result['seconds']:.0f} s, "
                    f"{datetime.timedelta(seconds=round(left))} left",
                    flush=True,
                )
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def summary(result: dict[str, Any]) -> str:
    """The last evaluation in a few words, if there is one."""
    for last in list(result["evaluations"].values())[-1:]:
        return (
            f": accuracy {last['accuracy']:.3f}, {last['thinking_tokens']:.1f} thinking tokens, "
            f"{last['backtracks']:.2f} backtracks"
        )
    return ""


def start_worker() -> None:
    """One thread per worker, deterministic, quiet, and gone when the driver is, however that ended."""
    import threading
    import warnings

    import torch
    import transformers

    def follow_the_driver() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=follow_the_driver, daemon=True).start()
    warnings.filterwarnings("ignore")
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    # Nothing reads memory before it is written, and TRL's loss takes half a gigabyte of it for a few columns.
    torch.utils.deterministic.fill_uninitialized_memory = False


def run_one(cell: Any) -> dict[str, Any]:
    """In a worker."""
    from study.cell import run_cell

    return run_cell(cell)


def describe_environment() -> dict[str, Any]:
    """Commit, versions and machine, for the record."""
    from importlib.metadata import version

    import torch

    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "commit": commit_of(Path(__file__).parent),
        "versions": {name: version(name) for name in ("torch", "transformers", "trl")},
        # Kernels, and with them the last digits, differ between instruction sets.
        "machine": f"{platform.machine()}, {platform.system()}, {torch.backends.cpu.get_cpu_capability()}",
    }


def commit_of(folder: Path) -> str:
    """The commit of the code, with a plus where files differ from it; "unknown" in a copy without its history."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        commit = git("rev-parse", "--short", "HEAD")
    except (FileNotFoundError, subprocess.CalledProcessError):
        return "unknown"
    changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", "../repro_trl", ":!results")
    return commit + ("+" if changed else "")


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    main()
