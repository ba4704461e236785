"""From rollouts to boundaries and the objective J at each: the one way that training and the commands take."""

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Self

import torch
from torch import Tensor, nn
from transformers.utils import logging

from ..config import ReproConfigMixin
from .answer_forms import AnswerForm
from .branch_attention import evaluation_mode, masked_attention, unsupported_reason, unwrap
from .completions import AnswerTokens, CompletionReader, ScoringRow
from .objective import answer_log_probs, replay
from .padding import pad_rows
from .segments import select_boundaries
from .shared_prefix import branch_pass, prefix_pass

logger = logging.get_logger(__name__)

# Largest result of `Scorer.method_difference` that counts as rounding, for models computed in 32 and in 16 bits.
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


@contextmanager
def scoring_mode(model: nn.Module, method: str) -> Iterator[None]:
    """The model as scoring needs it: no dropout, and for "shared" an attention that takes masks."""
    with evaluation_mode(model), masked_attention(model) if method == "shared" else nullcontext():
        yield


class Scorer:
    """
    J of completions with one policy, by the method that is exact for it: what the scorers of training and of the
    commands share.

    Args:
        model: the policy. It may be set anew when a trainer has wrapped it.
        reader: reads the completions, with RePro's settings.
        temperature: sampling temperature of the policy.
        speaks: whether this process says why it uses the slower method.

    Attributes:
        method: "shared" or "replay", with which J is computed.

    Raises:
        ValueError: `repro_method="shared"` for a model that it is not exact for.
    """

    def __init__(
        self, model: nn.Module, reader: CompletionReader, temperature: float = 1.0, speaks: bool = True
    ) -> None:
        self.model, self.reader, self.temperature = model, reader, temperature
        self.settings, self._speaks = reader.settings, speaks
        self.method, reason = choose_method(model, self.settings)
        self._is_proven = self.method == "replay" or self.settings.repro_method == "shared"
        if reason is not None:
            self._fall_back(reason)

    def _fall_back(self, reason: str) -> None:
        self.method, self._is_proven = "replay", True
        if self._speaks:
            logger.warning("repro_method='auto' uses the slower 'replay': %s.", reason)

    def boundary_count(self, rows: Sequence[ScoringRow]) -> int:
        """M: the most boundaries that any of the rows has, where `repro_top_k` (None: all) of its starts are kept."""
        top_k, most_starts = self.settings.repro_top_k, max((len(row.starts) for row in rows), default=0)
        return (most_starts if top_k is None else min(top_k, most_starts)) + 2

    def scoring_mode(self) -> AbstractContextManager[None]:
        """The model ready to be scored with."""
        return scoring_mode(self.model, self.method)

    def score_rows(
        self, batch: dict[str, Tensor], rows: list[ScoringRow], num_boundaries: int, method: str
    ) -> Objectives:
        """`score_rows` with this policy."""
        return score_rows(self.model, batch, rows, self.settings.repro_top_k, num_boundaries, self.temperature, method)

    def method_difference(self, batch: dict[str, Tensor], row: ScoringRow, num_boundaries: int) -> float:
        """
        How far "shared" is from "replay" for one completion: the largest |ΔJ| / (1 + |J|) over its boundaries.

        Arguments are those of `score_rows`, which is called once with each method.
        """
        with self.scoring_mode():
            shared = self.score_rows(batch, [row], num_boundaries, "shared")
            # Entropies that nearly tie may choose other boundaries in the second pass, which says nothing about J.
            starts = shared.boundaries[shared.boundary_mask].tolist()[1:-1]
            row = dataclasses.replace(row, starts=starts)
            replayed = self.score_rows(batch, [row], num_boundaries, "replay").objective
        difference = (shared.objective - replayed).abs() / (1 + replayed.abs())
        return difference[shared.boundary_mask].nan_to_num(nan=0.0).max().item()

    def _judge(self, difference: float, half_precision: bool = False) -> None:
        """
        Fall back where a `method_difference` is more than rounding. `half_precision`: the model computes in 16 bits,
        whatever its weights are kept in.
        """
        self._is_proven = True
        half_precision = half_precision or unwrap(self.model).dtype.itemsize < 4
        if difference > (TOLERANCE_16_BIT if half_precision else TOLERANCE_32_BIT):
            self._fall_back(
                f"on this model its results differ from those of 'shared' by {difference:.2g} nats per token"
            )

    def score_batch(
        self,
        batch: dict[str, Tensor],
        rows: list[ScoringRow],
        num_boundaries: int,
        batch_size: int,
        num_micro_batches: int | None = None,
    ) -> Objectives:
        """
        J of the B completions of a batch, `batch_size` at a time.

        Args:
            batch, num_boundaries: as in `score_rows`.
            rows: those to be scored.
            batch_size: completions per micro-batch.
            num_micro_batches: how many to run, whatever the rows; by default, as many as the rows need. Processes that
                share a model must run the same number.
        """
        completion_ids = batch["completion_ids"]
        found = Objectives.empty((len(completion_ids), num_boundaries), completion_ids.device)
        with self.scoring_mode():
            for part in _micro_batches(rows, batch_size, num_micro_batches):
                results = self.score_rows(batch, part or [self.reader.idle_row()], num_boundaries, self.method)
                found.put(part, results, list(range(len(part))))
        return found

    def ask_forms(
        self,
        batch: dict[str, Tensor],
        rows: list[ScoringRow],
        answers: Sequence[str | None],
        forms: Sequence[AnswerForm],
        batch_size: int,
        num_micro_batches: int | None = None,
    ) -> Tensor:
        """
        J of a batch's completions with several forms of their answers, at their last boundary and last segment start.

        Args:
            batch, rows, batch_size, num_micro_batches: as in `score_batch`.
            answers: (B,) bare ground truths.
            forms: F of them.

        Returns:
            (B, F, 2) float32, NaN for completions that are not among the rows.
        """
        device = batch["completion_ids"].device
        found = torch.full((len(answers), len(forms), 2), math.nan, device=device)
        with self.scoring_mode():
            for part in _micro_batches(rows, batch_size, num_micro_batches):
                asked = part or [self.reader.idle_row()]
                texts = [text for row in part for text in self.reader.encode_forms(row, answers[row.index], forms)]
                texts = texts or [asked[0].answer] * (2 * len(forms))
                boundaries, _ = pad_rows([[row.end, max(row.starts, default=0)] * len(forms) for row in asked], device)
                objective = answer_log_probs(
                    self.model,
                    *_rollouts_of(batch, asked),
                    boundaries,
                    torch.ones_like(boundaries, dtype=torch.bool),
                    *(tensor.view(*boundaries.shape, -1) for tensor in _pad_texts(texts, device)),
                    self.temperature,
                    self.method,
                )
                for row, values in zip(part, objective.view(len(asked), len(forms), 2), strict=False):
                    found[row.index] = values
        return found


def _micro_batches(rows: list[ScoringRow], batch_size: int, count: int | None) -> Iterator[list[ScoringRow]]:
    """The rows in parts of `batch_size`; as many parts as asked for, where processes must run equally many."""
    count = math.ceil(len(rows) / batch_size) if count is None else count
    return (rows[first : first + batch_size] for first in range(0, count * batch_size, batch_size))


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
    padded = _pad_texts(answers, boundary_mask.device)
    if all(row.last_answer is row.answer for row in rows):
        return tuple(tensor[:count] for tensor in padded)
    last = boundary_mask.sum(dim=1, keepdim=True) - 1
    is_last = torch.arange(num_boundaries, device=boundary_mask.device) == last
    return tuple(
        torch.where(is_last.unsqueeze(2), tensor[count:].unsqueeze(1), tensor[:count].unsqueeze(1))
        for tensor in padded
    )


def _pad_texts(texts: Sequence[AnswerTokens], device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Answers as they are appended: ids, mask and scored mask, each (N, A)."""
    ids, mask = pad_rows([text.ids for text in texts], device)
    scored, _ = pad_rows([list(map(int, text.scored)) for text in texts], device)
    return ids, mask, scored.bool()
