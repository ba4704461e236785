"""Is the starting policy what the study needs? Whether J knows right from wrong where the thought is closed, how it
grows as the answer is settled, and whether overthinking is about neutral for accuracy.
"""

import functools
from statistics import fmean, median
from typing import Any

import torch
from torch import nn

from repro_trl.method.answer_forms import AnswerForm

from .arms import ALL_STARTS, ARMS
from .auto import describe, search_in
from .measure import Sample, asked_by, auc, credit, draw, objective, segment_auc
from .tasks import TASKS

FORMS = {"repro": "repro", "recipe": "recipe", "auto": "recipe auto"}
"""Names of the forms in which J is asked for, and an arm that asks so."""
SIGNALS = ("repro", "prefix auto", "recipe", "recipe auto", "recipe J differences", "vps", "vsrm")
BATCH_PROBLEMS = 8
"""Of a generation batch in training."""
NUM_PROBLEMS, NUM_GENERATIONS = 48, 8
NEUTRAL = frozenset({"recheck", "filler", "restart"})
"""Labels of segments that leave the answer as it is."""


def measure_health(model: nn.Module, tokenizer: Any, task_name: str, seed: int) -> dict[str, Any]:
    """Figures of the policy given, on held-out problems.

    Returns: "auto": the form that "auto" finds in one generation batch of training problems. By arm, "auc": AUC of r.
    By form, "objective auc": J at the last boundary, right against wrong texts; "objective by steps": mean J in right
    completions after so many right steps. "labels": share of the segments with each label. "beyond k": share of
    completions with more segment starts than the paper's form keeps. "longer gain": accuracy of the completions with
    more segments than the median less that of the others; of those that close the thought.
    """
    task = TASKS[task_name]
    model.eval()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        sample = draw(model, tokenizer, task, 400_000 + seed, NUM_PROBLEMS, NUM_GENERATIONS)
        batch = draw(model, tokenizer, task, seed, BATCH_PROBLEMS, NUM_GENERATIONS, held_out=False)
    search = search_in(batch, model, tokenizer)
    labels = [segment.label for segment in sample.segments]
    top_k = ARMS["repro"].settings_for(task_name)["repro_top_k"]
    found: dict[str, Any] = {
        "auto": describe(search),
        "auc": {},
        "objective auc": {},
        "objective by steps": {},
        "labels": {label: round(labels.count(label) / len(labels), 4) for label in sorted(task.labels)},
        "beyond k": round(fmean(len(starts) > top_k for starts in sample.starts), 4),
        "longer gain": _longer_gain(sample),
    }

    @functools.cache
    def scored(form: AnswerForm, top_k: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return objective(model, tokenizer, sample, form, top_k)

    def asked(arm: str) -> tuple[AnswerForm, int]:
        form, top_k = asked_by(arm, task_name)
        return (search.chosen if ARMS[arm].is_auto and search.chosen else form), top_k

    for form, arm in FORMS.items():
        _, mask, values = scored(asked(arm)[0], ALL_STARTS)
        last = values.gather(1, mask.sum(dim=1, keepdim=True) - 1).squeeze(1)
        is_right = sample.correct.bool()
        found["objective auc"][form] = round(auc(last[is_right].tolist(), last[~is_right].tolist()), 4)
        found["objective by steps"][form] = _by_steps(sample, values)
    for arm in SIGNALS:
        rewards = credit(arm, scored(*asked(arm)), sample).rewards
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
