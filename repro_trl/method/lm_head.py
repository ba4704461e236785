"""The LM head at the tokens that are read, and no others: their log-probabilities and entropies, in float32."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from .branch_attention import unwrap

# Logits are reduced to one number per row in float32, this many elements at a time (64 MiB).
_CHUNK_ELEMENTS = 2**24


def reduce_logits(
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


def log_probs_of(logits: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """(R, V) logits, (R,) token ids → (R,) float32 log-probabilities."""
    targets = targets.to(logits.device).split(_chunk_rows(logits))
    parts = zip(_scaled_chunks(logits, temperature), targets, strict=True)
    return torch.cat([-nn.functional.cross_entropy(scaled, target, reduction="none") for scaled, target in parts])


def entropies_of(logits: Tensor, temperature: float) -> Tensor:
    """
    (R, V) logits → (R,) float32, nats.

    H = Σ p (m − x) − log max p, m the largest logit: two fused passes, where −Σ p log p takes a logarithm per token.
    """
    entropies = []
    for scaled in _scaled_chunks(logits, temperature):
        probabilities = scaled.softmax(-1)
        # A forbidden token, logit −∞, adds nothing; below −200 no probability is left in float32.
        below_largest = (scaled - scaled.amax(-1, keepdim=True)).clamp_(min=-200.0)
        entropies.append(-torch.linalg.vecdot(probabilities, below_largest) - probabilities.amax(-1).log())
    return torch.cat(entropies)


def _scaled_chunks(logits: Tensor, temperature: float) -> Iterator[Tensor]:
    for chunk in logits.split(_chunk_rows(logits)):
        yield chunk.float() if temperature == 1.0 else chunk.float() / temperature


def _chunk_rows(logits: Tensor) -> int:
    return max(_CHUNK_ELEMENTS // logits.shape[-1], 1)
