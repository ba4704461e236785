"""Tiny random causal language models, made on the spot."""

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

_COMMON = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": 1,
    # Far from uniform: the default range gives nearly the same log-probability everywhere and hides mistakes.
    "initializer_range": 0.3,
}
_GROUPED = {"num_key_value_heads": 2, "head_dim": 8}
_EXPERTS = {"num_experts_per_tok": 2, "output_router_logits": True}
_WINDOW = 5

ARCHITECTURES: dict[str, dict] = {
    "llama": _GROUPED,
    "qwen2": {"num_key_value_heads": 2},
    "qwen3": _GROUPED,
    "qwen3_sliding": {
        **_GROUPED,
        "model_type": "qwen3",
        "use_sliding_window": True,
        "sliding_window": _WINDOW,
        "layer_types": ["sliding_attention", "full_attention"],
    },
    "mistral": {**_GROUPED, "sliding_window": _WINDOW},
    "gemma2": {**_GROUPED, "sliding_window": _WINDOW, "query_pre_attn_scalar": 8},
    "gemma3": {
        **_GROUPED,
        "model_type": "gemma3_text",
        "sliding_window": _WINDOW,
        "query_pre_attn_scalar": 8,
        "layer_types": ["sliding_attention", "full_attention"],
    },
    "gpt_neox": {"rotary_pct": 0.5},
    "gpt2": {},
    "mixtral": {**_GROUPED, **_EXPERTS, "num_local_experts": 4},
    "qwen3_moe": {**_GROUPED, **_EXPERTS, "num_experts": 4, "moe_intermediate_size": 16},
}


def tiny_model(
    architecture: str, attn_implementation: str = "sdpa", vocab_size: int = 61, seed: int = 0, **overrides
) -> PreTrainedModel:
    """A float32 model of two layers in evaluation mode. `overrides` go to its config; sliding windows are 5 tokens."""
    settings = {**_COMMON, "vocab_size": vocab_size, **ARCHITECTURES[architecture], **overrides}
    model_type = settings.pop("model_type", architecture)
    config = AutoConfig.for_model(model_type, **settings)
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(
        config, attn_implementation=attn_implementation, dtype=torch.float32
    ).eval()
