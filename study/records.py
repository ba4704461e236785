"""Raw results on disk: one JSON line per finished cell, complete or absent."""

import json
import os
from pathlib import Path
from typing import Any

from .cell import Cell

RESULTS_DIR = Path(__file__).parent / "results"
CELLS_FILE = RESULTS_DIR / "cells.jsonl"


def read(file: Path) -> list[dict[str, Any]]:
    """All records. A last line that an interrupted run left unfinished is not one."""
    if not file.is_file():
        return []
    lines = file.read_text().splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def append(file: Path, record: dict[str, Any]) -> None:
    """Add one record, and have it on disk before returning."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a+b") as stream:
        # What an interrupted run left of a line is cut off.
        stream.seek(0)
        stream.truncate(stream.read().rfind(b"\n") + 1)
        stream.write(json.dumps(record, separators=(",", ":"), allow_nan=False).encode() + b"\n")
        stream.flush()
        os.fsync(stream.fileno())


def cell_of(record: dict[str, Any]) -> Cell:
    """The cell that a record is the result of."""
    return Cell(record["task"], record["algorithm"], record["arm"], record["seed"], record["overrides"])
