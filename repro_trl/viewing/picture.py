"""The completions of one prompt as a picture: curves above, the thought by segment below."""

import itertools
import os
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ..trace_colors import NEGATIVE, POSITIVE, strength, visible
from ..traces import Trace

MAX_COLUMNS = 4
"""Completions that fit side by side; of more, the first are drawn."""

_COLUMN_WIDTH, _LINE_HEIGHT = 5.0, 0.146  # inches
_CHARACTERS, _MAX_LINES = 56, 6  # of a segment
_MAX_BLOCKS = 60  # of a completion; a taller picture is no picture
_INK, _SOFT, _PAPER, _LINE = "#1e2126", "#5d626b", "#fffefb", "#e0dcd3"
_MAGNITUDE, _STABILITY = "#2a7a62", "#8a3f94"


@dataclass(frozen=True)
class _Block:
    """Lines of one segment; no reward for what follows the thought."""

    lines: list[str]
    reward: float | None
    entropy: float | None


def write_picture(path: str | os.PathLike, traces: Sequence[Trace]) -> None:
    """Draw completions of one prompt, at least one, side by side as a PNG: the first `MAX_COLUMNS` of them."""
    traces = traces[:MAX_COLUMNS]
    columns = [_blocks(trace) for trace in traces]
    text_height = max(sum(len(block.lines) + 0.95 for block in blocks) for blocks in columns) * _LINE_HEIGHT + 0.2
    prompt = _wrap(traces[0].prompt, int(_CHARACTERS * 1.35 * len(traces)), 5)
    heights = [0.3 + _LINE_HEIGHT * 1.25 * len(prompt), 0.16, 1.5, 1.0, text_height]
    figure = Figure(figsize=(_COLUMN_WIDTH * len(traces), sum(heights) + 1.4), facecolor=_PAPER, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.12)
    grid = figure.add_gridspec(len(heights), len(traces), height_ratios=heights)
    top = figure.add_subplot(grid[0, :])
    top.axis("off")
    top.text(0, 1, "\n".join(prompt), va="top", fontsize=10, color=_INK, parse_math=False)
    largest = max((abs(reward) for trace in traces for reward in trace.process_rewards), default=0.0)
    for column, (trace, blocks) in enumerate(zip(traces, columns, strict=True)):
        strip, curve, scores, text = (figure.add_subplot(grid[row, column]) for row in range(1, len(heights)))
        _draw_title(strip, trace)
        _draw_strip(strip, trace, largest)
        _draw_curves(curve, scores, trace, largest)
        _draw_text(text, blocks, largest, text_height)
    figure.savefig(path, format="png", dpi=140)


def _blocks(trace: Trace) -> list[_Block]:
    cuts = [*trace.boundaries, len(trace.tokens)] if trace.boundaries else [0, len(trace.tokens)]
    blocks = []
    for index, (begin, end) in enumerate(itertools.pairwise(cuts)):
        lines = _wrap("".join(trace.tokens[begin:end]), _CHARACTERS, _MAX_LINES)
        is_segment = index < len(trace.process_rewards)
        if lines:
            reward, entropy = (trace.process_rewards[index], trace.entropies[index]) if is_segment else (None, None)
            blocks.append(_Block(lines, reward, entropy))
    if len(blocks) <= _MAX_BLOCKS:
        return blocks
    left_out = _Block([f"… {len(blocks) - _MAX_BLOCKS} segments omitted …"], None, None)
    return [*blocks[: _MAX_BLOCKS - 2], left_out, *blocks[-2:]]


def _wrap(text: str, width: int, most: int) -> list[str]:
    lines = [part for line in visible(text).strip().split("\n") for part in textwrap.wrap(line, width)]
    return lines if len(lines) <= most else [*lines[: most - 1], f"… {len(lines) - most + 1} more lines"]


def _colour(reward: float) -> str:
    return POSITIVE if reward >= 0 else NEGATIVE


def _draw_title(axes: Axes, trace: Trace) -> None:
    verdict = {True: "right", False: "wrong", None: "not judged"}[trace.correct]
    given = "no boxed answer" if trace.given_answer is None else f"answer {_shortened(trace.given_answer, 32)}"
    facts = f"{len(trace.tokens)} tokens, {trace.backtracks} backtrack{'' if trace.backtracks == 1 else 's'}"
    for text, above, style in (
        (f"{verdict} · {given}", 20, {"fontsize": 10, "fontweight": "bold", "color": _INK}),
        (facts, 6, {"fontsize": 8, "color": _SOFT}),
    ):
        label = axes.annotate(text, (0, 1), (0, above), xycoords="axes fraction", textcoords="offset points", **style)
        label.set_parse_math(False)


def _shortened(text: str, most: int) -> str:
    text = visible(text).replace("\n", " ")
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _draw_strip(axes: Axes, trace: Trace, largest: float) -> None:
    for begin, end, reward in zip(trace.boundaries, trace.boundaries[1:], trace.process_rewards, strict=False):
        shade = strength(reward, largest)
        axes.axvspan(begin, end, facecolor=_LINE, edgecolor=_PAPER)
        axes.axvspan(begin, end, facecolor=_colour(reward), alpha=shade, edgecolor=_PAPER)
    _set_tokens(axes, trace)
    axes.axis("off")


def _draw_curves(curve: Axes, scores: Axes, trace: Trace, largest: float) -> None:
    if not trace.boundaries:
        curve.text(0.5, 0.5, "not scored", ha="center", color=_SOFT, transform=curve.transAxes)
        curve.axis("off")
        scores.axis("off")
        return
    curve.plot(trace.boundaries, trace.objective, color=_INK, linewidth=1.6, zorder=2)
    colours = [_SOFT, *map(_colour, trace.process_rewards)]
    curve.scatter(
        trace.boundaries, trace.objective, c=colours, s=26, edgecolors=_INK, linewidths=0.6, zorder=3, clip_on=False
    )
    curve.set_ylabel("J, nats per token", fontsize=8)
    scores.plot(trace.boundaries, trace.magnitude, color=_MAGNITUDE, label="magnitude")
    scores.plot(trace.boundaries[1:], trace.stability[1:], color=_STABILITY, linestyle="--", label="stability")
    scores.set_ylim(-0.05, 1.05)
    scores.set_ylabel("scores", fontsize=8)
    scores.set_xlabel("tokens of the thought", fontsize=8)
    scores.legend(fontsize=7, frameon=False, loc="best")
    for axes in (curve, scores):
        _set_tokens(axes, trace)
        axes.set_facecolor(_PAPER)
        axes.tick_params(labelsize=8, colors=_SOFT)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color=_LINE, linewidth=0.6)


def _set_tokens(axes: Axes, trace: Trace) -> None:
    axes.set_xlim(0, max(trace.boundaries[-1], 1) if trace.boundaries else 1)


def _draw_text(axes: Axes, blocks: list[_Block], largest: float, height: float) -> None:
    axes.set_xlim(0, _COLUMN_WIDTH)
    axes.set_ylim(height, 0)  # inches, downwards
    axes.axis("off")
    y = 0.05
    for block in blocks:
        size = len(block.lines) * _LINE_HEIGHT + 0.06
        if block.reward is not None:
            colour = _colour(block.reward)
            tint = 0.32 * strength(block.reward, largest)
            axes.add_patch(Rectangle((0.62, y), _COLUMN_WIDTH - 0.62, size, facecolor=colour, alpha=tint, linewidth=0))
            axes.add_patch(Rectangle((0.62, y), 0.05, size, facecolor=colour, linewidth=0))
            label = f"{block.reward:+.3f}".replace("-", "−")
            axes.text(0.56, y + 0.03, label, ha="right", va="top", fontsize=7.5, color=colour, fontweight="bold")
            if block.entropy is not None:
                place = (_COLUMN_WIDTH - 0.05, y + 0.04)
                axes.text(*place, f"H {block.entropy:.2f}", ha="right", va="top", fontsize=6.5, color=_SOFT)
        text = "\n".join(block.lines)
        axes.text(0.74, y + 0.03, text, va="top", fontsize=7.4, family="monospace", color=_INK, linespacing=1.32,
                  parse_math=False)  # fmt: skip
        y += size + 0.5 * _LINE_HEIGHT
    for artist in [*axes.texts, *axes.patches]:
        artist.set_in_layout(False)  # they lie in their cell, and to measure so many takes seconds
