"""A comparison as a PNG: one panel for each quantity. Needs matplotlib (the extra `report`)."""

import math
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from .comparison import Comparison, Curve
from .metrics import HELD_OUT, TRAINING, Metric
from .style import ArmStyle, arm_style

_COLUMNS = 3
_PANEL_SIZE = (4.2, 2.7)  # inches


def save_picture(comparison: Comparison, path: str | Path) -> None:
    """Draw the quantities that any run has, over steps: lines for training, markers for held-out evaluations."""
    shown = [m for m in comparison.metrics if any(row.metric == m for row in comparison.rows)]
    num_rows = math.ceil(len(shown) / _COLUMNS)
    figure = Figure(figsize=(_COLUMNS * _PANEL_SIZE[0], num_rows * _PANEL_SIZE[1] + 0.7), layout="constrained")
    panels = figure.subplots(num_rows, _COLUMNS, squeeze=False).flat
    for axes, metric in zip(panels, shown, strict=False):
        _draw(axes, comparison, metric)
    for axes in list(panels)[len(shown) :]:
        axes.axis("off")
    handles = [
        Line2D([], [], color=style.light, dashes=style.dashes or (None, None), marker=style.marker, label=arm.name)
        for index, arm in enumerate(comparison.arms)
        for style in [arm_style(index)]
    ]
    for handle in handles:  # a name may begin with "_" or hold "$", which matplotlib reads as markup
        handle.set_label(_plain(handle.get_label()))
    figure.legend(handles=handles, loc="outside upper left", ncols=min(4, len(handles)), frameon=False)
    figure.supxlabel("step; lines: training, markers: held out, bands and bars: 95% interval over seeds", fontsize=9)
    figure.savefig(path, format="png", dpi=130)


def _plain(text: str) -> str:
    return "\u200b" + text.replace("$", r"\$")


def _draw(axes: Axes, comparison: Comparison, metric: Metric) -> None:
    for index, arm in enumerate(comparison.arms):
        style = arm_style(index)
        for phase, draw in ((TRAINING, _draw_line), (HELD_OUT, _draw_markers)):
            if (curve := comparison.curve(metric, phase, arm)) is not None:
                draw(axes, curve, style)
    axes.set_title(_plain(metric.label.removeprefix("… ")), loc="left", fontsize=10, fontweight="bold")
    axes.set_ylabel(metric.unit, fontsize=8)
    axes.tick_params(labelsize=8)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_line(axes: Axes, curve: Curve, style: ArmStyle) -> None:
    means = [point.mean for point in curve.estimates]
    axes.plot(curve.steps, means, color=style.light, dashes=style.dashes or (None, None), linewidth=1.4)
    if any(point.half_width is not None for point in curve.estimates):
        lows, highs = zip(*((p.mean - (p.half_width or 0), p.mean + (p.half_width or 0)) for p in curve.estimates), strict=True)
        axes.fill_between(curve.steps, lows, highs, color=style.light, alpha=0.15, linewidth=0)


def _draw_markers(axes: Axes, curve: Curve, style: ArmStyle) -> None:
    axes.errorbar(
        curve.steps,
        [point.mean for point in curve.estimates],
        yerr=[point.half_width or 0.0 for point in curve.estimates],
        fmt=style.marker,
        color=style.light,
        markersize=5,
        markeredgecolor="white",
        elinewidth=1,
        zorder=3,
    )
