"""What a policy does on held-out problems, and whether RePro's rewards know the useful segments of what it wrote."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from scipy.stats import rankdata
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from repro_trl.answers import DEFAULT_ANSWER_TEMPLATE
from repro_trl.config import ReproConfigMixin
from repro_trl.method.advantage import segment_credit
from repro_trl.method.answer_forms import AnswerForm
from repro_trl.method.completions import CompletionReader, has_think_end
from repro_trl.method.measure import Objectives, score_rows
from repro_trl.method.score import reward_completions
from repro_trl.method.segments import find_segment_starts
from repro_trl.thinking import count_backtracks
from repro_trl.trainers.repro import ReproMixin

from .arms import ARMS
from .sampler import sample
from .tasks import Task, dataset

DELIMITER, THINK_END = "\n\n", "</think>"


@dataclass(frozen=True)
class LabelledSegment:
    """Tokens [start, end) of completion `row`, which end with a delimiter, and what they did."""

    row: int
    start: int
    end: int
    label: str


@dataclass
class Sample:
    """Completions of some problems, `num_generations` of each side by side.

    Attributes:
        batch: `prompt_ids`, `prompt_mask` (B, P) left-padded; `completion_ids`, `completion_mask` (B, T).
        groups: (B,) index of the problem.
        correct: (B,) float, 1 where the answer is right.
        starts, ends: candidate segment starts and end boundary of each completion (METHOD §2).
    """

    task: Task
    problems: list[Any]
    batch: dict[str, Tensor]
    groups: Tensor
    correct: Tensor
    texts: list[str]
    starts: list[list[int]]
    ends: list[int]
    segments: list[LabelledSegment]

    @property
    def outcome_advantages(self) -> Tensor:
        """(B,) that of GRPO: (R − group mean) / (group std + 1e-4)."""
        rewards = self.correct.view(len(self.problems), -1)
        centred = rewards - rewards.mean(dim=1, keepdim=True)
        return (centred / (rewards.std(dim=1, keepdim=True) + 1e-4)).flatten()


@dataclass
class Credit:
    """What one arm gives the tokens of a sample: r of their segment and Ã, both (B, T); J (B, M) with its mask."""

    rewards: Tensor
    advantages: Tensor
    objective: Tensor
    mask: Tensor


@torch.no_grad()
def draw(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    problem_seed: int,
    num_problems: int,
    num_generations: int,
    held_out: bool = True,
) -> Sample:
    """Sample at temperature 1, as in training. Draws from torch's global generator."""
    from pocket.traces import is_correct

    problems = task.sample_problems(num_problems, problem_seed, held_out)
    rows = dataset(problems)
    inputs = tokenizer.apply_chat_template(
        list(rows["prompt"]), add_generation_prompt=True, return_dict=True, return_tensors="pt", padding=True
    )
    prompts = {
        name: inputs[name].repeat_interleave(num_generations, dim=0) for name in ("input_ids", "attention_mask")
    }
    output = sample(model, prompts["input_ids"], prompts["attention_mask"], task.max_completion_length)
    completion_ids = output[:, prompts["input_ids"].shape[1] :]
    is_end = completion_ids == tokenizer.eos_token_id
    mask = is_end.long().cumsum(dim=1) - is_end.long() == 0  # up to and including the first end
    lengths = mask.sum(dim=1).tolist()

    texts, starts, ends, segments = [], [], [], []
    for row, (ids, length) in enumerate(zip(completion_ids.tolist(), lengths, strict=True)):
        ids = ids[:length]
        row_starts, end = find_segment_starts(tokenizer, ids, DELIMITER, THINK_END)
        bounds = [0, *row_starts]
        pieces = [tokenizer.decode(ids[a:b]) for a, b in pairwise(bounds)]
        labels = task.label_segments(problems[row // num_generations], pieces)
        segments += [LabelledSegment(row, a, b, label) for (a, b), label in zip(pairwise(bounds), labels, strict=True)]
        texts.append(tokenizer.decode(ids, skip_special_tokens=True))
        starts.append(row_starts)
        ends.append(end)
    solutions = [solution for solution in rows["solution"] for _ in range(num_generations)]
    return Sample(
        task=task,
        problems=problems,
        batch={
            "prompt_ids": prompts["input_ids"],
            "prompt_mask": prompts["attention_mask"],
            "completion_ids": completion_ids.masked_fill(~mask, tokenizer.pad_token_id),
            "completion_mask": mask.long(),
        },
        groups=torch.arange(len(texts)) // num_generations,
        correct=torch.tensor([float(is_correct(*pair)) for pair in zip(texts, solutions, strict=True)]),
        texts=texts,
        starts=starts,
        ends=ends,
        segments=segments,
    )


def objective(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, sample: Sample, form: AnswerForm, top_k: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Boundaries, their mask and J at each, (B, M), as a trainer that asks in this form computes them."""
    count = len(sample.texts) // len(sample.problems)
    reader = CompletionReader(tokenizer, Settings({}))
    reader.form = form
    rows = []
    for index, (starts, end) in enumerate(zip(sample.starts, sample.ends, strict=True)):
        length = int(sample.batch["completion_mask"][index].sum())
        ids = sample.batch["completion_ids"][index, :length].tolist()
        finished = has_think_end(tokenizer, ids, end, THINK_END)
        rows.append(reader.row(index, starts, end, finished, sample.problems[index // count].answer))
    num_boundaries = min(top_k, max(map(len, sample.starts))) + 2
    batch = {name: tensor.to(model.device) for name, tensor in sample.batch.items()}
    with torch.no_grad():
        found = score_rows(model, batch, rows, top_k, num_boundaries)
    return found.boundaries.cpu(), found.boundary_mask.cpu(), found.objective.cpu()


def score_as(
    arm: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, sample: Sample
) -> tuple[Tensor, Tensor, Tensor]:
    """`objective` with the settings of an arm."""
    return objective(model, tokenizer, sample, *asked_by(arm, sample.task.name))


def asked_by(arm: str, task: str) -> tuple[AnswerForm, int]:
    """The form in which an arm asks for the answer, with "auto" the one before any is found, and its k."""
    settings = ARMS[arm].settings_for(task)
    prefix = "" if ARMS[arm].is_auto else settings["repro_answer_prefix"]
    return AnswerForm(prefix, DEFAULT_ANSWER_TEMPLATE), settings["repro_top_k"]


class Settings(ReproConfigMixin):
    """RePro's settings without a trainer's."""

    def __init__(self, settings: dict[str, Any]) -> None:
        for name, value in settings.items():
            setattr(self, name, value)


def credit(arm: str, scored: tuple[Tensor, Tensor, Tensor], sample: Sample) -> Credit:
    """Process rewards and advantages of an arm, by the very methods of its trainer."""
    treatment = ARMS[arm]
    trainer = object.__new__(type("CreditOnly", (*treatment.mixins, ReproMixin), {}))
    trainer.args = Settings(treatment.settings_for(sample.task.name))
    boundaries, mask, values = scored
    length = sample.batch["completion_ids"].shape[1]
    rewarded = reward_completions(
        Objectives(boundaries, mask, values.masked_fill(~mask, 0.0), torch.zeros_like(values)),
        trainer.args,
        sample.groups,
        length,
        segment_rewards=trainer.segment_rewards,
        token_advantages=trainer.token_advantages,
    )
    return Credit(
        rewards=segment_credit(rewarded.process_rewards, mask[:, 1:], boundaries[:, 1:], length),
        advantages=rewarded.advantages,
        objective=values,
        mask=mask,
    )


def auc(positive: list[float], negative: list[float]) -> float | None:
    """Chance that a random positive lies above a random negative, ties counted half; `None` without either."""
    if not positive or not negative:
        return None
    ranks = rankdata([*positive, *negative])[: len(positive)]
    count = len(positive)
    return float((ranks.sum() - count * (count + 1) / 2) / (count * len(negative)))


def segment_auc(values: Tensor, sample: Sample) -> dict[str, float | None]:
    """How well a value per token, (B, T), tells useful segments from others.

    Returns: "useful": useful segments against all others; "inner": the same without the first segment of each
    completion and its last two boundaries' segments; "step": right steps against wrong ones.
    """
    sums = torch.cat([torch.zeros(len(values), 1), values.double().cumsum(dim=1)], dim=1)
    last_start = {segment.row: segment.end for segment in sample.segments}
    groups: dict[str, list[float]] = {name: [] for name in ("yes", "no", "inner yes", "inner no", "step", "wrong")}
    for segment in sample.segments:
        total = (sums[segment.row, segment.end] - sums[segment.row, segment.start]).item()
        value = round(total / (segment.end - segment.start), 9)  # equal values must tie
        useful = "yes" if segment.label in sample.task.useful else "no"
        groups[useful].append(value)
        if segment.start > 0 and segment.end < last_start[segment.row]:
            groups[f"inner {useful}"].append(value)
        if segment.label in (sample.task.plain_step, sample.task.wrong_step):
            groups["step" if segment.label == sample.task.plain_step else "wrong"].append(value)
    return {
        "useful": auc(groups["yes"], groups["no"]),
        "inner": auc(groups["inner yes"], groups["inner no"]),
        "step": auc(groups["step"], groups["wrong"]),
    }


def behaviour(sample: Sample) -> dict[str, float]:
    """Means over the completions: accuracy, length of the thought in tokens and segments, backtracks, truncation."""
    count = len(sample.texts)
    lengths = sample.batch["completion_mask"].sum(dim=1)
    return {
        "accuracy": sample.correct.mean().item(),
        "thinking_tokens": sum(sample.ends) / count,
        "backtracks": sum(count_backtracks(text, DELIMITER, THINK_END) for text in sample.texts) / count,
        "segments": len(sample.segments) / count,
        "truncated": (lengths == sample.batch["completion_ids"].shape[1]).double().mean().item(),
    }


def evaluate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    seed: int,
    num_problems: int = 48,
    num_generations: int = 8,
    num_scored: int = 16,
    forms: tuple[str, ...] = ("recipe",),
) -> dict[str, Any]:
    """Behaviour on `num_problems` held-out problems; on completions of the first `num_scored` of them gain of J, and
    AUC of r and of the total advantage in the `forms` given, "repro" and "recipe", of which the latter measures J.
    One seed, one result; the caller's random state and the model's mode stay as they were.
    """
    was_training = model.training
    model.eval()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        result: dict[str, Any] = behaviour(draw(model, tokenizer, task, seed, num_problems, num_generations))
        sample = draw(model, tokenizer, task, seed, num_scored, num_generations)
        outcome = sample.outcome_advantages.unsqueeze(1)
        for arm in forms:
            scored, alpha = score_as(arm, model, tokenizer, sample), ARMS[arm].settings["repro_alpha"]
            given = credit(arm, scored, sample)
            result[f"auc {arm}"] = segment_auc(given.rewards, sample)
            result[f"auc {arm} total"] = segment_auc(outcome + alpha * given.advantages, sample)
            if arm == "recipe":
                last = given.mask.sum(dim=1, keepdim=True) - 1
                gain = given.objective.gather(1, last).squeeze(1) - given.objective[:, 0]
                result["objective_gain"] = gain.mean().item()
        result["auc outcome"] = segment_auc(outcome.expand(sample.batch["completion_ids"].shape), sample)
    model.train(was_training)
    return _rounded(result)


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(entry) for name, entry in value.items()}
    return None if value is None else round(value, 5)
