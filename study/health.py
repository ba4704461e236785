"""Is the starting policy what the study needs? Whether J knows right from wrong where the thought is closed, how it
grows as the answer is settled, and whether overthinking is about neutral for accuracy.
"""

from statistics import fmean, median
from typing import Any

import torch
from torch import nn

from .arms import ALL_STARTS, ARMS
from .measure import Sample, auc, credit, draw, objective, score_as, segment_auc
from .tasks import TASKS

FORMS = ("repro", "recipe")
SIGNALS = ("repro", "recipe", "recipe J differences", "vps", "vsrm")
NUM_PROBLEMS, NUM_GENERATIONS = 48, 8
NEUTRAL = frozenset({"recheck", "filler", "restart"})
"""Labels of segments that leave the answer as it is."""


def measure_health(model: nn.Module, tokenizer: Any, task_name: str, seed: int) -> dict[str, Any]:
    """Figures of the policy given, on held-out problems.

    Returns: by arm, "auc": AUC of r. By form, "objective auc": J at the last boundary, right against wrong texts;
    "objective by steps": mean J in right completions after so many right steps. "labels": share of the segments with
    each label. "beyond k": share of completions with more segment starts than the paper's form keeps. "longer gain":
    accuracy of the completions with more segments than the median less that of the others; of those that close the
    thought.
    """
    task = TASKS[task_name]
    model.eval()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        sample = draw(model, tokenizer, task, 400_000 + seed, NUM_PROBLEMS, NUM_GENERATIONS)
    labels = [segment.label for segment in sample.segments]
    top_k = ARMS["repro"].settings_for(task_name)["repro_top_k"]
    found: dict[str, Any] = {
        "auc": {},
        "objective auc": {},
        "objective by steps": {},
        "labels": {label: round(labels.count(label) / len(labels), 4) for label in sorted(task.labels)},
        "beyond k": round(fmean(len(starts) > top_k for starts in sample.starts), 4),
        "longer gain": _longer_gain(sample),
    }
    for form in FORMS:
        prefix = ARMS[form].settings_for(task_name).get("repro_answer_prefix", "")
        _, mask, values = objective(model, tokenizer, sample, prefix, ALL_STARTS)
        last = values.gather(1, mask.sum(dim=1, keepdim=True) - 1).squeeze(1)
        is_right = sample.correct.bool()
        found["objective auc"][form] = round(auc(last[is_right].tolist(), last[~is_right].tolist()), 4)
        found["objective by steps"][form] = _by_steps(sample, values)
    for arm in SIGNALS:
        rewards = credit(arm, score_as(arm, model, tokenizer, sample), sample).rewards
        kinds = segment_auc(rewards, sample)
        found["auc"][arm] = {kind: None if value is None else round(value, 4) for kind, value in kinds.items()}
    return found


def _longer_gain(sample: Sample) -> float:
    counts = [0] * len(sample.texts)
    for segment in sample.segments:
        counts[segment.row] += 1
    closed = [row for row, text in enumerate(sample.texts) if "</think>" in text]
    middle = median(counts[row] for row in closed)
    longer, others = (
        [sample.correct[row].item() for row in closed if (counts[row] > middle) == is_longer]
        for is_longer in (True, False)
    )
    return round(fmean(longer) - fmean(others), 4)


def _by_steps(sample: Sample, values: torch.Tensor) -> list[float]:
    by_steps: dict[int, list[float]] = {}
    place: dict[int, tuple[int, int]] = {}  # of each row: segments and right steps so far
    for segment in sample.segments:
        index, steps = place.get(segment.row, (0, 0))
        index, steps = index + 1, steps + (segment.label == sample.task.plain_step)
        place[segment.row] = index, steps
        if sample.correct[segment.row]:
            if index == 1:
                by_steps.setdefault(0, []).append(values[segment.row, 0].item())
            by_steps.setdefault(steps, []).append(values[segment.row, index].item())
    return [round(fmean(by_steps[steps]), 4) for steps in sorted(by_steps)]
