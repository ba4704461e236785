"""
METHOD §3 and §8: the proxy objective J, the answer's mean log-probability after the first tokens of a completion.

Two ways give the same J. `replay` runs one plain forward per boundary and is the reference to read. The shared way
runs two forwards whatever the number of boundaries: `prefix_pass` over prompt and completion keeps every key and value
(and reads the entropies that choose the boundaries), `branch_pass` reads all answers on that prefix at once.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from .branch_attention import branch_attention_mask, read_only, unsupported_reason, unwrap

METHODS = ("shared", "replay")

# Logits are reduced to one number per row in float32, this many elements at a time (64 MiB).
_CHUNK_ELEMENTS = 2**24


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


def answer_log_probs(
    model: nn.Module,
    prompt_ids: Tensor,
    prompt_mask: Tensor,
    completion_ids: Tensor,
    completion_mask: Tensor,
    boundaries: Tensor,
    boundary_mask: Tensor,
    answer_ids: Tensor,
    answer_mask: Tensor,
    scored_mask: Tensor | None = None,
    temperature: float = 1.0,
    method: str = "shared",
) -> Tensor:
    """
    J_t at every boundary (METHOD §3): mean log-probability of the answer right after the first b_t completion tokens.

    Shapes alone decide how often the model is called (shared: 2, replay: M, none if M = 0), so processes whose texts
    differ stay in step.

    Args:
        model: causal language model, possibly inside PEFT or a distributed wrapper. Its own forward is called.
        prompt_ids: (B, P) left-padded, P ≥ 1.
        prompt_mask: (B, P) bool, real tokens.
        completion_ids: (B, L) right-padded.
        completion_mask: (B, L) bool, real tokens; boundaries lie among or right after them.
        boundaries: (B, M) int, completion tokens before the answer, 0 ≤ b ≤ L.
        boundary_mask: (B, M) bool, left-aligned.
        answer_ids: (B, A), or (B, M, A) where the text differs by boundary; right-padded.
        answer_mask: real tokens, bool, shaped as `answer_ids`.
        scored_mask: tokens of the answer that are averaged, bool, shaped as `answer_ids`; default `answer_mask`.
        temperature: by which logits are divided.
        method: "shared" or "replay".

    Returns:
        (B, M) float32, nats per token, ≤ 0; 0 at masked boundaries and where no token is scored.

    Raises:
        ValueError: unknown method, a model that `method="shared"` cannot score exactly, or an empty prompt.
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {METHODS}, got {method!r}.")
    if boundaries.shape[1] == 0:
        return torch.zeros(boundaries.shape, device=boundaries.device)
    answers = (boundaries, boundary_mask, answer_ids, answer_mask, scored_mask)
    if method == "replay":
        return replay(model, prompt_ids, prompt_mask, completion_ids, completion_mask, *answers, temperature)
    # No branch reads past the last boundary.
    end = int(boundaries.masked_fill(~boundary_mask, 0).max())
    nowhere = boundaries[:, :0]
    prefix = prefix_pass(
        model,
        prompt_ids,
        prompt_mask,
        completion_ids[:, :end],
        completion_mask[:, :end],
        nowhere,
        nowhere.bool(),
        temperature,
    )
    return branch_pass(model, prefix, *answers, temperature)


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
    _check_prompt(prompt_ids)
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
        inputs = {"position_ids": position_ids, "past_key_values": cache, "use_cache": True}
        attention_mask = torch.ones_like(input_ids)
        prompt_starts, completion_starts = torch.zeros_like(prompt_lengths), prompt_lengths
    else:
        cache = None
        inputs = {"use_cache": False}
        attention_mask = torch.cat([prompt_mask, completion_mask], dim=1).long()
        prompt_starts, completion_starts = width - prompt_lengths, torch.full_like(prompt_lengths, width)

    # c_s is predicted at the token before it.
    rows = _flat_index(completion_starts[:, None] - 1 + positions, length)
    entropies = _at_rows(
        lambda logits, _: _entropies(logits, temperature),
        model,
        rows,
        position_mask,
        input_ids=input_ids,
        attention_mask=attention_mask,
        **inputs,
    )
    if cache is not None and cache.get_seq_length() != length:
        raise ValueError(
            f"The model cached {cache.get_seq_length()} of {length} tokens. In training mode gradient checkpointing "
            'switches the cache off: disable it while scoring. For a model without a cache use method="replay".'
        )
    return PrefixPass(entropies, cache, input_ids, prompt_starts, completion_starts, width)


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
    J_t at every boundary from one forward over M·A tokens per row, each answer on its own prefix (METHOD §8).

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
    answer_ids, answer_mask, scored_mask = _per_boundary(boundary_mask, answer_ids, answer_mask, scored_mask)
    batch, branches, length = answer_ids.shape
    if branches == 0:
        return torch.zeros(boundaries.shape, device=boundaries.device)
    boundaries = boundaries.masked_fill(~boundary_mask, 0)
    # Where each branch begins in the cache: at the token before its boundary, which it reads again.
    starts = prefix.completion_starts[:, None] + boundaries - 1
    input_ids = torch.cat([prefix.input_ids.gather(1, starts)[..., None], answer_ids[..., :-1]], dim=-1)
    position_ids = prefix.prompt_width + boundaries[..., None] - 1 + torch.arange(length, device=boundaries.device)
    # Padding must not reach past the end of a learned table of positions.
    position_ids[..., 1:] *= answer_mask[..., :-1]

    rows = torch.arange(answer_ids.numel(), device=answer_ids.device).view_as(answer_ids)
    log_probs = _at_rows(
        lambda logits, kept: _log_probs(logits, answer_ids.flatten()[kept], temperature),
        model,
        rows,
        scored_mask,
        input_ids=input_ids.view(batch, branches * length),
        attention_mask=branch_attention_mask(model, prefix.prompt_starts, starts, length, prefix.input_ids.shape[1]),
        position_ids=position_ids.view(batch, branches * length),
        past_key_values=read_only(prefix.cache),
        use_cache=True,
    )
    return log_probs.sum(-1) / scored_mask.sum(-1).clamp(min=1)


@torch.no_grad()
def replay(
    model: nn.Module,
    prompt_ids: Tensor,
    prompt_mask: Tensor,
    completion_ids: Tensor,
    completion_mask: Tensor,
    boundaries: Tensor,
    boundary_mask: Tensor,
    answer_ids: Tensor,
    answer_mask: Tensor,
    scored_mask: Tensor | None = None,
    temperature: float = 1.0,
) -> Tensor:
    """
    J_t at every boundary from one plain forward per boundary over prompt, first b_t completion tokens, and answer.

    The reference for the shared way, and the way for models that cannot share a prefix. Arguments, result and errors
    are those of `answer_log_probs`.
    """
    _check_prompt(prompt_ids)
    answer_ids, answer_mask, scored_mask = _per_boundary(boundary_mask, answer_ids, answer_mask, scored_mask)
    objectives = torch.zeros(boundaries.shape, device=boundaries.device)
    length = completion_ids.shape[1]
    for t in range(boundaries.shape[1]):
        boundary = boundaries[:, t, None].masked_fill(~boundary_mask[:, t, None], 0)
        answer, scored = answer_ids[:, t], scored_mask[:, t]
        # The answer replaces what the completion holds after the boundary; one column of padding follows it.
        width = int((boundary + answer_mask[:, t].sum(-1, keepdim=True)).max())
        index = torch.arange(width, device=boundary.device)
        source = torch.where(index < boundary, index, length + index - boundary).clamp(max=length + answer.shape[1])
        text_ids = torch.cat([completion_ids, nn.functional.pad(answer, (0, 1))], dim=1).gather(1, source)
        text_mask = torch.cat([completion_mask.bool(), nn.functional.pad(answer_mask[:, t], (0, 1))], dim=1)
        text_mask = text_mask.gather(1, source)
        input_ids = torch.cat([prompt_ids, text_ids], dim=1)

        before_answer = prompt_ids.shape[1] - 1 + boundary
        rows = _flat_index(before_answer + torch.arange(answer.shape[1], device=boundary.device), input_ids.shape[1])
        log_probs = _at_rows(
            lambda logits, kept, answer=answer: _log_probs(logits, answer.flatten()[kept], temperature),
            model,
            rows,
            scored,
            input_ids=input_ids,
            attention_mask=torch.cat([prompt_mask.bool(), text_mask], dim=1).long(),
            use_cache=False,
        )
        objectives[:, t] = log_probs.sum(-1) / scored.sum(-1).clamp(min=1)
    return objectives


def _check_prompt(prompt_ids: Tensor) -> None:
    if prompt_ids.shape[1] == 0:
        raise ValueError("prompt_ids has no tokens: the first token of an answer or completion needs one before it.")


def _per_boundary(
    boundary_mask: Tensor, answer_ids: Tensor, answer_mask: Tensor, scored_mask: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Answers as (B, M, A) with A ≥ 1; only real tokens at real boundaries are scored."""
    scored_mask = answer_mask if scored_mask is None else scored_mask
    # Batches without any answer must call the model as the others do.
    width = max(answer_ids.shape[-1], 1)
    answers = []
    for tensor in (answer_ids, answer_mask.bool(), scored_mask.bool()):
        tensor = nn.functional.pad(tensor, (0, width - tensor.shape[-1]))
        answers.append(tensor if tensor.dim() == 3 else tensor[:, None].expand(-1, boundary_mask.shape[1], -1))
    answer_ids, answer_mask, scored_mask = answers
    return answer_ids, answer_mask, scored_mask & answer_mask & boundary_mask[..., None]


def _flat_index(index: Tensor, length: int) -> Tensor:
    """(B, N) indices into rows of `length` tokens → the same tokens' indices into the flattened batch."""
    return index + length * torch.arange(index.shape[0], device=index.device)[:, None]


def _at_rows(
    reduce: Callable[[Tensor, Tensor], Tensor], model: nn.Module, rows: Tensor, wanted: Tensor, **inputs
) -> Tensor:
    """
    Call the model and reduce its logits, computed for the wanted rows only, to one number each.

    Args:
        reduce: from logits (R, V) and the flat indices (R,) of the wanted entries to (R,).
        rows: any shape, index into the flattened (batch · sequence) tokens of the call.
        wanted: bool, shape of `rows`.

    Returns:
        float32, shape of `rows`, 0 where not wanted.
    """
    kept = wanted.flatten().nonzero().squeeze(-1)
    result = torch.zeros(wanted.shape, device=wanted.device)
    # The LM head always gets a row: empty tensors are not safe under every backend.
    read = rows.flatten()[kept] if len(kept) > 0 else torch.zeros(1, dtype=torch.long, device=wanted.device)
    base = unwrap(model)
    # A mixture of experts would compute its balancing loss, which does not know masks per branch.
    if getattr(base.config.get_text_config(), "output_router_logits", False):
        inputs["output_router_logits"] = False

    length = inputs["input_ids"].shape[1]

    def keep_rows(_: nn.Module, args: tuple[Tensor]) -> tuple[Tensor]:
        (hidden_states,) = args
        # PEFT's prompt tuning puts virtual tokens before those that it is given.
        virtual = hidden_states.shape[1] - length
        index = read + virtual * (read // length + 1)
        return (hidden_states.flatten(0, 1)[index.to(hidden_states.device)].unsqueeze(0),)

    hook = base.get_output_embeddings().register_forward_pre_hook(keep_rows)
    try:
        logits = model(**inputs).logits
    finally:
        hook.remove()
    if logits.shape[:2] != (1, len(read)):
        raise ValueError(
            f"{type(base).__name__} does not call its output embeddings, so its logits cannot be selected."
        )
    if len(kept) > 0:
        result.view(-1)[kept] = reduce(logits[0], kept).to(result.device)
    return result


def _log_probs(logits: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """(R, V) logits, (R,) token ids → (R,) float32 log-probabilities."""
    parts = zip(_chunks(logits), targets.to(logits.device).split(_chunk_rows(logits)), strict=True)
    return torch.cat(
        [
            -nn.functional.cross_entropy(_scaled(chunk, temperature), target, reduction="none")
            for chunk, target in parts
        ]
    )


def _entropies(logits: Tensor, temperature: float) -> Tensor:
    """
    (R, V) logits → (R,) float32, nats.

    H = Σ p (m − x) − log max p, m the largest logit: two fused passes, where −Σ p log p takes a logarithm per token.
    """
    entropies = []
    for chunk in _chunks(logits):
        scaled = _scaled(chunk, temperature)
        probabilities = scaled.softmax(-1)
        # A forbidden token, logit −∞, adds nothing; below −200 no probability is left in float32.
        below_largest = (scaled - scaled.amax(-1, keepdim=True)).clamp_(min=-200.0)
        entropies.append(-torch.linalg.vecdot(probabilities, below_largest) - probabilities.amax(-1).log())
    return torch.cat(entropies)


def _scaled(logits: Tensor, temperature: float) -> Tensor:
    logits = logits.float()
    return logits if temperature == 1.0 else logits / temperature


def _chunk_rows(logits: Tensor) -> int:
    return max(_CHUNK_ELEMENTS // logits.shape[-1], 1)


def _chunks(logits: Tensor) -> tuple[Tensor, ...]:
    return logits.split(_chunk_rows(logits))
