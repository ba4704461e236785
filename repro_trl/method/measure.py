"""From rollouts to boundaries and the objective J at each: the one way that training and the commands take."""

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Self

import torch
from torch import Tensor, nn

from ..config import ReproConfigMixin
from .answer_forms import AnswerForm
from .branch_attention import evaluation_mode, masked_attention, unsupported_reason, unwrap
from .completions import CompletionReader, ScoringRow
from .objective import answer_log_probs, replay
from .padding import pad_rows
from .segments import select_boundaries
from .shared_prefix import branch_pass, prefix_pass

# Largest result of `method_difference` that counts as rounding, for models computed in 32 and in 16 bits.
TOLERANCE_32_BIT, TOLERANCE_16_BIT = 1e-3, 5e-2


@dataclass
class Objectives:
    """
    J at the boundaries of B completions (METHOD §2, §3); rows that were not scored are all padding.

    Attributes:
        boundaries: (B, M) int64, completion tokens before each boundary; padding repeats the last one.
        boundary_mask: (B, M) bool.
        objective: (B, M) float32, J in nats per answer token; 0 in padding.
        entropies: (B, M) float32, nats: H_s where a boundary is a segment start s (METHOD §2.3), else 0.
    """

    boundaries: Tensor
    boundary_mask: Tensor
    objective: Tensor
    entropies: Tensor

    @classmethod
    def empty(cls, shape: tuple[int, int], device: torch.device) -> Self:
        """Room for B completions at M boundaries."""
        return cls(
            boundaries=torch.zeros(shape, dtype=torch.long, device=device),
            boundary_mask=torch.zeros(shape, dtype=torch.bool, device=device),
            objective=torch.zeros(shape, device=device),
            entropies=torch.zeros(shape, device=device),
        )

    def put(self, rows: list[ScoringRow], part: "Objectives", places: list[int]) -> None:
        """Take over those of a micro-batch that stand at `places`, one for each of `rows`."""
        device = self.objective.device
        index = torch.tensor([row.index for row in rows], dtype=torch.long, device=device)
        places = torch.tensor(places, dtype=torch.long, device=device)
        for field in dataclasses.fields(self):
            getattr(self, field.name)[index] = getattr(part, field.name)[places]

    def finite(self) -> tuple[Self, int]:
        """These without the rows where J is not finite, and how many rows that were."""
        finite = self.objective.masked_fill(~self.boundary_mask, 0.0).isfinite().all(dim=1)
        mask = self.boundary_mask & finite.unsqueeze(1)
        objective = self.objective.masked_fill(~mask, 0.0)
        return dataclasses.replace(self, boundary_mask=mask, objective=objective), int((~finite).sum())


def choose_method(model: nn.Module, settings: ReproConfigMixin) -> tuple[str, str | None]:
    """
    "shared" or "replay" for this model, as `repro_method` asks, and why it is the slower one under "auto". A
    `ValueError` for `repro_method="shared"` where it is not exact.
    """
    if settings.repro_method == "replay":
        return "replay", None
    with masked_attention(model):
        reason = unsupported_reason(model)
    if reason is None:
        return "shared", None
    if settings.repro_method == "shared":
        raise ValueError(f"repro_method='shared' is not exact for this model: {reason}. Use 'replay' or 'auto'.")
    return "replay", reason


def shared_error(difference: float, half_precision: bool) -> str | None:
    """What a `method_difference` says against "shared"; None where it is rounding."""
    if difference <= (TOLERANCE_16_BIT if half_precision else TOLERANCE_32_BIT):
        return None
    return f"on this model its results differ from those of 'shared' by {difference:.2g} nats per token"


def is_half(model: nn.Module) -> bool:
    """Whether the model computes in 16 bits or fewer."""
    return unwrap(model).dtype.itemsize < 4


def method_difference(
    model: nn.Module,
    batch: dict[str, Tensor],
    row: ScoringRow,
    top_k: int | None,
    num_boundaries: int,
    temperature: float = 1.0,
) -> float:
    """
    How far "shared" is from "replay" for one completion: the largest |ΔJ| / (1 + |J|) over its boundaries.

    Arguments are those of `score_rows`, which is called once with each method.
    """
    arguments = (top_k, num_boundaries, temperature)
    shared = score_rows(model, batch, [row], *arguments, method="shared")
    # Entropies that nearly tie may choose other boundaries in the second pass, which says nothing about J.
    starts = shared.boundaries[shared.boundary_mask].tolist()[1:-1]
    row = dataclasses.replace(row, starts=starts)
    replayed = score_rows(model, batch, [row], *arguments, method="replay").objective
    difference = (shared.objective - replayed).abs() / (1 + replayed.abs())
    return difference[shared.boundary_mask].nan_to_num(nan=0.0).max().item()


def boundary_count(rows: Sequence[ScoringRow], top_k: int | None) -> int:
    """M: the most boundaries that any of the rows has, where `top_k` (None: all) of its starts are kept."""
    most_starts = max((len(row.starts) for row in rows), default=0)
    return (most_starts if top_k is None else min(top_k, most_starts)) + 2


@contextmanager
def scoring_mode(model: nn.Module, method: str) -> Iterator[None]:
    """The model as scoring needs it: no dropout, and for "shared" an attention that takes masks."""
    with evaluation_mode(model), masked_attention(model) if method == "shared" else nullcontext():
        yield


def micro_batches(rows: list[ScoringRow], batch_size: int, count: int | None = None) -> Iterator[list[ScoringRow]]:
    """The rows in parts of `batch_size`; as many parts as asked for, where processes must run equally many."""
    count = math.ceil(len(rows) / batch_size) if count is None else count
    return (rows[first : first + batch_size] for first in range(0, count * batch_size, batch_size))


def score_batch(
    model: nn.Module,
    batch: dict[str, Tensor],
    rows: list[ScoringRow],
    reader: CompletionReader,
    num_boundaries: int,
    temperature: float = 1.0,
    method: str = "shared",
    batch_size: int = 8,
    num_micro_batches: int | None = None,
) -> Objectives:
    """
    J of the B completions of a batch, `batch_size` at a time; the model is in `scoring_mode`.

    Args:
        model, batch, num_boundaries, temperature, method: as in `score_rows`.
        rows: those to be scored.
        reader: provides placeholder rows when there are none left.
        batch_size: completions per micro-batch.
        num_micro_batches: how many to run, whatever the rows; by default, as many as the rows need. Processes that
            share a model must run the same number.
    """
    completion_ids, top_k = batch["completion_ids"], reader.settings.repro_top_k
    found = Objectives.empty((len(completion_ids), num_boundaries), completion_ids.device)
    for part in micro_batches(rows, batch_size, num_micro_batches):
        results = score_rows(model, batch, part or [reader.idle_row()], top_k, num_boundaries, temperature, method)
        found.put(part, results, list(range(len(part))))
    return found


def score_rows(
    model: nn.Module,
    batch: dict[str, Tensor],
    rows: list[ScoringRow],
    top_k: int | None,
    num_boundaries: int,
    temperature: float = 1.0,
    method: str = "shared",
) -> Objectives:
    """
    Choose the boundaries of R completions and compute the objective at each (METHOD §2.3 to §3).

    The number of model calls depends on `method` and `num_boundaries` alone, never on what the rows hold: for "shared"
    1 + ⌈`num_boundaries` / 32⌉, for "replay" 1 + `num_boundaries`.

    Args:
        model: the policy, wrapped or not.
        batch: `prompt_ids`, `prompt_mask` (B, P) left-padded; `completion_ids`, `completion_mask` (B, T) right-padded.
        rows: the R completions, with at least one token each.
        top_k: segment starts kept per completion; None: all.
        num_boundaries: M, at least the number of boundaries of any row.
        temperature: sampling temperature of the policy.
        method: "shared" or "replay".

    Returns:
        Of the R rows.
    """
    rollouts = _rollouts_of(batch, rows)
    starts, start_mask = pad_rows([row.starts for row in rows], rollouts[0].device)
    prefix = prefix_pass(model, *rollouts, starts, start_mask, temperature, keep_cache=method == "shared")
    read = partial(branch_pass, model, prefix) if method == "shared" else partial(replay, model, *rollouts)
    return read_objectives(partial(read, temperature=temperature), rows, prefix.entropies, top_k, num_boundaries)


def _rollouts_of(batch: dict[str, Tensor], rows: list[ScoringRow]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of R rows the prompts and their mask (R, P), the completions and theirs, up to the last end boundary."""
    index = torch.tensor([row.index for row in rows], device=batch["completion_ids"].device)
    length = max(row.end for row in rows)
    return (
        batch["prompt_ids"][index],
        batch["prompt_mask"][index].bool(),
        batch["completion_ids"][index, :length],
        batch["completion_mask"][index, :length].bool(),
    )


def read_objectives(
    read: Callable[..., Tensor], rows: list[ScoringRow], entropies: Tensor, top_k: int | None, num_boundaries: int
) -> Objectives:
    """
    The objectives of R rows at boundaries that are chosen by entropy.

    Args:
        read: J (R, M) from boundaries, their mask, and the ids, mask and scored mask of the answers, by some method.
        rows: the completions.
        entropies: (R, N) nats, H_s at the rows' starts.
        top_k, num_boundaries: as in `score_rows`.
    """
    boundaries, boundary_mask, kept = choose_boundaries(rows, entropies, top_k, num_boundaries)
    objective = read(boundaries, boundary_mask, *pad_answers(rows, boundary_mask))
    return Objectives(boundaries, boundary_mask, objective, kept)


def ask_forms(
    model: nn.Module,
    batch: dict[str, Tensor],
    rows: list[ScoringRow],
    reader: CompletionReader,
    answers: Sequence[str | None],
    forms: Sequence[AnswerForm],
    temperature: float = 1.0,
    method: str = "shared",
    batch_size: int = 8,
    num_micro_batches: int | None = None,
) -> Tensor:
    """
    J of a batch's completions with several forms of their answers, at the last boundary and at the last segment start.

    Args:
        model, batch, rows, reader, temperature, method, batch_size, num_micro_batches: as in `score_batch`.
        answers: (B,) bare ground truths.
        forms: F of them.

    Returns:
        (B, F, 2) float32, NaN for completions that are not among the rows.
    """
    device = batch["completion_ids"].device
    found = torch.full((len(answers), len(forms), 2), math.nan, device=device)
    for part in micro_batches(rows, batch_size, num_micro_batches):
        asked = part or [reader.idle_row()]
        texts = [text for row in part for text in reader.encode_forms(row, answers[row.index], forms)]
        texts = texts or [asked[0].answer] * (2 * len(forms))
        ids, mask = pad_rows([text.ids for text in texts], device)
        scored, _ = pad_rows([list(map(int, text.scored)) for text in texts], device)
        boundaries, _ = pad_rows([[row.end, max(row.starts, default=0)] * len(forms) for row in asked], device)
        objective = answer_log_probs(
            model,
            *_rollouts_of(batch, asked),
            boundaries,
            torch.ones_like(boundaries, dtype=torch.bool),
            *(tensor.view(*boundaries.shape, -1) for tensor in (ids, mask, scored.bool())),
            temperature,
            method,
        )
        for row, values in zip(part, objective.view(len(asked), len(forms), 2), strict=False):
            found[row.index] = values
    return found


def choose_boundaries(
    rows: list[ScoringRow], entropies: Tensor, top_k: int | None, num_boundaries: int
) -> tuple[Tensor, Tensor, Tensor]:
    """METHOD §2.3 and §2.4 for R completions, given H_s at their `starts` (R, N): boundaries, mask and H (R, M)."""
    chosen, kept = [], []
    for row, values in zip(rows, entropies.tolist(), strict=True):
        by_start = dict(zip(row.starts, values, strict=False))
        boundaries = select_boundaries(row.starts, list(by_start.values()), row.end, top_k)
        chosen.append(boundaries)
        kept.append(
            [by_start.get(boundary, 0.0) for boundary in boundaries] + [0.0] * (num_boundaries - len(boundaries))
        )
    boundaries, boundary_mask = pad_rows(chosen, entropies.device, num_boundaries)
    # A padded boundary repeats the last one, so that it is a valid place whatever is computed there.
    last = boundary_mask.sum(dim=1, keepdim=True) - 1
    boundaries = torch.where(boundary_mask, boundaries, boundaries.gather(1, last))
    return boundaries, boundary_mask, torch.tensor(kept, device=entropies.device)


def pad_answers(rows: list[ScoringRow], boundary_mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Answers of R rows: ids, mask and scored mask, each (R, A), or (R, M, A) where the last boundary's differ."""
    count, num_boundaries = boundary_mask.shape
    answers = [row.answer for row in rows] + [row.last_answer for row in rows]
    ids, mask = pad_rows([answer.ids for answer in answers], boundary_mask.device)
    scored, _ = pad_rows([list(map(int, answer.scored)) for answer in answers], boundary_mask.device)
    padded = (ids, mask, scored.bool())
    if all(row.last_answer is row.answer for row in rows):
        return tuple(tensor[:count] for tensor in padded)
    last = boundary_mask.sum(dim=1, keepdim=True) - 1
    is_last = torch.arange(num_boundaries, device=boundary_mask.device) == last
    return tuple(
        torch.where(is_last.unsqueeze(2), tensor[count:].unsqueeze(1), tensor[:count].unsqueeze(1))
        for tensor in padded
    )
