"""The picture of the scoring benchmark that the README shows."""

from pathlib import Path
from typing import Any

import matplotlib
from machine import MODELS

matplotlib.use("Agg")
import matplotlib.pyplot as plt

# Colours that are told apart with any colour vision.
COLORS = {"shared": "#0072B2", "replay": "#E69F00", "released": "#D55E00"}
LABELS = {
    "shared": "repro_trl (shared prefix)",
    "replay": "replay, one forward a boundary",
    "released": "the released way",
}


def draw(scoring: dict[str, Any], file: Path) -> None:
    """Seconds to score a micro-batch by k, one panel per model and completion length, logarithmic."""
    compared = [row for row in scoring["rows"] if "released" in row["seconds"]]
    rows = [row for row in compared if row["vocabulary"] == MODELS[row["model"]][2]]
    panels = sorted({(row["model"], row["length"]) for row in rows}, key=lambda panel: (panel[1], panel[0]))
    panels = [panel for panel in panels if len([row for row in rows if (row["model"], row["length"]) == panel]) > 1]
    figure, axes = plt.subplots(1, len(panels), figsize=(3.4 * len(panels), 3.6), sharey=False, layout="constrained")
    for axis, panel in zip(axes, panels, strict=True):
        cells = sorted((row for row in rows if (row["model"], row["length"]) == panel), key=lambda row: row["k"])
        for i, method in enumerate(LABELS):
            places = [place + (i - 1) * 0.27 for place in range(len(cells))]
            heights = [row["seconds"][method] for row in cells]
            axis.bar(places, heights, 0.25, color=COLORS[method], label=LABELS[method])
            for place, height, row in zip(places, heights, cells, strict=True):
                times = height / row["seconds"]["shared"]
                text = f"{height:.2g} s" if method == "shared" else f"{times:.0f}×"
                axis.annotate(text, (place, height), ha="center", va="bottom", fontsize=7)
        axis.set_yscale("log")
        axis.set_ylim(top=axis.get_ylim()[1] * 1.6)
        axis.set_xticks(range(len(cells)), [f"k = {row['k']}" for row in cells])
        axis.set_title(f"{panel[1]} completion tokens, {panel[0]} model", fontsize=9)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("seconds a micro-batch")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    figure.savefig(file, dpi=150)
    plt.close(figure)
