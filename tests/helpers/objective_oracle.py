"""The proxy objective (METHOD §3) of one unpadded row at a time, and batches to compare it on."""

from contextlib import contextmanager

import torch
from tiny_models import ARCHITECTURES
from torch import Tensor, nn
from transformers import PreTrainedModel

from repro_trl.method.objective import METHODS, answer_log_probs

VOCAB_SIZE = 61
TOLERANCE = {"rtol": 0, "atol": 1e-4}
# Gemma 2 caps attention logits, which transformers' sdpa refuses.
MODELS = [
    (architecture, attention)
    for architecture in ARCHITECTURES
    for attention in ("sdpa", "eager")
    if (architecture, attention) != ("gemma2", "sdpa")
]


def ragged_batch(
    seed: int = 0, rows: int = 4, prompt: int = 6, length: int = 24, boundaries: int = 6, answer: int = 5
) -> dict[str, Tensor]:
    """Row 0 fills every shape; the others are shorter in each, down to one prompt token and no boundary."""
    generator = torch.Generator().manual_seed(seed)

    def left_aligned(width: int, least: int) -> Tensor:
        sizes = torch.randint(least, width + 1, (rows, 1), generator=generator)
        sizes[0] = width
        return torch.arange(width) < sizes

    def tokens(mask: Tensor) -> Tensor:
        return torch.randint(2, VOCAB_SIZE, mask.shape, generator=generator) * mask

    prompt_mask, completion_mask = left_aligned(prompt, 1).flip(1), left_aligned(length, 1)
    boundary_mask, answer_mask = left_aligned(boundaries, 0), left_aligned(answer, 1)
    lengths = completion_mask.sum(1, keepdim=True)
    places = (torch.rand(boundary_mask.shape, generator=generator) * (lengths + 1)).long()
    places[:, :1] = 0
    places[:, 1:2] = lengths
    return {
        "prompt_ids": tokens(prompt_mask),
        "prompt_mask": prompt_mask,
        "completion_ids": tokens(completion_mask),
        "completion_mask": completion_mask,
        "boundaries": places.sort(1).values * boundary_mask,
        "boundary_mask": boundary_mask,
        "answer_ids": tokens(answer_mask),
        "answer_mask": answer_mask,
    }


def prompts_and_completions(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: batch[name] for name in ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask")}


def answers(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in batch.items() if name not in prompts_and_completions(batch)}


@torch.no_grad()
def full_log_probs(model: nn.Module, token_ids: Tensor, first_position: int | None, temperature: float) -> Tensor:
    """(T, V) log-probabilities after each of T unpadded tokens, with no selection of rows."""
    inputs = {} if first_position is None else {"position_ids": first_position + torch.arange(len(token_ids))[None]}
    logits = model(input_ids=token_ids[None], use_cache=False, **inputs).logits
    return (logits[0, -len(token_ids) :].float() / temperature).log_softmax(-1)


def oracle(model: nn.Module, batch: dict[str, Tensor], temperature: float = 1.0, positions: bool = True) -> Tensor:
    """METHOD §3 word for word. TRL's positions count left padding, so row r's first token has the number of pads."""
    boundaries = batch["boundaries"]
    scored_mask = batch.get("scored_mask", batch["answer_mask"])
    result = torch.zeros(boundaries.shape)
    for row, t in batch["boundary_mask"].nonzero().tolist():
        prompt = batch["prompt_ids"][row][batch["prompt_mask"][row]]
        prefix = torch.cat([prompt, batch["completion_ids"][row, : boundaries[row, t]]])
        per_boundary = batch["answer_ids"].dim() == 3
        ids, mask, scored = (
            tensor[row, t] if per_boundary else tensor[row]
            for tensor in (batch["answer_ids"], batch["answer_mask"], scored_mask)
        )
        answer, scored = ids[mask], scored[mask]
        pads = batch["prompt_ids"].shape[1] - len(prompt) if positions else None
        log_probs = full_log_probs(model, torch.cat([prefix, answer]), pads, temperature)
        chosen = log_probs[len(prefix) - 1 : -1].gather(1, answer[:, None])[:, 0][scored]
        if len(chosen) > 0:
            result[row, t] = chosen.mean()
    return result


def assert_all_equal_oracle(model: nn.Module, batch: dict[str, Tensor], temperature: float = 1.0) -> None:
    expected = oracle(model, batch, temperature)
    for method in METHODS:
        actual = answer_log_probs(model, **batch, temperature=temperature, method=method)
        assert actual.dtype == torch.float32
        torch.testing.assert_close(actual, expected, **TOLERANCE, msg=lambda text, method=method: f"{method}: {text}")


@contextmanager
def counted(model: PreTrainedModel):
    """Counts calls of the model, the tokens it reads and the rows its LM head computes."""
    counts = {"calls": 0, "tokens": 0, "head_rows": 0}

    def count_call(module, args, kwargs, output):
        counts["calls"] += 1
        counts["tokens"] += kwargs["input_ids"].numel()

    def count_rows(module, args, output):
        counts["head_rows"] += output.shape[:-1].numel()

    handles = [
        model.register_forward_hook(count_call, with_kwargs=True),
        model.get_output_embeddings().register_forward_hook(count_rows),
    ]
    yield counts
    for handle in handles:
        handle.remove()
