"""Sampling from the study's tiny models, faster than `generate` and with the same probabilities.

At this size `generate` spends its time on everything but arithmetic, and a study samples most of the time. Here keys
and values lie in one tensor per layer, and completions that have ended leave the batch.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import GenerationConfig, Qwen3ForCausalLM


@torch.no_grad()
def sample(model: Qwen3ForCausalLM, input_ids: Tensor, attention_mask: Tensor, max_new_tokens: int) -> Tensor:
    """Sample at temperature 1 until the end-of-sequence token. Draws from torch's global generator.

    On an accelerator this is `generate`: there, and for larger models, it is not slow.

    Args:
        input_ids, attention_mask: (B, P), padded on the left, on the CPU; so is what is returned.

    Returns:
        (B, P + T) with T ≤ `max_new_tokens`, padded on the right.
    """
    eos, pad = model.config.eos_token_id, model.config.pad_token_id
    if model.device.type != "cpu":
        settings = GenerationConfig(
            do_sample=True, top_k=0, max_new_tokens=max_new_tokens, eos_token_id=eos, pad_token_id=pad
        )
        prompts = {"input_ids": input_ids.to(model.device), "attention_mask": attention_mask.to(model.device)}
        return model.generate(**prompts, generation_config=settings).cpu()
    count, prompt_length = input_ids.shape
    total = prompt_length + max_new_tokens
    output = torch.full((count, total), pad)
    output[:, :prompt_length] = input_ids
    mask = torch.ones(count, total, dtype=torch.bool)
    mask[:, :prompt_length] = attention_mask.bool()

    start = model(input_ids=input_ids, attention_mask=attention_mask, use_cache=True, logits_to_keep=1)
    caches = []
    for layer in start.past_key_values.layers:
        shape = (*layer.keys.shape[:2], total, layer.keys.shape[3])
        keys, values = layer.keys.new_zeros(shape), layer.values.new_zeros(shape)
        keys[:, :, :prompt_length], values[:, :, :prompt_length] = layer.keys, layer.values
        caches.append((keys, values))
    cosines, sines = (table[0] for table in model.model.rotary_emb(start.logits, torch.arange(total).unsqueeze(0)))

    logits = start.logits[:, -1]
    rows, alive = torch.arange(count), torch.ones(count, dtype=torch.bool)
    for place in range(prompt_length, total):
        tokens = torch.multinomial(logits.softmax(dim=-1), 1).squeeze(1)
        output[rows[alive], place] = tokens[alive]
        alive &= tokens != eos
        if place + 1 == total or not alive.any():
            return output[:, : place + 1]
        # Leaving costs a copy of all keys and values: completions that have ended wait until several have.
        if alive.sum() < 0.8 * len(rows):
            rows, tokens, mask = rows[alive], tokens[alive], mask[alive]
            caches = [(keys[alive], values[alive]) for keys, values in caches]
            alive = alive[alive]
        logits = _step(model, tokens, place, caches, mask, cosines[place], sines[place])
    raise ValueError(f"max_new_tokens must be at least 1, got {max_new_tokens}.")


def _step(
    model: Qwen3ForCausalLM,
    tokens: Tensor,
    place: int,
    caches: list[tuple[Tensor, Tensor]],
    mask: Tensor,
    cosine: Tensor,
    sine: Tensor,
) -> Tensor:
    """One token per row through the model: (N,) ids at position `place` → (N, V) logits; fills the caches there."""

    def rotate(x: Tensor) -> Tensor:  # (N, heads, head_dim)
        first, second = x.chunk(2, dim=-1)
        return x * cosine + torch.cat([-second, first], dim=-1) * sine

    count, seen = len(tokens), mask[:, None, None, : place + 1]
    x = model.model.embed_tokens(tokens)
    for layer, (keys, values) in zip(model.model.layers, caches, strict=True):
        attention, head_dim = layer.self_attn, keys.shape[3]
        normed = layer.input_layernorm(x)
        queries = rotate(attention.q_norm(attention.q_proj(normed).view(count, -1, head_dim)))
        keys[:, :, place] = rotate(attention.k_norm(attention.k_proj(normed).view(count, -1, head_dim)))
        values[:, :, place] = attention.v_proj(normed).view(count, -1, head_dim)
        attended = scaled_dot_product_attention(
            queries.unsqueeze(2), keys[:, :, : place + 1], values[:, :, : place + 1], attn_mask=seen, enable_gqa=True
        )
        x = x + attention.o_proj(attended.reshape(count, -1))
        x = x + layer.mlp(layer.post_attention_layernorm(x))
    return model.lm_head(model.model.norm(x))


def use_in(model: Qwen3ForCausalLM) -> None:
    """Make `model.generate` sample with this module, for a trainer that samples at temperature 1 from all tokens."""

    def generate(
        input_ids: Tensor, attention_mask: Tensor, generation_config: GenerationConfig, **kwargs: Any
    ) -> Tensor:
        settings = generation_config
        if not settings.do_sample or settings.temperature != 1 or settings.top_k or settings.top_p not in (None, 1):
            raise ValueError("the study's sampler knows sampling at temperature 1 from all tokens only")
        return sample(model, input_ids, attention_mask, settings.max_new_tokens)

    model.generate = generate
