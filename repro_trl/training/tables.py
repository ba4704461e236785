"""The tables at the end of a training: held-out figures before and after, of one run or of two side by side."""

import json
from collections.abc import Mapping
from pathlib import Path

Rows = dict[str, dict[str, float | None]]
"""By row, and in it by column, the figures."""

BEFORE_AFTER_FILE = "before_after.json"
RUN_FILE = "run.json"
"""What a run's folder says of the run beside its training arguments."""


def format_table(rows: Mapping[str, Mapping[str, float | None]], corner: str = "held out") -> str:
    """The rows under each other, with the columns in which the last one has a figure."""
    *_, last = rows.values()
    columns = [column for column, value in last.items() if value is not None]
    width = max(map(len, [*rows, corner])) + 1
    lines = ["".join([f"{corner:{width}}", *(f"{column:>17}" for column in columns)])]
    for name, row in rows.items():
        figures = ("–" if row[column] is None else f"{row[column]:.3f}" for column in columns)
        lines.append("".join([f"{name:{width}}", *(f"{figure:>17}" for figure in figures)]))
    return "\n".join(lines)


def write_rows(rows: Rows, output_dir: str | Path) -> None:
    """Leave the rows `before` and `after` in a run's folder."""
    Path(output_dir, BEFORE_AFTER_FILE).write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


def compare_runs(plain: str | Path, repro: str | Path, title: str) -> str:
    """Two runs from the same model, by their folders, side by side; `title` is that of the algorithm."""
    plain_rows, repro_rows = (
        json.loads(Path(folder, BEFORE_AFTER_FILE).read_text(encoding="utf-8")) for folder in (plain, repro)
    )
    # J is not measured without RePro.
    shown = [column for column in repro_rows["after"] if plain_rows["after"].get(column) is not None]
    plain_rows, repro_rows = (
        {name: {column: row.get(column) for column in shown} for name, row in rows.items()}
        for rows in (plain_rows, repro_rows)
    )
    rows = {"before": repro_rows["before"]}
    if plain_rows["before"] != repro_rows["before"]:  # as with vLLM, whose samples differ
        rows = {f"before {title}": plain_rows["before"], f"before {title} with RePro": repro_rows["before"]}
    rows |= {f"after {title}": plain_rows["after"], f"after {title} with RePro": repro_rows["after"]}
    return format_table(rows)
