"""Traces in a terminal: the thought by segment, each with its process reward and coloured by it."""

import math
from collections.abc import Sequence

from rich.console import Console, Group
from rich.panel import Panel
from rich.text import Text

from ..trace_colors import NEGATIVE, POSITIVE, strength, visible
from ..traces import Trace

_BARS = "▁▂▃▄▅▆▇█"


def print_traces(traces: Sequence[Trace], title: str, footer: str, console: Console | None = None) -> None:
    """Print each trace as a panel: verdict, the curve of J, and the segments with their rewards; then the footer."""
    console = console or Console()
    largest = max((abs(reward) for trace in traces for reward in trace.process_rewards), default=0.0)
    console.rule(Text(title))
    for trace in traces:
        console.print(_panel(trace, largest))
    console.print(Text(footer, style="dim"))


def describe_auc(auc: float) -> str:
    """`repro/objective_auc` in one line."""
    if math.isnan(auc):
        return "repro/objective_auc: unknown until there are both correct and wrong completions"
    return f"repro/objective_auc {auc:.2f}: how well J separates correct completions from wrong ones (0.5: not at all)"


def _panel(trace: Trace, largest: float) -> Panel:
    verdict = {True: "right", False: "wrong", None: "not judged"}[trace.correct]
    plural = "" if trace.backtracks == 1 else "s"
    title = f"{verdict} · {trace.thinking_tokens} thinking tokens · {trace.backtracks} backtrack{plural}"
    parts = []
    if trace.objective:
        curve = f"J {sparkline(trace.objective)} {trace.objective[0]:.2f} → {trace.objective[-1]:.2f} nats per token"
        parts.append(Text(curve, style="dim"))
    # Text, never markup: what a model writes may look like one.
    for number, reward in enumerate(trace.process_rewards, start=1):
        begin, end = trace.boundaries[number - 1], trace.boundaries[number]
        colour = POSITIVE if reward >= 0 else NEGATIVE
        share = strength(reward, largest)
        line = Text(f"{number:>3} {reward:+.3f} ", style=f"bold {colour}")
        # Pale where the reward is small: colour and number say the same.
        line.append(visible("".join(trace.tokens[begin:end])).strip(), style=colour if share >= 0.15 else "dim")
        parts.append(line)
    rest = trace.boundaries[-1] if trace.boundaries else 0
    parts.append(Text("    " + visible("".join(trace.tokens[rest:])).strip()))
    given = "no boxed answer" if trace.given_answer is None else trace.given_answer
    truth = "none" if trace.answer is None else trace.answer
    return Panel(Group(*parts), title=Text(title), subtitle=Text(visible(f"answer {given}, ground truth {truth}")))


def sparkline(values: Sequence[float]) -> str:
    """A curve of block characters, the lowest value the lowest block."""
    low, high = min(values), max(values)
    scale = (len(_BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(_BARS[round((value - low) * scale)] for value in values)
