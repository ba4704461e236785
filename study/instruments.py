"""Sharp instruments at the common start: what rewards and advantages know of segments, and where gradients point.

Training curves are blunt: they move when anything does. These two ask directly whether credit arrives:

- AUC of r, and of the total token advantage, for useful segments against all others, for every arm.
- Cosine of the gradient of one small batch, under an arm's total advantage, with the gradient of a large independent
  batch under the outcome advantage alone, which is where a policy gradient without noise would point. An arm whose
  credit is real is nearer to it than its shuffled control; labels of the segments give the ceiling. The same for the
  tokens of the thoughts alone, which are all that RePro touches; and what the segments of each label add to it.
"""

from typing import Any

import torch
from torch import Tensor, nn

from repro_trl.method.advantage import normalize_rewards, segment_credit
from repro_trl.method.answer_forms import AnswerForm

from .measure import Sample, asked_by, credit, draw, objective, segment_auc
from .signals import shuffle
from .tasks import TASKS

ALPHA = 0.3
"""The same weight for all arms: large enough to show."""
COMPARED = (
    *("repro", "shuffled", "constants", "prefix", "baseline magnitude", "center index", "k all"),
    *("credit segment, k 2", "credit segment, k all", "w 0", "w 0.5", "w 1", "scale none"),
    *("recipe", "recipe shuffled", "recipe to go", "recipe center index", "recipe J differences", "recipe discounted"),
    "recipe potential",
)
GRADIENTS = (
    *("repro", "shuffled", "prefix", "baseline magnitude", "center index", "credit segment, k all"),
    *("recipe", "recipe shuffled", "recipe to go", "recipe center index", "recipe J differences", "recipe discounted"),
    "recipe potential",
)
LARGE_PROBLEMS, SMALL_BATCHES, SMALL_PROBLEMS, NUM_GENERATIONS = 64, 6, 4, 8


def measure_start(model: nn.Module, tokenizer: Any, task_name: str, seed: int) -> dict[str, Any]:
    """AUCs and cosines of one seed, at the policy given. Draws from training problems, as training would."""
    task = TASKS[task_name]
    model.eval()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        large = draw(model, tokenizer, task, seed, LARGE_PROBLEMS, NUM_GENERATIONS, held_out=False)
        target = split_gradients(
            model, large, {"outcome": large.outcome_advantages.unsqueeze(1).expand(_shape(large))}
        )
        cosines: dict[str, list[float]] = {}
        thought_cosines: dict[str, list[float]] = {}
        led: dict[str, list[float]] = {}
        for index in range(SMALL_BATCHES):
            small = draw(model, tokenizer, task, 100_000 + 100 * seed + index, SMALL_PROBLEMS, NUM_GENERATIONS, False)
            found = split_gradients(model, small, total_advantages(model, tokenizer, small, GRADIENTS))
            answer = found.pop("answer")
            for name, thought in found.items():
                whole = _cosine(thought + answer, target["outcome"] + target["answer"])
                cosines.setdefault(name, []).append(whole)
                thought_cosines.setdefault(name, []).append(_cosine(thought, target["outcome"]))
            for label, share in leads(model, tokenizer, small, "recipe", target["outcome"]).items():
                led.setdefault(label, []).append(share)
        sample = draw(model, tokenizer, task, 200_000 + seed, 24, NUM_GENERATIONS, held_out=True)
        return {
            "cosines": cosines,
            "thought cosines": thought_cosines,
            "leads": led,
            "auc": all_aucs(model, tokenizer, sample),
        }


def _cosine(one: Tensor, other: Tensor) -> float:
    return round(torch.cosine_similarity(one, other, dim=0).item(), 5)


def _shape(sample: Sample) -> torch.Size:
    return sample.batch["completion_ids"].shape


def process_advantages(
    model: nn.Module, tokenizer: Any, sample: Sample, arms: tuple[str, ...]
) -> dict[str, tuple[Tensor | None, Tensor]]:
    """r per token (`None` where an arm has none of its own) and Ã, both (B, T), of each arm and of the labels."""
    scored: dict[tuple[AnswerForm, int], tuple[Tensor, Tensor, Tensor]] = {}
    found: dict[str, tuple[Tensor | None, Tensor]] = {}
    for arm in arms:
        key = asked_by(arm, sample.task.name)
        if key not in scored:
            scored[key] = objective(model, tokenizer, sample, *key)
        given = credit(arm, scored[key], sample)
        found[arm] = (given.rewards, given.advantages)
    rewards, mask, ends = _label_rewards(sample)
    normalized = normalize_rewards(rewards, mask, sample.groups)
    length = _shape(sample)[1]
    found["labels"] = (None, segment_credit(normalized, mask, ends, length))
    found["labels shuffled"] = (None, segment_credit(shuffle(normalized, mask), mask, ends, length))
    return found


def _label_rewards(sample: Sample) -> tuple[Tensor, Tensor, Tensor]:
    """Reward 1 for each useful segment and 0 for each other: rewards, mask and ends, (B, S)."""
    rows: list[list[tuple[float, int]]] = [[] for _ in sample.texts]
    for segment in sample.segments:
        rows[segment.row].append((float(segment.label in sample.task.useful), segment.end))
    width = max(map(len, rows))
    padded = torch.tensor([row + [(0.0, 0)] * (width - len(row)) for row in rows])
    mask = torch.arange(width) < torch.tensor([[len(row)] for row in rows])
    return padded[..., 0], mask, padded[..., 1].long()


def total_advantages(model: nn.Module, tokenizer: Any, sample: Sample, arms: tuple[str, ...]) -> dict[str, Tensor]:
    """Outcome plus `ALPHA` times process advantage, (B, T), for each arm, for the labels, for the outcome alone."""
    outcome = sample.outcome_advantages.unsqueeze(1)
    found = process_advantages(model, tokenizer, sample, arms)
    totals = {name: outcome + ALPHA * process for name, (_, process) in found.items()}
    return {"outcome": outcome.expand(_shape(sample))} | totals


def all_aucs(model: nn.Module, tokenizer: Any, sample: Sample) -> dict[str, Any]:
    """For each arm the AUCs of r and of the total advantage."""
    outcome = sample.outcome_advantages.unsqueeze(1)
    result: dict[str, Any] = {"outcome": {"total": segment_auc(outcome.expand(_shape(sample)), sample)}}
    for name, (rewards, process) in process_advantages(model, tokenizer, sample, COMPARED).items():
        result[name] = {"total": segment_auc(outcome + ALPHA * process, sample)}
        if rewards is not None:
            result[name]["r"] = segment_auc(rewards, sample)
    return result


def split_gradients(model: nn.Module, sample: Sample, totals: dict[str, Tensor]) -> dict[str, Tensor]:
    """Policy gradients through the tokens of the thought, for each kind of total advantage; and, under "answer",
    through those after it, where all kinds are the outcome's.
    """
    thought = torch.arange(_shape(sample)[1]) < torch.tensor(sample.ends).unsqueeze(1)
    advantages = {name: total.masked_fill(~thought, 0.0) for name, total in totals.items()}
    return gradients(model, sample, advantages | {"answer": totals["outcome"].masked_fill(thought, 0.0)})


def leads(model: nn.Module, tokenizer: Any, sample: Sample, arm: str, target: Tensor) -> dict[str, float]:
    """What the segments of each label add to the cosine of `target` with the gradient of Ã alone, without the outcome.

    "end of the thought": tokens of the thought after the last segment. The values sum to that cosine.
    """
    _, process = process_advantages(model, tokenizer, sample, (arm,))[arm]
    masks = {label: torch.zeros(process.shape, dtype=torch.bool) for label in sorted(sample.task.labels)}
    rest = torch.ones(process.shape, dtype=torch.bool)
    for segment in sample.segments:
        masks[segment.label][segment.row, segment.start : segment.end] = True
        rest[segment.row, segment.start : segment.end] = False
    parts = gradients(
        model, sample, {name: process * mask for name, mask in (masks | {"end of the thought": rest}).items()}
    )
    whole = torch.stack(list(parts.values())).sum(dim=0)
    scale = (whole.norm() * target.norm()).clamp(min=1e-12)
    return {name: round((part @ target / scale).item(), 5) for name, part in parts.items()}


def gradients(model: nn.Module, sample: Sample, advantages: dict[str, Tensor], rows: int = 64) -> dict[str, Tensor]:
    """Policy gradient of −mean over tokens of A_t log π(c_t) for each kind of advantage (B, T), as one vector."""
    batch = sample.batch
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    total_tokens = batch["completion_mask"].sum()
    sums = {name: [torch.zeros_like(parameter) for parameter in parameters] for name in advantages}
    for first in range(0, len(sample.texts), rows):
        part = slice(first, first + rows)
        ids = torch.cat([batch["prompt_ids"][part], batch["completion_ids"][part]], dim=1)
        mask = torch.cat([batch["prompt_mask"][part], batch["completion_mask"][part]], dim=1)
        length = batch["completion_ids"].shape[1]
        logits = model(input_ids=ids, attention_mask=mask).logits[:, -length - 1 : -1]
        log_probs = logits.log_softmax(dim=-1).gather(2, ids[:, -length:].unsqueeze(2)).squeeze(2)
        for name, values in advantages.items():
            loss = -(values[part] * log_probs * batch["completion_mask"][part]).sum() / total_tokens
            for total, gradient in zip(
                sums[name], torch.autograd.grad(loss, parameters, retain_graph=True), strict=True
            ):
                total += gradient
    return {name: torch.cat([total.flatten() for total in totals]) for name, totals in sums.items()}
