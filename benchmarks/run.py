"""
How much RePro costs, measured: scoring by each method, training steps, memory, and segment search, side by side.

    python benchmarks/run.py                  # all parts, about an hour on one CPU core
    python benchmarks/run.py --parts scoring step --repeats 5
    python benchmarks/run.py --check benchmarks/results/cpu.json   # and report which ratios have changed

Results go to benchmarks/results/<device>.json; docs/speed.md shows those of a CPU. Compare
ratios within one run; seconds depend on the machine.
"""

import argparse
import json
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("KINETO_LOG_LEVEL", "99")

import torch
from check import moved_ratios
from machine import DEVICE, describe
from memory import LENGTHS, measure_memory
from picture import draw
from scoring import CASES, LONG_CASES, measure_growth, measure_scoring, measure_search
from segments import measure_segments
from startup import measure_startup
from step import measure_steps

RESULTS = Path(__file__).parent / "results"
PICTURE = Path(__file__).parents[1] / "docs" / "images" / "scoring.png"
PARTS = ("startup", "segments", "memory", "growth", "search", "step", "scoring", "long scoring")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--repeats", type=int, default=3, help="counted runs of each; medians are reported")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--output", type=Path, default=RESULTS / f"{DEVICE.type}.json")
    parser.add_argument("--check", type=Path, help="earlier results whose ratios are compared with this run's")
    parser.add_argument("--tolerance", type=float, default=0.25, help="by which a ratio may differ, as a share of it")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    earlier = json.loads(arguments.check.read_text()) if arguments.check else None

    results: dict[str, Any] = json.loads(arguments.output.read_text()) if arguments.output.exists() else {}
    for part in arguments.parts:
        print(f"\n{part}", flush=True)
        # A part carries its own date and machine, because parts can be run one at a time.
        results[part] = {**describe(), "repeats": arguments.repeats, "rows": _measure(part, arguments)}
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(json.dumps(results, indent=1) + "\n")
    rows = [row for part in ("scoring", "long scoring") for row in results.get(part, {"rows": []})["rows"]]
    if rows:
        committed = arguments.output == RESULTS / "cpu.json"
        draw(rows, PICTURE if committed else arguments.output.with_suffix(".png"))
    print(f"\nResults: {arguments.output}")
    if earlier is None:
        return 0
    lines = moved_ratios(earlier, {part: results[part] for part in arguments.parts}, arguments.tolerance)
    print("\n".join(lines) or f"No ratio moved by more than {arguments.tolerance:.0%}.")
    return 1 if lines else 0


def _measure(part: str, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    if part == "startup":
        return measure_startup(arguments.repeats)
    if part == "segments":
        return measure_segments(arguments.repeats)
    if part == "memory":
        return measure_memory(LENGTHS)
    if part == "growth":
        return measure_growth(arguments.repeats)
    if part == "search":
        return measure_search(arguments.repeats)
    if part == "step":
        return measure_steps("medium", 1024, (10, 30), arguments.repeats)
    return measure_scoring(CASES if part == "scoring" else LONG_CASES, arguments.repeats)


if __name__ == "__main__":
    raise SystemExit(main())
