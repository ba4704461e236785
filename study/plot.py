"""The figure of `docs/results.md`."""

from pathlib import Path
from typing import Any

from .figures import MEASURES, TASKS, Results, start_aucs
from .intervals import interval

PLOTTED = ("accuracy", "thinking_tokens", "backtracks", "objective_gain")
PLOTTED_ARMS = {
    "plain": ("GRPO", "#555555"),
    "repro": ("+ RePro", "#1f77b4"),
    "recipe": ("+ recipe", "#d62728"),
    "recipe constants": ("+ constants, no J", "#2ca02c"),
}


def plot(results: Results, file: Path) -> None:
    """GRPO's arms along training, mean and 95% interval over seeds, and the AUC of r at the start."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "replicate"
    from matplotlib import pyplot

    tasks = [task for task in TASKS if start_aucs(results, task, "recipe", "useful")]
    size = (3.4 * (len(PLOTTED) + 1), 2.8 * len(tasks))
    figure, axes = pyplot.subplots(len(tasks), len(PLOTTED) + 1, figsize=size, layout="constrained", squeeze=False)
    for row, task in enumerate(tasks):
        for column, measure in enumerate(PLOTTED):
            plot_along_training(results, task, measure, axes[row][column])
        plot_aucs(results, task, axes[row][-1])
    axes[0][0].legend(fontsize=8, frameon=False)
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=8)
    figure.savefig(file, metadata={"Date": None})
    pyplot.close(figure)


def plot_along_training(results: Results, task: str, measure: str, axis: Any) -> None:
    """Points with intervals: held-out problems. Thin lines: the rollouts of each step."""
    start = list(results.values(task, "start", "start", measure).values())
    for shift, (arm, (name, colour)) in enumerate(PLOTTED_ARMS.items()):
        found = [r for (*cell, _), r in results.cells.items() if tuple(cell) == (task, "grpo", arm)]
        if not found:
            continue
        if measure in ("accuracy", "thinking_tokens", "backtracks"):
            curves = [record["curve"] for record in found]
            means = [sum(curve[step][measure] for curve in curves) / len(curves) for step in range(len(curves[0]))]
            axis.plot(range(1, len(means) + 1), means, color=colour, linewidth=0.8, alpha=0.5)
        by_step = {0: start}
        for step in found[0]["evaluations"]:
            by_step[int(step)] = [record["evaluations"][step][measure] for record in found]
        points = [interval(values) for values in by_step.values()]
        widths = [point.half_width if point.n > 1 else 0 for point in points]
        places = [step + 0.2 * shift for step in by_step]  # so that intervals do not cover each other
        means = [point.mean for point in points]
        style = {"markersize": 3, "linewidth": 1.4, "capsize": 2, "elinewidth": 0.8}
        axis.set_xticks(list(by_step))
        axis.errorbar(places, means, widths, color=colour, marker="o", label=name, **style)
    axis.set_title(f"{task}: {MEASURES[measure]}", fontsize=10)
    axis.set_xlabel("step", fontsize=9)


def plot_aucs(results: Results, task: str, axis: Any) -> None:
    """Bars: how well r tells useful segments from others at the start."""
    kinds = {"useful": "useful against others", "inner": "the same, inner", "step": "right against wrong"}
    colours = {"repro": "#1f77b4", "recipe": "#d62728"}
    for offset, (form, colour) in zip((-0.2, 0.2), colours.items(), strict=True):
        found = [interval(start_aucs(results, task, form, name)) for name in kinds]
        places = [index + offset for index in range(len(kinds))]
        widths = [value.half_width if value.n > 1 else 0 for value in found]
        label = {"repro": "paper's form", "recipe": "recipe"}[form]
        axis.barh(places, [value.mean for value in found], xerr=widths, color=colour, height=0.36, label=label)
    axis.set_yticks(range(len(kinds)), kinds.values())
    axis.axvline(0.5, color="black", linewidth=0.8, linestyle=":")
    axis.set_xlim(0.4, 1)
    axis.invert_yaxis()
    axis.legend(fontsize=8, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.1), ncol=2)
    axis.set_title(f"{task}: AUC of r at the start", fontsize=10)
