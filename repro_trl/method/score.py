"""From a micro-batch of rollouts to the boundaries of each and the objective J at every one."""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from accelerate.utils import is_peft_model
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedTokenizerBase

from .branch_attention import unwrap
from .objective import PrefixPass, branch_pass, prefix_pass, replay
from .segments import select_boundaries

# Largest result of `method_difference` that counts as rounding, for models computed in 32 and in 16 bits.
TOLERANCE_32_BIT, TOLERANCE_16_BIT = 1e-3, 5e-2


@dataclass
class AnswerTokens:
    """Tokens put after a partial thought: `scored[i]` says whether the log-probability of `ids[i]` counts."""

    ids: list[int]
    scored: list[bool]


@dataclass
class ScoredRollouts:
    """
    What RePro measured on B completions, batch first. M boundaries make M - 1 segments; rows with fewer are padded on
    the right, rows that were not scored are all padding.

    Attributes:
        boundaries: (B, M) int, completion tokens before each boundary (METHOD §2); padding repeats the last one.
        boundary_mask: (B, M) bool.
        entropies: (B, M) nats, H of the distribution that wrote the token after each boundary (METHOD §2.3); 0 at the
            first and the last boundary of a row and in padding.
        objective: (B, M) J at each boundary, nats per answer token (METHOD §3); 0 in padding.
        magnitude: (B, M) S_magn, in (0, 1] (METHOD §4); 0 in padding.
        stability: (B, M) S_stab, in [0, 1]; 0 at the first boundary and in padding.
        process_rewards: (B, M - 1) r of each segment; 0 in padding.
        normalized_rewards: (B, M - 1) r after METHOD §5.1.
        advantages: (B, T) token advantage before the weight alpha (METHOD §5.2).
    """

    boundaries: Tensor
    boundary_mask: Tensor
    entropies: Tensor
    objective: Tensor
    magnitude: Tensor
    stability: Tensor
    process_rewards: Tensor
    normalized_rewards: Tensor
    advantages: Tensor

    @property
    def segment_mask(self) -> Tensor:
        """(B, M - 1) bool: the segments that exist."""
        return self.boundary_mask[:, 1:]

    @property
    def scored(self) -> Tensor:
        """(B,) bool: completions with at least one segment."""
        return self.segment_mask.any(dim=1)


@dataclass
class ScoringRow:
    """
    One completion to be scored.

    Attributes:
        index: its row in the batch.
        starts: candidate segment starts, token positions in the completion (METHOD §2.2).
        end: the end boundary (METHOD §2.4).
        answer: what is appended at every boundary but the last.
        last_answer: what is appended at the last boundary.
    """

    index: int
    starts: list[int]
    end: int
    answer: AnswerTokens
    last_answer: AnswerTokens


def encode_answer(tokenizer: PreTrainedTokenizerBase, answer_text: str, prefix: str = "") -> AnswerTokens:
    """Tokenise an unscored prefix and the scored answer, each alone and without special tokens (METHOD §1, §3)."""
    prefix_ids = tokenizer.encode(prefix, add_special_tokens=False) if prefix else []
    answer_ids = tokenizer.encode(answer_text, add_special_tokens=False)
    return AnswerTokens(prefix_ids + answer_ids, [False] * len(prefix_ids) + [True] * len(answer_ids))


def prefix_after_marker(prefix: str, think_end: str | None) -> str:
    """What follows the end-of-thinking marker in an answer prefix that begins with it; any other prefix whole."""
    stripped = prefix.lstrip()
    return stripped[len(think_end) :] if think_end and stripped.startswith(think_end) else prefix


def has_think_end(tokenizer: PreTrainedTokenizerBase, completion_ids: list[int], end: int, think_end: str) -> bool:
    """Whether the marker was written, given the end boundary that `find_segment_starts` returned."""
    # A marker that the very last token completes leaves `end` at the length, as a missing one does.
    return end < len(completion_ids) or think_end in tokenizer.decode(
        completion_ids[-len(think_end.encode()) :], clean_up_tokenization_spaces=False
    )


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Switch off what models do in training only: dropout, which is no part of the policy, and checkpointing."""
    in_training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in in_training:
            module.training = True


@contextmanager
def masked_attention(model: nn.Module) -> Iterator[None]:
    """
    Let sdpa stand in for flash and flex attention, which compute the same but take no mask per branch (METHOD §8).

    Attention of any other kind stays as it is.
    """
    base = unwrap(model)
    base = base.get_base_model() if is_peft_model(base) else base
    chosen = base.config.get_text_config()._attn_implementation
    if "flash" not in chosen and chosen != "flex_attention":
        yield
        return
    base.set_attn_implementation("sdpa" if base._supports_sdpa else "eager")
    try:
        yield
    finally:
        base.set_attn_implementation(chosen)


def method_difference(
    model: nn.Module,
    batch: dict[str, Tensor],
    row: ScoringRow,
    top_k: int,
    num_boundaries: int,
    temperature: float = 1.0,
) -> float:
    """
    How far "shared" is from "replay" for one completion: the largest |ΔJ| / (1 + |J|) over its boundaries.

    Arguments are those of `score_rows`, which is called once with each method.
    """
    arguments = (top_k, num_boundaries, temperature)
    boundaries, mask, shared, _ = score_rows(model, batch, [row], *arguments, method="shared")
    # Entropies that nearly tie may choose other boundaries in the second pass, which says nothing about J.
    starts = boundaries[mask].tolist()[1:-1]
    row = dataclasses.replace(row, starts=starts)
    _, _, replayed, _ = score_rows(model, batch, [row], *arguments, method="replay")
    difference = (shared - replayed).abs() / (1 + replayed.abs())
    return difference[mask].nan_to_num(nan=0.0).max().item()


def score_rows(
    model: nn.Module,
    batch: dict[str, Tensor],
    rows: list[ScoringRow],
    top_k: int,
    num_boundaries: int,
    temperature: float = 1.0,
    method: str = "shared",
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """
    Choose the boundaries of R completions and compute the objective at each (METHOD §2.3 to §3).

    The number of model calls depends on `method` and `num_boundaries` alone, never on what the rows hold: 2 for
    "shared", 1 + `num_boundaries` for "replay".

    Args:
        model: the policy, wrapped or not.
        batch: `prompt_ids`, `prompt_mask` (B, P) left-padded; `completion_ids`, `completion_mask` (B, T) right-padded.
        rows: the R completions, with at least one token each.
        top_k: segment starts kept per completion.
        num_boundaries: M, at least the number of boundaries of any row.
        temperature: sampling temperature of the policy.
        method: "shared" or "replay".

    Returns:
        boundaries (R, M) int64, boundary_mask (R, M) bool, objective (R, M) float32, entropies (R, M) float32: H_s
        where a boundary is a segment start s, else 0.
    """
    device = batch["completion_ids"].device
    index = torch.tensor([row.index for row in rows], device=device)
    length = max(row.end for row in rows)
    prompt_ids, prompt_mask = batch["prompt_ids"][index], batch["prompt_mask"][index].bool()
    completion_ids = batch["completion_ids"][index, :length]
    completion_mask = batch["completion_mask"][index, :length].bool()

    starts, start_mask = _pad_rows([row.starts for row in rows], device)
    prefix = prefix_pass(
        model,
        prompt_ids,
        prompt_mask,
        completion_ids,
        completion_mask,
        starts,
        start_mask,
        temperature=temperature,
        keep_cache=method == "shared",
    )
    if method == "shared":
        return score_branches(model, prefix, rows, top_k, num_boundaries, temperature)
    boundaries, boundary_mask, entropies = _choose_boundaries(rows, prefix.entropies, top_k, num_boundaries)
    answers = _pad_answers(rows, boundary_mask)
    prompts_and_completions = (prompt_ids, prompt_mask, completion_ids, completion_mask)
    objective = replay(model, *prompts_and_completions, boundaries, boundary_mask, *answers, temperature)
    return boundaries, boundary_mask, objective, entropies


def score_branches(
    model: nn.Module,
    prefix: PrefixPass,
    rows: list[ScoringRow],
    top_k: int,
    num_boundaries: int,
    temperature: float = 1.0,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """
    The second half of `score_rows` by the shared method: one model call, given the pass over prompts and completions.

    Args:
        prefix: of the R completions, with its cache and the entropies at their `starts`.
        model, rows, top_k, num_boundaries, temperature: as in `score_rows`.

    Returns:
        As `score_rows`.
    """
    boundaries, boundary_mask, entropies = _choose_boundaries(rows, prefix.entropies, top_k, num_boundaries)
    answers = _pad_answers(rows, boundary_mask)
    objective = branch_pass(model, prefix, boundaries, boundary_mask, *answers, temperature)
    return boundaries, boundary_mask, objective, entropies


def prefix_of_pass(
    rows: list[ScoringRow],
    prompt_width: int,
    input_ids: Tensor,
    attention_mask: Tensor,
    entropies: Tensor,
    cache: DynamicCache,
) -> PrefixPass:
    """
    What `score_branches` needs, taken from a forward that somebody else ran over R prompts and completions.

    Args:
        rows: the R completions.
        prompt_width: P, left padding included.
        input_ids, attention_mask: (R, P + L), prompts padded on the left, completions on the right.
        entropies: (R, L) nats: of the distribution that produced each completion token.
        cache: keys and values of the P + L tokens.
    """
    starts, start_mask = _pad_rows([row.starts for row in rows], input_ids.device)
    prompt_starts = prompt_width - attention_mask[:, :prompt_width].long().sum(dim=1)
    return PrefixPass(
        entropies=entropies.float().gather(1, starts).masked_fill(~start_mask, 0.0),
        cache=cache,
        input_ids=input_ids,
        prompt_starts=prompt_starts,
        completion_starts=torch.full_like(prompt_starts, prompt_width),
        prompt_width=prompt_width,
    )


def _choose_boundaries(
    rows: list[ScoringRow], entropies: Tensor, top_k: int, num_boundaries: int
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
    boundaries, boundary_mask = _pad_rows(chosen, entropies.device, num_boundaries)
    # A padded boundary repeats the last one, so that it is a valid place whatever is computed there.
    last = boundary_mask.sum(dim=1, keepdim=True) - 1
    boundaries = torch.where(boundary_mask, boundaries, boundaries.gather(1, last))
    return boundaries, boundary_mask, torch.tensor(kept, device=entropies.device)


def _pad_rows(rows: list[list[int]], device: torch.device, width: int = 0) -> tuple[Tensor, Tensor]:
    """Right-pad lists of integers with zeros: values (R, N) int64, mask (R, N) bool."""
    width = max(width, *(len(row) for row in rows))
    values = torch.tensor([row + [0] * (width - len(row)) for row in rows], dtype=torch.long, device=device)
    lengths = torch.tensor([len(row) for row in rows], device=device)
    return values.view(len(rows), width), torch.arange(width, device=device) < lengths.unsqueeze(1)


def _pad_answers(rows: list[ScoringRow], boundary_mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Answers of R rows: ids, mask and scored mask, each (R, A), or (R, M, A) where the last boundary's differ."""
    count, num_boundaries = boundary_mask.shape
    answers = [row.answer for row in rows] + [row.last_answer for row in rows]
    ids, mask = _pad_rows([answer.ids for answer in answers], boundary_mask.device)
    scored, _ = _pad_rows([list(map(int, answer.scored)) for answer in answers], boundary_mask.device)
    padded = (ids, mask, scored.bool())
    if all(row.last_answer is row.answer for row in rows):
        return tuple(tensor[:count] for tensor in padded)
    last = boundary_mask.sum(dim=1, keepdim=True) - 1
    is_last = torch.arange(num_boundaries, device=boundary_mask.device) == last
    return tuple(
        torch.where(is_last.unsqueeze(2), tensor[count:].unsqueeze(1), tensor[:count].unsqueeze(1))
        for tensor in padded
    )
