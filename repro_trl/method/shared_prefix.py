"""
METHOD §8: J at all boundaries from two forwards, because every answer continues a prefix of the same rollout.

`prefix_pass` over prompt and completion keeps every key and value, and reads the entropies that choose the
boundaries; `branch_pass` reads all answers on that prefix at once.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from .branch_attention import branch_attention_mask, cache_argument, read_only, unsupported_reason
from .lm_head import entropies_of, log_probs_of, reduce_logits
from .padding import check_prompt, flat_index, pad_rows, per_boundary

BRANCHES_PER_PASS = 32
"""Boundaries whose answers share a forward: all of them for k = 30."""


@dataclass(frozen=True)
class PrefixPass:
    """
    What one forward over prompts and completions leaves for the branches.

    Attributes:
        entropies: (B, N) float32, nats: H_s at the asked positions, 0 where masked.
        cache: keys and values of all P + L tokens; None if they were not kept.
        input_ids: (B, P + L) prompt and completion as they lie in the cache.
        prompt_starts: (B,) int, where in the cache the prompt's first real token lies.
        completion_starts: (B,) int, where the completion's first token lies; all tokens between are real.
        prompt_width: P, left padding included: the position of the completion's first token as the model counts them.
    """

    entropies: Tensor
    cache: DynamicCache | None
    input_ids: Tensor
    prompt_starts: Tensor
    completion_starts: Tensor
    prompt_width: int


@torch.no_grad()
def prefix_pass(
    model: nn.Module,
    prompt_ids: Tensor,
    prompt_mask: Tensor,
    completion_ids: Tensor,
    completion_mask: Tensor,
    positions: Tensor,
    position_mask: Tensor,
    temperature: float = 1.0,
    keep_cache: bool = True,
) -> PrefixPass:
    """
    One forward over prompts and completions: H_s at given positions, and the keys and values branches are read on.

    Args:
        model, prompt_ids, prompt_mask, completion_ids, completion_mask, temperature: as in `answer_log_probs`.
        positions: (B, N) int, completion tokens s whose entropy is asked: that of the distribution that produced c_s.
        position_mask: (B, N) bool.
        keep_cache: False where no `branch_pass` follows.

    Returns:
        `PrefixPass`; only the N asked rows go through the LM head.

    Raises:
        ValueError: an empty prompt; with `keep_cache`, a model that branches cannot share or that returns no cache.
    """
    check_prompt(prompt_ids)
    if keep_cache and (reason := unsupported_reason(model)) is not None:
        raise ValueError(f'method="shared" cannot score this model exactly: {reason}. Use method="replay".')
    input_ids = torch.cat([prompt_ids, completion_ids], dim=1)
    prompt_lengths = prompt_mask.long().sum(-1)
    width, length = prompt_ids.shape[1], input_ids.shape[1]
    if keep_cache:
        # Left padding turned to the right is out of sight of causal attention, so that nothing need be masked and
        # attention takes its fastest kernel. Positions stay those of TRL: it passes none, so they count left padding.
        position_ids = torch.arange(length, device=input_ids.device) + (width - prompt_lengths)[:, None]
        position_ids = position_ids % length
        input_ids = input_ids.gather(1, position_ids)
        # Not DynamicCache(config=…): sliding layers would drop keys that branches at early boundaries still need.
        cache = DynamicCache()
        inputs = {"position_ids": position_ids, cache_argument(model): cache, "use_cache": True}
        attention_mask = torch.ones_like(input_ids)
        prompt_starts, completion_starts = torch.zeros_like(prompt_lengths), prompt_lengths
    else:
        cache = None
        inputs = {"use_cache": False}
        attention_mask = torch.cat([prompt_mask, completion_mask], dim=1).long()
        prompt_starts, completion_starts = width - prompt_lengths, torch.full_like(prompt_lengths, width)

    # c_s is predicted at the token before it.
    rows = flat_index(completion_starts[:, None] - 1 + positions, length)
    entropies = reduce_logits(
        lambda logits, _: entropies_of(logits, temperature),
        model,
        rows,
        position_mask,
        input_ids=input_ids,
        attention_mask=attention_mask,
        **inputs,
    )
    if cache is not None and cache.get_seq_length() != length:
        raise ValueError(
            f"The model cached {cache.get_seq_length()} of {length} tokens. In training mode, gradient "
            "checkpointing switches the cache off: disable it while scoring. For a model without a cache, use "
            'method="replay".'
        )
    return PrefixPass(entropies, cache, input_ids, prompt_starts, completion_starts, width)


def prefix_of_pass(
    starts: list[list[int]],
    prompt_width: int,
    input_ids: Tensor,
    attention_mask: Tensor,
    entropies: Tensor,
    cache: DynamicCache,
) -> PrefixPass:
    """
    What `branch_pass` needs, taken from a forward that somebody else ran over R prompts and completions.

    Args:
        starts: of each completion its candidate segment starts, where entropies are read.
        prompt_width: P, left padding included.
        input_ids, attention_mask: (R, P + L), prompts padded on the left, completions on the right.
        entropies: (R, L) nats: of the distribution that produced each completion token.
        cache: keys and values of the P + L tokens.
    """
    positions, position_mask = pad_rows(starts, input_ids.device)
    prompt_starts = prompt_width - attention_mask[:, :prompt_width].long().sum(dim=1)
    return PrefixPass(
        entropies=entropies.float().gather(1, positions).masked_fill(~position_mask, 0.0),
        cache=cache,
        input_ids=input_ids,
        prompt_starts=prompt_starts,
        completion_starts=torch.full_like(prompt_starts, prompt_width),
        prompt_width=prompt_width,
    )


@torch.no_grad()
def branch_pass(
    model: nn.Module,
    prefix: PrefixPass,
    boundaries: Tensor,
    boundary_mask: Tensor,
    answer_ids: Tensor,
    answer_mask: Tensor,
    scored_mask: Tensor | None = None,
    temperature: float = 1.0,
) -> Tensor:
    """
    J_t at every boundary from forwards over its answer alone, each answer on its own prefix (METHOD §8).

    One forward reads `BRANCHES_PER_PASS` boundaries of every row, so that ⌈M / `BRANCHES_PER_PASS`⌉ are run.

    A branch reads the token before its boundary once more and then the answer but for its last token, so that all
    its log-probabilities come from this pass. `prefix` stays as it was.

    Args:
        prefix: of the same model, with its cache.
        model, boundaries, boundary_mask, answer_ids, answer_mask, scored_mask, temperature: as in `answer_log_probs`.

    Returns:
        (B, M) float32, as `answer_log_probs`.

    Raises:
        ValueError: `prefix` has no cache.
    """
    if prefix.cache is None:
        raise ValueError("branch_pass needs the keys and values of the prefix: call prefix_pass with keep_cache=True.")
    answer_ids, answer_mask, scored_mask = per_boundary(boundary_mask, answer_ids, answer_mask, scored_mask)
    branches, length = answer_ids.shape[1:]
    if branches == 0:
        return torch.zeros(boundaries.shape, device=boundaries.device)
    boundaries = boundaries.masked_fill(~boundary_mask, 0)
    # Where each branch begins in the cache: at the token before its boundary, which it reads again.
    starts = prefix.completion_starts[:, None] + boundaries - 1
    input_ids = torch.cat([prefix.input_ids.gather(1, starts)[..., None], answer_ids[..., :-1]], dim=-1)
    position_ids = prefix.prompt_width + boundaries[..., None] - 1 + torch.arange(length, device=boundaries.device)
    # Padding must not reach past the end of a learned table of positions.
    position_ids[..., 1:] *= answer_mask[..., :-1]

    # A mask has a row for each token of a branch: with the branches of a forward its size is bounded. How many
    # forwards that makes depends on M alone, and none reads keys from behind the last of its branches.
    parts = [slice(first, first + BRANCHES_PER_PASS) for first in range(0, branches, BRANCHES_PER_PASS)]
    lengths = [prefix.input_ids.shape[1]]
    if len(parts) > 1:
        lengths = torch.stack([starts[:, part].max().clamp(min=1) for part in parts]).tolist()
    results = []
    for part, prefix_length in zip(parts, lengths, strict=True):
        ids, scored = answer_ids[:, part], scored_mask[:, part]
        log_probs = reduce_logits(
            lambda logits, kept, ids=ids: log_probs_of(logits, ids.flatten()[kept], temperature),
            model,
            torch.arange(ids.numel(), device=ids.device).view_as(ids),
            scored,
            input_ids=input_ids[:, part].flatten(1),
            attention_mask=branch_attention_mask(model, prefix.prompt_starts, starts[:, part], length, prefix_length),
            position_ids=position_ids[:, part].flatten(1),
            use_cache=True,
            **{cache_argument(model): read_only(prefix.cache, prefix_length)},
        )
        results.append(log_probs.sum(-1) / scored.sum(-1).clamp(min=1))
    return torch.cat(results, dim=1)
