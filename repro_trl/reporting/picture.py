"""A comparison as a PNG: one panel for each quantity. Needs matplotlib (the extra `plots`)."""

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
_LEGEND = (
    "step; lines: training (thin: single runs), markers: held out, bands and bars: 95% interval over three seeds or "
    "more, cut at the panel's edge"
)


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
    handles = [_handle(arm.name, arm_style(index)) for index, arm in enumerate(comparison.arms)]
    figure.legend(handles=handles, loc="outside upper left", ncols=min(4, len(handles)), frameon=False)
    figure.supxlabel(_LEGEND, fontsize=9)
    figure.savefig(path, format="png", dpi=130)


def _handle(name: str, style: ArmStyle) -> Line2D:
    dashes = style.dashes or (None, None)
    return Line2D([], [], color=style.light, dashes=dashes, marker=style.marker, label=_plain(name))


def _plain(text: str) -> str:
    # matplotlib leaves labels out that begin with "_", and reads what stands between "$" as a formula.
    return "\u200b" + text.replace("$", r"\$")


def _draw(axes: Axes, comparison: Comparison, metric: Metric) -> None:
    curves = []
    for index, arm in enumerate(comparison.arms):
        for phase, draw in ((TRAINING, _draw_line), (HELD_OUT, _draw_markers)):
            if (curve := comparison.curve(metric, phase, arm)) is not None:
                draw(axes, curve, arm_style(index))
                curves.append(curve)
    axes.set_title(_plain(metric.label), loc="left", fontsize=10, fontweight="bold")
    axes.set_ylabel(metric.unit, fontsize=8)
    axes.tick_params(labelsize=8)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    if curves:
        ranges = [curve.range for curve in curves]
        low, high = min(low for low, _ in ranges), max(high for _, high in ranges)
        margin = 0.06 * (high - low) or 0.5 * (abs(high) or 1)
        axes.set_ylim(low - margin, high + margin)


def _draw_line(axes: Axes, curve: Curve, style: ArmStyle) -> None:
    means = [point.mean for point in curve.estimates]
    single = "." if len(means) == 1 else None  # a line through one point does not show
    axes.plot(curve.steps, means, color=style.light, dashes=style.dashes or (None, None), linewidth=1.4, marker=single)
    for run in curve.runs if len(curve.runs) > 1 else []:
        axes.plot(curve.steps, run, color=style.light, linewidth=0.7, alpha=0.4)
    half_widths = [half_width or 0.0 for half_width in curve.intervals]
    lows = [mean - half_width for mean, half_width in zip(means, half_widths, strict=True)]
    highs = [mean + half_width for mean, half_width in zip(means, half_widths, strict=True)]
    axes.fill_between(curve.steps, lows, highs, color=style.light, alpha=0.15, linewidth=0)


def _draw_markers(axes: Axes, curve: Curve, style: ArmStyle) -> None:
    axes.errorbar(
        curve.steps,
        [point.mean for point in curve.estimates],
        yerr=[half_width or 0.0 for half_width in curve.intervals],
        fmt=style.marker,
        color=style.light,
        markersize=5,
        markeredgecolor="white",
        elinewidth=1,
        zorder=3,
    )
