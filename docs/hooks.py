"""
Replaces markers in the pages with tables of settings, phrases and rules, and with the help of commands, so that pages
cannot drift from the code.
"""

import argparse
import dataclasses
import importlib
import json
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from repro_trl.cli import COMMANDS
from repro_trl.reporting.flags import RULES
from repro_trl.thinking import BACKTRACK_PHRASES

BENCHMARK_RESULTS = Path(__file__).parents[1] / "benchmarks" / "results" / "cpu.json"
# What a row of results holds: head of its columns, and how a value is written.
_BENCHMARK_COLUMNS = {
    "seconds": ("{}", "{:.2f} s"),
    "peak_mib": ("peak, {}", "{:.0f} MiB"),
    "ratios": ("{}", "{:.2f}"),
    "largest_difference": ("ΔJ, {}", "{:.0e}"),
}


def settings_table(name: str) -> str:
    """The fields that the config class `repro_trl.NAME` itself adds, with default and help."""
    module_name, _, class_name = name.rpartition(".")
    config = getattr(importlib.import_module(f"repro_trl.{module_name}"), class_name)
    rows = []
    for field in dataclasses.fields(config):
        if field.name not in config.__annotations__:
            continue
        choices = field.metadata.get("choices")
        text = field.metadata["help"] + (f" One of {', '.join(f'`{c}`' for c in choices)}." if choices else "")
        rows.append((f"`{field.name}`", _code(field.default), text))
    return _table(("setting", "default", "meaning"), rows)


def phrases_table(_: str) -> str:
    """The phrases of each kind of backtrack."""
    return _table(("kind", "phrases"), [(kind, ", ".join(words)) for kind, words in BACKTRACK_PHRASES.items()])


def rules_table(_: str) -> str:
    """What each flag of a report means."""
    return _table(("flag", "rule"), RULES.items())


def command_help(name: str) -> str:
    """What `repro-trl NAME --help` prints."""
    module_name, summary = COMMANDS[name]
    parser = argparse.ArgumentParser(prog=f"repro-trl {name}", description=summary)
    importlib.import_module(module_name).add_arguments(parser)
    columns, os.environ["COLUMNS"] = os.environ.get("COLUMNS"), "80"  # argparse asks the terminal, if there is one
    try:
        text = parser.format_help()
    finally:
        if columns is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = columns
    return f"```text\n{text}```"


def all_commands(_: str) -> str:
    """A section for each subcommand."""
    return "\n\n".join(f"## repro-trl {name}\n\n{command_help(name)}" for name in COMMANDS)


def benchmark_table(part: str) -> str:
    """The committed results of one part of benchmarks/run.py, and when and where they were measured."""
    results = json.loads(BENCHMARK_RESULTS.read_text())[part]
    cells = [
        {
            head.format(key): text.format(value)
            for kind, (head, text) in _BENCHMARK_COLUMNS.items()
            for key, value in row.get(kind, {}).items()
        }
        for row in results["rows"]
    ]
    columns = list(dict.fromkeys(key for row in cells for key in row))
    rows = [
        (row["case"], *(values.get(key, "") for key in columns))
        for row, values in zip(results["rows"], cells, strict=True)
    ]
    source = (
        f"{results['device']}, {results['threads']} thread, torch {results['torch']}, TRL {results['trl']}, "
        f"{results['date']}; medians of {results['repeats']}."
    )
    return f"{_table(('case', *columns), rows)}\n\n{source}"


FILLERS: dict[str, Callable[[str], str]] = {
    "benchmark": benchmark_table,
    "settings": settings_table,
    "backtrack phrases": phrases_table,
    "flag rules": rules_table,
    "help": command_help,
    "all commands": all_commands,
}
_MARKER = re.compile(r"^<!-- fill: ([a-z ]+?)(?: of ([\w. ]+))? -->$", re.MULTILINE)


def on_page_markdown(markdown: str, **kwargs: Any) -> str:
    """Called by mkdocs for each page."""
    return _MARKER.sub(lambda match: FILLERS[match[1]](match[2] or ""), markdown)


_REFERENCE = re.compile(r"\[(<code>(\w+)</code>)\]")


def on_page_content(html: str, **kwargs: Any) -> str:
    """Called by mkdocs for each rendered page: a class that a docstring names in brackets becomes a link to it."""
    places = {place.rpartition(".")[2]: place for place in re.findall(r'id="(repro_trl\.[\w.]+)"', html)}

    def link(match: re.Match[str]) -> str:
        place = places.get(match[2])
        return match[1] if place is None else f'<a href="#{place}">{match[1]}</a>'

    return _REFERENCE.sub(link, html)


def _code(value: object) -> str:
    return f"`{value!r}`"


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    def line(cells: Iterable[str]) -> str:
        return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"

    head = list(head)
    return "\n".join([line(head), line("---" for _ in head), *map(line, rows)])
