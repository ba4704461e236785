"""Runs that differ in nothing but the seed form an arm; arms are compared by their means and 95% intervals."""

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from .runs import Run

# Settings that do not change what is learned: where and how a run is recorded, and the seeds that make repetitions.
NOT_OF_AN_ARM = frozenset({
    "seed", "data_seed", "output_dir", "run_name", "project", "disable_tqdm", "report_to", "push_to_hub", "debug",
    "do_train", "do_eval", "do_predict", "resume_from_checkpoint", "num_completions_to_print", "local_rank",
    "ddp_timeout", "skip_memory_metrics", "ignore_data_skip", "model.transformers_version", "eval_on_start",
})  # fmt: skip
NOT_OF_AN_ARM_PREFIXES = ("log_", "logging_", "save_", "hub_", "trackio_", "eval_", "dataloader_", "per_device_eval_")
MAX_SETTINGS_IN_A_NAME = 3


@dataclass
class Arm:
    """Runs with the same settings and different seeds, under one name."""

    name: str
    runs: list[Run]


def arm_settings(run: Run) -> dict[str, Any]:
    """The settings of a run that make its arm."""
    return {
        name: value
        for name, value in run.settings.items()
        if name not in NOT_OF_AN_ARM and not name.startswith(NOT_OF_AN_ARM_PREFIXES)
    }


def group_runs(runs: Sequence[Run]) -> list[Arm]:
    """
    Group runs into arms by their saved settings, in order of first appearance.

    A run without saved settings is an arm of its own. So is each of several runs with the same settings and seed,
    which no setting tells apart. Arms are named by the settings that differ between them, or by the folders if there
    are none or too many.
    """
    groups: dict[str, list[Run]] = {}
    for run in runs:
        key = json.dumps(arm_settings(run), sort_keys=True) if run.settings else f"path {run.path}"
        groups.setdefault(key, []).append(run)
    arms: list[list[Run]] = []
    for group in groups.values():
        seeds = [run.seed for run in group]
        if len(set(seeds)) < len(seeds):
            for run in group:
                run.notes.append(
                    "has the same settings and seed as another run, so it is an arm of its own (see --arm)"
                )
            arms += [[run] for run in group]
        else:
            arms.append(group)
    for earlier, later in combinations([group[0] for group in arms], 2):
        one, other = arm_settings(earlier), arm_settings(later)
        unshared = sorted(one.keys() ^ other.keys())
        if unshared and all(one[name] == other[name] for name in one.keys() & other.keys()):
            later.notes.append(
                f"differs from {earlier.name} only in settings that one of the two lacks, as after an update: "
                f"{', '.join(unshared)} (--arm puts runs together)"
            )
    return [Arm(name, group) for name, group in zip(_names(arms), arms, strict=True)]


def _names(arms: Sequence[Sequence[Run]]) -> list[str]:
    settings = [arm_settings(group[0]) for group in arms]
    # What only some have, as a plain GRPOConfig lacks RePro's settings, is told by the class of the arguments.
    shared = [name for name in settings[0] if all(name in entry for entry in settings)]
    varying = [name for name in shared if any(entry[name] != settings[0][name] for entry in settings)]
    names = [", ".join(f"{name}={_show(entry[name])}" for name in varying) for entry in settings]
    if 0 < len(varying) <= MAX_SETTINGS_IN_A_NAME and len(set(names)) == len(names):
        return names
    names = [group[0].name if len(group) == 1 else f"{group[0].name} and seeds" for group in arms]
    return names if len(set(names)) == len(names) else [str(group[0].path) for group in arms]


def _show(value: Any) -> str:
    return value if isinstance(value, str) and value.isprintable() else repr(value)


@dataclass(frozen=True)
class Estimate:
    """A mean over `count` runs or pairs, with half the width of its 95% interval by Student's t; `None` for one."""

    mean: float
    half_width: float | None
    count: int


def estimate(values: Sequence[float]) -> Estimate:
    """Mean and 95% interval of one value or more."""
    count = len(values)
    mean = math.fsum(values) / count
    if count == 1:
        return Estimate(mean, None, 1)
    return Estimate(mean, t_quantile(count - 1) * statistics.stdev(values) / math.sqrt(count), count)


@dataclass(frozen=True)
class Difference:
    """A difference between two arms, and the number of pairs it was taken over: 0 where seeds were not paired."""

    estimate: Estimate
    num_pairs: int


def difference(arm: Sequence[tuple[int | None, float]], base: Sequence[tuple[int | None, float]]) -> Difference:
    """
    `arm` − `base`, both (seed, value) of each of their runs.

    With two common seeds or more: over these pairs, and no other runs. Otherwise between the means of all runs, with
    Welch's interval (degrees of freedom rounded down) where both arms have two runs or more.
    """
    base_by_seed = {seed: value for seed, value in base if seed is not None}
    pairs = [value - base_by_seed[seed] for seed, value in arm if seed in base_by_seed]
    seeds_are_unique = all(len({seed for seed, _ in runs}) == len(runs) for runs in (arm, base))
    if len(pairs) >= 2 and seeds_are_unique:
        return Difference(estimate(pairs), len(pairs))
    values, base_values = ([value for _, value in runs] for runs in (arm, base))
    mean = estimate(values).mean - estimate(base_values).mean
    if min(len(values), len(base_values)) < 2:
        return Difference(Estimate(mean, None, len(values)), 0)
    variances = [statistics.variance(runs) / len(runs) for runs in (values, base_values)]
    total = sum(variances)
    if total == 0:
        return Difference(Estimate(mean, 0.0, len(values)), 0)
    degrees = total**2 / sum(v**2 / (len(runs) - 1) for v, runs in zip(variances, (values, base_values), strict=True))
    half_width = t_quantile(math.floor(degrees)) * math.sqrt(total)
    return Difference(Estimate(mean, half_width, len(values)), 0)


def t_quantile(degrees: int, probability: float = 0.975) -> float:
    """Quantile of Student's t with a whole number of degrees of freedom, for a probability above 1/2."""
    low, high = 0.0, 1.0
    while _t_cdf(high, degrees) < probability:
        high *= 2
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if _t_cdf(middle, degrees) < probability else (low, middle)
    return high


def _t_cdf(t: float, degrees: int) -> float:
    """Abramowitz and Stegun 26.7.3 and 26.7.4: a finite series in cos² of the angle atan(t/√ν)."""
    angle = math.atan(t / math.sqrt(degrees))
    cos_squared = math.cos(angle) ** 2
    odd = degrees % 2
    term = math.sin(angle) * (math.cos(angle) if odd else 1.0)
    total = term if degrees > 1 else 0.0
    for k in range(3 if odd else 2, degrees - 1, 2):
        term *= cos_squared * (k - 1) / k
        total += term
    return 0.5 + ((angle + total) / math.pi if odd else total / 2)
