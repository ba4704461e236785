"""What the rewards of both forms say of single completions, segment by segment: for finding out why."""

from typing import Any

import torch
from torch import nn

from repro_trl.method.advantage import segment_credit

from .measure import Sample, credit, draw, score_as
from .tasks import TASKS

FORMS = {"paper": "repro", "recipe": "recipe"}
NUM_PROBLEMS, NUM_GENERATIONS, SHOWN = 12, 8, 2


def trace_start(model: nn.Module, tokenizer: Any, task_name: str, seed: int) -> dict[str, Any]:
    """Two completions of the starting policy: the first with a mended error and a right answer, the first with a wrong
    one; and means over all completions of J at the boundaries, by how far the thought is.
    """
    task = TASKS[task_name]
    model.eval()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        sample = draw(model, tokenizer, task, 300_000 + seed, NUM_PROBLEMS, NUM_GENERATIONS)
    scored = {form: score_as(arm, model, tokenizer, sample) for form, arm in FORMS.items()}
    labels: dict[int, list[str]] = {}
    for segment in sample.segments:
        labels.setdefault(segment.row, []).append(segment.label)
    right = [row for row, found in labels.items() if "fix" in found and sample.correct[row] and len(found) > 4]
    wrong = [row for row, found in labels.items() if "wrong" in found and not sample.correct[row] and len(found) > 3]
    rows = (right[:1] + wrong[:1])[:SHOWN]
    last_step = {form: _last_step(values) for form, values in scored.items()}
    return {"examples": [_example(tokenizer, sample, scored, row) for row in rows], "last step of J": last_step}


def _last_step(scored: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> dict[str, float]:
    """How J moves at the last boundary, where the thought is closed, over all completions."""
    _, mask, values = scored
    last = mask.sum(dim=1, keepdim=True) - 1
    change = (values.gather(1, last) - values.gather(1, (last - 1).clamp(min=0))).squeeze(1)
    return {"mean": round(change.mean().item(), 4), "share that falls": round((change < 0).double().mean().item(), 4)}


def _example(tokenizer: Any, sample: Sample, scored: dict[str, Any], row: int) -> dict[str, Any]:
    length = sample.batch["completion_ids"].shape[1]
    ids = sample.batch["completion_ids"][row].tolist()
    segments = [segment for segment in sample.segments if segment.row == row]
    pieces = [(segment.start, segment.end, segment.label) for segment in segments]
    if segments and segments[-1].end < sample.ends[row]:
        pieces.append((segments[-1].end, sample.ends[row], "end of the thought"))
    result: dict[str, Any] = {
        "problem": sample.problems[row // NUM_GENERATIONS].text,
        "given": sample.texts[row].rsplit("\\boxed{", 1)[-1].split("}")[0],
        "correct": bool(sample.correct[row]),
        "segments": [
            {"text": tokenizer.decode(ids[start:end]).strip(), "label": label} for start, end, label in pieces
        ],
    }
    for form, arm in FORMS.items():
        given = credit(arm, scored[form], sample)
        boundaries, mask, values = scored[form]
        # J at the end of the kept segment that holds each piece.
        after = segment_credit(values[:, 1:], mask[:, 1:], boundaries[:, 1:], length)
        result[f"J_0 {form}"] = round(values[row, 0].item(), 4)
        for entry, (start, _, _) in zip(result["segments"], pieces, strict=True):
            entry[f"J {form}"] = round(after[row, start].item(), 4)
            entry[f"r {form}"] = round(given.rewards[row, start].item(), 4)
            entry[f"credit {form}"] = round(given.advantages[row, start].item(), 4)
    return result
