"""The curves of a comparison, drawn by matplotlib: as one PNG, and panel by panel as SVG that lies in the page."""

import io
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from .comparison import Comparison, Curve, show_estimate
from .metrics import HELD_OUT, TRAINING, Metric
from .style import arm_style

PANELS_NOTE = (
    "Lines: training; thin lines are single runs. Markers: held out. Bands and bars: 95% interval over three "
    "seeds or more, cut off at the edge of the panel."
)

_COLUMNS = 3
_PANEL_SIZE = (4.2, 2.7)  # inches
_SOFT, _RULE, _GROUND = "#5a6068", "#d5d9de", "#ffffff"
_MAX_HOVER_POINTS = 120
_SVG, _XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"

ElementTree.register_namespace("", _SVG)
ElementTree.register_namespace("xlink", _XLINK)


def save_picture(comparison: Comparison, path: str | Path) -> None:
    """Write all panels as a PNG."""
    shown = _shown_metrics(comparison)
    num_rows = max(1, math.ceil(len(shown) / _COLUMNS))
    figure = Figure(figsize=(_COLUMNS * _PANEL_SIZE[0], num_rows * _PANEL_SIZE[1] + 0.7), layout="constrained")
    panels = list(figure.subplots(num_rows, _COLUMNS, squeeze=False).flat)
    for axes, metric in zip(panels, shown, strict=False):
        _draw_panel(axes, comparison, metric)
        axes.set_title(_plain(metric.label), loc="left", fontsize=10, fontweight="bold")
        axes.set_ylabel(metric.unit, fontsize=8)
    for axes in panels[len(shown) :]:
        axes.axis("off")
    handles = [_swatch(index, label=_plain(arm.name)) for index, arm in enumerate(comparison.arms)]
    figure.legend(handles=handles, loc="outside upper left", ncols=min(4, len(handles)), frameon=False)
    figure.supxlabel(f"step. {PANELS_NOTE}", fontsize=9)
    figure.savefig(path, format="png", dpi=130)


def panel_svgs(comparison: Comparison) -> list[tuple[Metric, str]]:
    """
    Each panel as SVG to be put into a page, with its quantity.

    Points say their values when hovered over. Colours are the page's variables `--soft`, `--rule`, `--panel` and
    `--arm-N`, so that the page's dark colours hold for them, too. Nothing is loaded, and nothing can act.
    """
    panels = []
    for number, metric in enumerate(_shown_metrics(comparison)):
        figure = Figure(figsize=_PANEL_SIZE, layout="constrained")
        titles = _draw_panel(figure.subplots(), comparison, metric, with_titles=True)
        label = f"{metric.label} over steps; the numbers are in the tables below"
        panels.append((metric, _inline_svg(figure, f"panel-{number}", label, titles)))
    return panels


def swatch_svgs(count: int) -> list[str]:
    """Line and marker of each of so many arms, as SVG to be put into a page."""
    swatches = []
    for index in range(count):
        figure = Figure(figsize=(46 / 72, 14 / 72))
        axes = figure.add_axes((0, 0, 1, 1), xlim=(0, 2), ylim=(-1, 1))
        axes.axis("off")
        axes.add_line(_swatch(index, xdata=[0, 1, 2], ydata=[0, 0, 0], markevery=[1]))
        swatches.append(_inline_svg(figure, f"swatch-{index}", None, {}))
    return swatches


def _shown_metrics(comparison: Comparison) -> list[Metric]:
    """The quantities that have a curve."""
    return [
        metric
        for metric in comparison.metrics
        if any(comparison.curve(metric, p, arm) is not None for p in (TRAINING, HELD_OUT) for arm in comparison.arms)
    ]


def _plain(text: str) -> str:
    # matplotlib leaves labels out that begin with "_", and reads what stands between "$" as a formula.
    return "\u200b" + text.replace("$", r"\$")


def _swatch(index: int, xdata: Sequence[float] = (), ydata: Sequence[float] = (), **options: object) -> Line2D:
    style = arm_style(index)
    return Line2D(
        xdata,
        ydata,
        color=style.light,
        dashes=style.dashes or (None, None),
        marker=style.marker,
        markeredgecolor=_GROUND,
        **options,
    )


# ------------------------------------------------------------------------------------------------------------- drawing


def _draw_panel(axes: Axes, comparison: Comparison, metric: Metric, with_titles: bool = False) -> dict[str, list[str]]:
    """Draw all arms; by group id the titles of the points in that group of the SVG."""
    curves, titles = [], {}
    for index, arm in enumerate(comparison.arms):
        for phase, draw in ((TRAINING, _draw_line), (HELD_OUT, _draw_markers)):
            curve = comparison.curve(metric, phase, arm)
            if curve is None:
                continue
            curves.append(curve)
            draw(axes, curve, index)
            if with_titles:
                shown = range(0, len(curve.steps), math.ceil(len(curve.steps) / _MAX_HOVER_POINTS))
                group = f"titles-{index}-{phase}"
                titles[group] = [
                    f"{arm.name}, {phase}, step {curve.steps[i]}: {show_estimate(curve.estimates[i], metric.decimals)}"
                    for i in shown
                ]
                steps, means = [curve.steps[i] for i in shown], [curve.estimates[i].mean for i in shown]
                axes.scatter(steps, means, s=40, color=arm_style(index).light, gid=group, zorder=4)
    axes.tick_params(labelsize=8, color=_RULE, labelcolor=_SOFT)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10], integer=True))
    axes.yaxis.get_major_formatter().set_useOffset(False)
    axes.grid(color=_RULE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[:].set_color(_RULE)
    axes.spines[["top", "right"]].set_visible(False)
    low, high = min(curve.range[0] for curve in curves), max(curve.range[1] for curve in curves)
    margin = 0.06 * (high - low) or 0.5 * (abs(high) or 1)
    axes.set_ylim(low - margin, high + margin)
    return titles


def _draw_line(axes: Axes, curve: Curve, index: int) -> None:
    style, means = arm_style(index), [point.mean for point in curve.estimates]
    dashes = style.dashes or (None, None)
    single = "." if len(means) == 1 else None  # a line through one point does not show
    axes.plot(curve.steps, means, color=style.light, dashes=dashes, linewidth=1.4, marker=single)
    for run in curve.runs if len(curve.runs) > 1 else []:
        axes.plot(curve.steps, run, color=style.light, linewidth=0.7, alpha=0.4)
    if any(curve.intervals):
        half_widths = np.array([half_width or 0.0 for half_width in curve.intervals])
        band = np.array(means) - half_widths, np.array(means) + half_widths
        axes.fill_between(curve.steps, *band, color=style.light, alpha=0.15, linewidth=0)


def _draw_markers(axes: Axes, curve: Curve, index: int) -> None:
    style = arm_style(index)
    axes.errorbar(
        curve.steps,
        [point.mean for point in curve.estimates],
        yerr=[half_width or 0.0 for half_width in curve.intervals] if any(curve.intervals) else None,
        fmt=style.marker,
        color=style.light,
        markersize=5,
        markeredgecolor=_GROUND,
        elinewidth=1,
        zorder=3,
    )


# ----------------------------------------------------------------------------------------------------------------- SVG


def _inline_svg(figure: Figure, name: str, label: str | None, titles: Mapping[str, list[str]]) -> str:
    file = io.BytesIO()
    # Ids are made from the salt: they must differ between the pictures of one page.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(file, format="svg", transparent=True)
    root = ElementTree.fromstring(file.getvalue())
    for parent in root.findall(f".//{{{_SVG}}}*[{{{_SVG}}}style]"):
        for child in parent.findall(f"{{{_SVG}}}style"):
            parent.remove(child)  # in a page it would hold for the whole page
    for child in root.findall(f"{{{_SVG}}}metadata"):
        root.remove(child)
    _add_titles(root, titles)
    _use_variables(root)
    _keep_ids_in_use(root)
    size = {key: root.attrib.pop(key) for key in ("width", "height")}
    root.attrib.pop("version", None)
    if label is None:
        root.attrib |= {"aria-hidden": "true", "class": "swatch-line", **size}
    else:
        root.attrib |= {"role": "img", "aria-label": label}
    text = ElementTree.tostring(root, encoding="unicode")
    return re.sub(r' xmlns(:xlink)?="[^"]*"', "", text, count=2)  # HTML knows them


def _add_titles(root: ElementTree.Element, titles: Mapping[str, list[str]]) -> None:
    """Points of these groups are there to be hovered over: seen only then."""
    for group in root.iter(f"{{{_SVG}}}g"):
        if group.get("id") in titles:
            points = group.findall(f".//{{{_SVG}}}use")
            for point, title in zip(points, titles[group.get("id")], strict=True):
                point.set("class", "hover")
                ElementTree.SubElement(point, f"{{{_SVG}}}title").text = title


def _use_variables(root: ElementTree.Element) -> None:
    arms = {arm_style(index).light.lower(): f"var(--arm-{index})" for index in reversed(range(6))}
    variables = {_SOFT: "var(--soft)", _RULE: "var(--rule)", _GROUND: "var(--panel)", **arms}
    for element in root.iter():
        style = element.get("style")
        if style is not None:
            style = re.sub(r"#[0-9a-f]{6}", lambda match: variables.get(match[0], match[0]), style)
            element.set("style", re.sub(r"font: [^;]*;?", "", style))  # the page's own


def _keep_ids_in_use(root: ElementTree.Element) -> None:
    used = {element.get(f"{{{_XLINK}}}href", "")[1:] for element in root.iter()}
    used |= {element.get("clip-path", "")[5:-1] for element in root.iter()}
    for element in root.iter():
        if element.get("id") not in used:
            element.attrib.pop("id", None)
