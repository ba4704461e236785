"""The results of an output folder: of all tasks that it holds, whichever run evaluated them."""

import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..jsonl import read_object, write_atomically
from ..sampling import Sampling
from .figures import Comparison, Figures, as_json, compare, compute_figures
from .records import Record, read_items, read_settings
from .run import records_path, work_folder
from .tables import accuracy_cell, comparison_table, cost_table, difference_cell, paper_table
from .tasks import HUB_TASKS


class Compared:
    """An earlier evaluation, to compare with: a `ValueError` if the folder is none, or its results are damaged."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        path = folder / "results.json"
        if not path.is_file():
            raise ValueError(f"compare_to={str(folder)!r} is not the folder of an evaluation: it has no results.json.")
        results = read_object(path, "Evaluate that model again.")
        try:
            self.model = str(results["model"])
            self.cells = {
                task: _cell(row["accuracy"], row["standard_error"]) for task, row in results["tasks"].items()
            }
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"compare_to={str(folder)!r}: {path} has no results of an evaluation.") from error

    def compare(self, task: str, output_dir: Path) -> Comparison:
        """Compare a task of both folders; a `ValueError` says why that cannot be done."""
        path = records_path(self.folder, task)
        if not path.is_file():
            raise ValueError(f"compare_to={str(self.folder)!r} has no {path.name}.")
        try:
            return compare(read_items(path, Record), read_items(records_path(output_dir, task), Record))
        except ValueError as error:
            raise ValueError(f"compare_to={str(self.folder)!r}, {task}: {error}") from error


def report(
    output_dir: Path,
    model_settings: Mapping[str, Any],
    sampling: Sampling,
    asked: list[str],
    errors: dict[str, str],
    earlier: Compared | None,
) -> None:
    """
    Write `results.json` and `results.md`, and print the tables, of all tasks that the folder holds: those that were
    asked for in this run and others. `errors`, by task, gets those of comparisons.
    """
    figures, sources = _read(output_dir)
    comparisons: dict[str, Comparison] = {}
    for task in figures if earlier is not None else ():
        try:
            comparisons[task] = earlier.compare(task, output_dir)
        except ValueError as error:
            if task in asked:
                errors[f"compare_to {task}"] = str(error)
                print(f"repro-trl eval: {error}", file=sys.stderr)
    model = model_settings["model"]
    results: dict[str, Any] = {
        **{name: value for name, value in model_settings.items() if name != "model_files"},
        "sampling": vars(sampling),
        "tasks": {task: {"source": sources[task], **as_json(row)} for task, row in figures.items()},
        "errors": errors,
    }
    rows = {model: {task: accuracy_cell(row.accuracy, row.standard_error) for task, row in figures.items()}}
    if earlier is not None:
        label = earlier.model if earlier.model != model else f"{earlier.model} (compared to)"
        cells = {task: cell for task, cell in earlier.cells.items() if task in figures}
        rows = {label: cells, **rows, "difference": {task: difference_cell(row) for task, row in comparisons.items()}}
        results["compared_to"] = {
            "model": earlier.model,
            "tasks": {task: as_json(comparison) for task, comparison in comparisons.items()},
        }
    write_atomically(output_dir / "results.json", json.dumps(results, indent=2, ensure_ascii=False) + "\n")
    for style in ("markdown", "terminal"):
        tables = [paper_table(figures, rows, style), cost_table(figures, style)]
        if comparisons:
            tables.append(comparison_table(comparisons, style))
        notes = [f"Not evaluated: {error}" for error in errors.values()]
        text = "\n\n".join([*tables, *notes]) + "\n"
        if style == "markdown":
            write_atomically(output_dir / "results.md", text)
        else:
            print("\n" + text + f"\nCompletions and results are in {output_dir}")


def _read(output_dir: Path) -> tuple[dict[str, Figures], dict[str, Any]]:
    """Figures of every task that was evaluated to its end, in one order, and where its problems are from."""
    found = {path.parent.name for path in (output_dir / "work").glob("*/settings.json")}
    names = [name for name in HUB_TASKS if name in found] + sorted(found - HUB_TASKS.keys())
    figures: dict[str, Figures] = {}
    sources: dict[str, Any] = {}
    for name in names:
        path = records_path(output_dir, name)
        if path.is_file():
            settings = read_settings(work_folder(output_dir, name) / "settings.json")
            figures[name] = compute_figures(read_items(path, Record), settings.get("votes", True))
            sources[name] = settings.get("source")
    return figures, sources


def _cell(accuracy: float, error: float | None) -> str:
    if not math.isfinite(accuracy) or not (error is None or math.isfinite(error)):
        raise TypeError("a figure is not finite")
    return accuracy_cell(accuracy, error)
