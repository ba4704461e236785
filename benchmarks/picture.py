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


def draw(results: list[dict[str, Any]], file: Path) -> None:
    """Time to score a micro-batch of long completions by k, as multiples of the shared method's, a panel per model."""
    rows = [row for row in results if row["rows"] > 1 and row["length"] >= 1024]
    rows = [row for row in rows if row["vocabulary"] == MODELS[row["model"]][2] and row["k"] > 0]
    panels = sorted({(row["length"], row["model"]) for row in rows})
    panels = [panel for panel in panels if len([row for row in rows if (row["length"], row["model"]) == panel]) > 1]
    figure, axes = plt.subplots(1, len(panels), figsize=(3.2 * len(panels), 3.4), sharey=True, layout="constrained")
    for axis, (length, model) in zip(axes, panels, strict=True):
        cells = sorted(
            (row for row in rows if (row["length"], row["model"]) == (length, model)), key=lambda row: row["k"]
        )
        for i, method in enumerate(LABELS):
            places = [place + (i - 1) * 0.27 for place in range(len(cells))]
            times = [row["seconds"][method] / row["seconds"]["shared"] for row in cells]
            axis.bar(places, times, 0.25, color=COLORS[method], label=LABELS[method])
            for place, multiple in zip(places, times, strict=True):
                axis.annotate(f"{multiple:.0f}×", (place, multiple), ha="center", va="bottom", fontsize=8)
        axis.set_xticks(range(len(cells)), [f"k = {row['k']}" for row in cells])
        axis.set_title(f"{length} completion tokens, {model} model", fontsize=9)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("time to score a micro-batch")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    figure.savefig(file, dpi=150)
    plt.close(figure)
