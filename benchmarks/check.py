"""Which ratios of a new run differ from those of an earlier one."""

from typing import Any


def moved_ratios(earlier: dict[str, Any], results: dict[str, Any], tolerance: float) -> list[str]:
    """
    One line for each ratio that both runs have and that moved by more than `tolerance`, as a share of the earlier one.

    Raises:
        ValueError: the runs have no ratio in common.
    """
    before, after = _ratios(earlier), _ratios(results)
    common = before.keys() & after.keys()
    if not common:
        raise ValueError("The two runs have no ratio in common: run the same parts.")
    return [
        f"{' | '.join(key)}: {before[key]:.3f} before, {after[key]:.3f} now ({after[key] / before[key] - 1:+.0%})"
        for key in sorted(common)
        if abs(after[key] / before[key] - 1) > tolerance
    ]


def _ratios(results: dict[str, Any]) -> dict[tuple[str, str, str], float]:
    return {
        (part, row["case"], name): value
        for part, content in results.items()
        for row in content["rows"]
        for name, value in row["ratios"].items()
    }
