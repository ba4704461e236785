"""The geometry of the charts of the HTML page: paths and ticks of one panel in its own coordinates."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from .comparison import Comparison, Curve, show_estimate
from .metrics import HELD_OUT, TRAINING, Metric
from .style import ArmStyle, arm_style

WIDTH, HEIGHT = 340, 200
LEFT, RIGHT, TOP, BOTTOM = 46, 8, 8, 24
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
    """One arm in one panel: its training lines and interval as SVG path data, the points to hover over."""

    index: int
    style: ArmStyle
    line: str
    runs: list[str]
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
        if (curve := comparison.curve(metric, phase, arm)) is not None
    }
    if not curves:
        return None
    steps = [step for curve in curves.values() for step in curve.steps]
    x_values = nice_ticks(min(steps), max(steps), whole=True)
    ranges = [curve.range for curve in curves.values()]
    y_values = nice_ticks(min(low for low, _ in ranges), max(high for _, high in ranges))

    def x(step: float) -> float:
        share = (step - x_values[0]) / (x_values[-1] - x_values[0])
        return round(LEFT + share * (WIDTH - LEFT - RIGHT), 1)

    def y(value: float) -> float:
        share = (value - y_values[0]) / (y_values[-1] - y_values[0])
        # Intervals may go far beyond the panel, where they are cut off.
        return round(HEIGHT - BOTTOM - min(max(share, -1), 2) * (HEIGHT - TOP - BOTTOM), 1)

    def markers(curve: Curve | None, arm: str, phase: str) -> list[Marker]:
        if curve is None:
            return []
        return [
            Marker(
                x(step),
                y(point.mean),
                None if half_width is None else (y(point.mean - half_width), y(point.mean + half_width)),
                f"{arm}, {phase}, step {step}: {show_estimate(point, metric.decimals)}",
            )
            for step, point, half_width in zip(curve.steps, curve.estimates, curve.intervals, strict=True)
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
                runs=_run_lines(training, x, y),
                band=_band(hover),
                hover=hover[:: math.ceil(len(hover) / _MAX_HOVER_POINTS) or 1],
                held_out=markers(held_out, arm.name, HELD_OUT),
            )
        )
    decimals = max(0, -math.floor(math.log10(y_values[1] - y_values[0]) + 1e-9))
    return Panel(
        metric=metric,
        x_ticks=[Tick(x(value), f"{value:g}") for value in x_values],
        y_ticks=[Tick(y(value), f"{value:.{decimals}f}") for value in y_values],
        arms=arms,
    )


def nice_ticks(low: float, high: float, whole: bool = False) -> list[float]:
    """Two ticks or more, about five, from `low` or below to `high` or above: multiples of 1, 2 or 5 times a power of
    ten; `whole`: of 1 at least."""
    if high == low:
        low, high = low - 0.5 * (abs(low) or 1), high + 0.5 * (abs(high) or 1)
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    size = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    size = max(size, 1.0) if whole else size
    first, last = math.floor(low / size + 1e-9), math.ceil(high / size - 1e-9)
    return [index * size for index in range(first, last + 1)]


def _run_lines(curve: Curve | None, x: Callable[[float], float], y: Callable[[float], float]) -> list[str]:
    """A line for each run of several."""
    if curve is None or len(curve.runs) == 1:
        return []
    return [_path((x(step), y(value)) for step, value in zip(curve.steps, run, strict=True)) for run in curve.runs]


def _path(points: Iterable[tuple[float, float]]) -> str:
    corners = "L".join(f"{x:g} {y:g}" for x, y in points)
    return corners and f"M{corners}"


def _band(markers: list[Marker]) -> str:
    edges = [(marker.x, marker.bar) for marker in markers if marker.bar is not None]
    if not edges:
        return ""
    return _path([*((x, high) for x, (_, high) in edges), *((x, low) for x, (low, _) in reversed(edges))]) + "Z"
