"""Sampling from the study's tiny models, faster than `generate` and with the same probabilities.

At this size `generate` spends its time on everything but arithmetic, and a study samples most of the time. Here keys
and values lie in one tensor per layer, projections of one input are one product, and completions that have ended
leave the batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn.functional import linear, scaled_dot_product_attention, silu
from transformers import GenerationConfig, Qwen3ForCausalLM
from transformers.models.qwen3.modeling_qwen3 import Qwen3DecoderLayer


@dataclass(frozen=True)
class _Joined:
    """Linear maps of one input, applied as one.

    A single row takes another kernel, whose rounding depends on the width: there each map is applied alone.
    """

    parts: Sequence[Tensor]
    whole: Tensor

    @classmethod
    def of(cls, *parts: Tensor) -> Self:
        return cls(parts, torch.cat(parts))

    def __call__(self, x: Tensor) -> Tensor:
        if len(x) == 1:
            return torch.cat([linear(x, part) for part in self.parts], dim=-1)
        return linear(x, self.whole)


class _Layer:
    """A decoder layer for one token per row: (N, H) → (N, H)."""

    def __init__(self, layer: Qwen3DecoderLayer, keys: Tensor, values: Tensor, epsilon: float) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        self.keys, self.values, self.epsilon = keys, values, epsilon
        self.num_queries = attention.q_proj.out_features // attention.head_dim
        self.num_rotated = self.num_queries + keys.shape[1]
        self.project = _Joined.of(attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight)
        # The norms of queries and keys, one weight for each head.
        self.head_norm = torch.cat(
            [
                attention.q_norm.weight.expand(self.num_queries, -1),
                attention.k_norm.weight.expand(keys.shape[1], -1),
            ]
        )
        self.gate_and_up = _Joined.of(mlp.gate_proj.weight, mlp.up_proj.weight)
        self.norm, self.mlp_norm = layer.input_layernorm.weight, layer.post_attention_layernorm.weight
        self.output, self.down = attention.o_proj.weight, mlp.down_proj.weight

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows only."""
        self.keys, self.values = self.keys[rows], self.values[rows]

    def __call__(self, x: Tensor, place: int, mask: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        projected = self.project(_norm(x, self.norm, self.epsilon)).view(len(x), -1, self.keys.shape[3])
        rotated = _norm(projected[:, : self.num_rotated], self.head_norm, self.epsilon)
        first, second = rotated.chunk(2, dim=-1)
        rotated = rotated * cosine + torch.cat([-second, first], dim=-1) * sine
        self.keys[:, :, place] = rotated[:, self.num_queries :]
        self.values[:, :, place] = projected[:, self.num_rotated :]
        attended = scaled_dot_product_attention(
            rotated[:, : self.num_queries].unsqueeze(2),
            self.keys[:, :, : place + 1],
            self.values[:, :, : place + 1],
            attn_mask=mask,
            enable_gqa=True,
        )
        x = x + linear(attended.reshape(len(x), -1), self.output)
        gate, up = self.gate_and_up(_norm(x, self.mlp_norm, self.epsilon)).chunk(2, dim=-1)
        return x + linear(silu(gate) * up, self.down)


def _norm(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    return weight * (x * (x.pow(2).mean(-1, keepdim=True) + epsilon).rsqrt())


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
    layers = []
    for layer, cache in zip(model.model.layers, start.past_key_values.layers, strict=True):
        shape = (*cache.keys.shape[:2], total, cache.keys.shape[3])
        keys, values = cache.keys.new_zeros(shape), cache.values.new_zeros(shape)
        keys[:, :, :prompt_length], values[:, :, :prompt_length] = cache.keys, cache.values
        layers.append(_Layer(layer, keys, values, model.config.rms_norm_eps))
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
            for layer in layers:
                layer.keep(alive)
            alive = alive[alive]
        logits = _step(model, layers, tokens, place, mask, cosines[place], sines[place])
    raise ValueError(f"max_new_tokens must be at least 1, got {max_new_tokens}.")


def _step(
    model: Qwen3ForCausalLM,
    layers: list[_Layer],
    tokens: Tensor,
    place: int,
    mask: Tensor,
    cosine: Tensor,
    sine: Tensor,
) -> Tensor:
    """One token per row through the model: (N,) ids at position `place` → (N, V) logits; fills the caches there."""
    seen = mask[:, None, None, : place + 1]
    x = model.model.embed_tokens.weight[tokens]
    for layer in layers:
        x = layer(x, place, seen, cosine, sine)
    return linear(_norm(x, model.model.norm.weight, model.config.rms_norm_eps), model.lm_head.weight)


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
