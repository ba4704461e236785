"""A comparison as tables in a terminal."""

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from .comparison import Comparison, counted_runs, label_of, seed_of, show_difference, show_estimate
from .metrics import COMPLETIONS
from .runs import printable
from .texts import COMPLETIONS_NOTE, INTERVAL_NOTE, phase_note


def print_comparison(comparison: Comparison, console: Console) -> None:
    """Print the arms, a table for each phase, flags and notes."""
    for arm in comparison.arms:
        runs = ", ".join(f"{run.name} ({seed_of(run)})" for run in arm.runs)
        console.print(Text.assemble((arm.name, "bold"), f": {runs}"))
    for phase in comparison.phases:
        rows = [row for row in comparison.rows if row.phase == phase]
        if not rows:
            console.print(Text(f"\nNo {phase} figures."))
            continue
        console.print()
        table = _table(comparison, phase)
        # In a narrow terminal the column goes that the others make up for.
        fits = console.measure(table, options=console.options.update(width=1000)).maximum <= console.width
        console.print(table if fits else _table(comparison, phase, with_change=False))
        console.print(Text(phase_note(phase), style="dim"))
    if any(COMPLETIONS in row.sources for row in comparison.rows):
        console.print(Text(COMPLETIONS_NOTE, style="dim"))
    if any(len(arm.runs) > 1 for arm in comparison.arms):
        console.print(Text(INTERVAL_NOTE, style="dim"))
    _print_findings(comparison, console)


def _table(comparison: Comparison, phase: str, with_change: bool = True) -> Table:
    many = len(comparison.arms) > 1
    title = Text(printable(phase), style="bold")
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("", overflow="fold")
    table.add_column("arm", overflow="fold")
    for name in ("start", "end", "change") if with_change else ("start", "end"):
        table.add_column(name, justify="right", overflow="fold")
    if many:
        table.add_column(Text(f"end − {comparison.arms[0].name}"), justify="right", overflow="fold")
    table.add_column("runs", justify="right")
    previous = None
    for row in (row for row in comparison.rows if row.phase == phase):
        decimals = row.metric.decimals
        cells = [
            label_of(row) if row.metric.key != previous else "",
            row.arm.name,
            show_estimate(row.start, decimals),
            show_estimate(row.end, decimals),
            *([show_estimate(row.change, decimals, signed=True)] if with_change else []),
            *([show_difference(row.difference, decimals)] if many else []),
            counted_runs(row).removesuffix("s").removesuffix(" run"),
        ]
        table.add_row(*map(Text, cells))
        previous = row.metric.key
    return table


def _print_findings(comparison: Comparison, console: Console) -> None:
    raised = [(name, flag) for name, flag in comparison.flags if flag.raised]
    console.print()
    if not raised:
        console.print(Text("No flags."))
    for name, flag in raised:
        console.print(Text.assemble(("FLAG ", "bold red"), f"{flag.rule}, {name}: {flag.text}"))
    for name, flag in comparison.flags:
        if not flag.raised:
            console.print(Text(f"{flag.rule}, {name}: {flag.text}"))
    for note, names in comparison.notes.items():
        console.print(Text(f"Note, {', '.join(names)}: {note}"))
