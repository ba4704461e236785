"""The geometry of the charts of the HTML page: paths and ticks of one panel in its own coordinates."""

import math
from dataclasses import dataclass

from .comparison import Comparison, Curve, show_estimate
from .metrics import HELD_OUT, TRAINING, Metric
from .style import ArmStyle, arm_style

WIDTH, HEIGHT = 340, 200
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 8, 8, 24
_MAX_HOVER_POINTS = 120


@dataclass(frozen=True)
class Tick:
    """A tick: its place along the axis in panel coordinates, and its label."""

    place: float
    label: str


@dataclass(frozen=True)
class Marker:
    """A point that shows its value on hover; `bar` is the upper and lower end of its interval."""

    x: float
    y: float
    bar: tuple[float, float] | None
    title: str


@dataclass(frozen=True)
class ArmCurves:
    """One arm in one panel: the training line and its interval as SVG path data, the points to hover over."""

    index: int
    style: ArmStyle
    line: str
    band: str
    hover: list[Marker]
    held_out: list[Marker]


@dataclass(frozen=True)
class Panel:
    """One quantity over steps."""

    metric: Metric
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    arms: list[ArmCurves]


def make_panels(comparison: Comparison) -> list[Panel]:
    """A panel for each quantity that any run has."""
    return [panel for metric in comparison.metrics if (panel := _panel(comparison, metric)) is not None]


def _panel(comparison: Comparison, metric: Metric) -> Panel | None:
    curves = {
        (index, phase): curve
        for index, arm in enumerate(comparison.arms)
        for phase in (TRAINING, HELD_OUT)
        if (curve := comparison.curve(metric, phase, arm)) is not None and curve.steps
    }
    if not curves:
        return None
    steps = [step for curve in curves.values() for step in curve.steps]
    bounds = [bound for curve in curves.values() for point in curve.estimates for bound in _bounds(point)]
    x_values, y_values = nice_ticks(min(steps), max(steps), 5, whole=True), nice_ticks(min(bounds), max(bounds), 5)
    x_range = min(steps[0:] + x_values[:1]), max(steps + x_values[-1:])
    y_range = min(*bounds, y_values[0]), max(*bounds, y_values[-1])

    def x(step: float) -> float:
        share = (step - x_range[0]) / ((x_range[1] - x_range[0]) or 1)
        return round(_LEFT + share * (WIDTH - _LEFT - _RIGHT), 1)

    def y(value: float) -> float:
        share = (value - y_range[0]) / ((y_range[1] - y_range[0]) or 1)
        return round(HEIGHT - _BOTTOM - share * (HEIGHT - _TOP - _BOTTOM), 1)

    def markers(curve: Curve | None, arm: str, phase: str) -> list[Marker]:
        if curve is None:
            return []
        return [
            Marker(
                x(step),
                y(point.mean),
                None if point.half_width is None else tuple(map(y, _bounds(point))),
                f"{arm}, {phase}, step {step}: {show_estimate(point, metric.decimals)}",
            )
            for step, point in zip(curve.steps, curve.estimates, strict=True)
        ]

    arms = []
    for index, arm in enumerate(comparison.arms):
        training, held_out = (curves.get((index, phase)) for phase in (TRAINING, HELD_OUT))
        hover = markers(training, arm.name, TRAINING)
        arms.append(
            ArmCurves(
                index=index,
                style=arm_style(index),
                line=_path((m.x, m.y) for m in hover),
                band=_band(hover),
                hover=hover[:: math.ceil(len(hover) / _MAX_HOVER_POINTS) or 1],
                held_out=markers(held_out, arm.name, HELD_OUT),
            )
        )
    step_size = y_values[1] - y_values[0] if len(y_values) > 1 else 1
    decimals = max(0, -math.floor(math.log10(step_size) + 1e-9))
    return Panel(
        metric=metric,
        x_ticks=[Tick(x(value), f"{value:g}") for value in x_values],
        y_ticks=[Tick(y(value), f"{value:.{decimals}f}") for value in y_values],
        arms=arms,
    )


def nice_ticks(low: float, high: float, count: int, whole: bool = False) -> list[float]:
    """About `count` multiples of 1, 2 or 5 times a power of ten from below `low` to above `high`; `whole`: of 1."""
    if high == low:
        low, high = low - 0.5 * (abs(low) or 1), high + 0.5 * (abs(high) or 1)
        if whole:
            return [round((low + high) / 2)]
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    size = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    size = max(size, 1) if whole else size
    first, last = math.floor(low / size + 1e-9), math.ceil(high / size - 1e-9)
    return [index * size for index in range(first, last + 1)]


def _bounds(point) -> tuple[float, float]:
    half_width = point.half_width or 0.0
    return point.mean - half_width, point.mean + half_width


def _path(points) -> str:
    return "M" + "L".join(f"{x:g} {y:g}" for x, y in points) if (points := list(points)) else ""


def _band(markers: list[Marker]) -> str:
    edges = [(marker.x, marker.bar) for marker in markers if marker.bar is not None]
    if not edges:
        return ""
    return _path([*((x, high) for x, (_, high) in edges), *((x, low) for x, (low, _) in reversed(edges))]) + "Z"
