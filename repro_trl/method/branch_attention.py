"""What lets several answers be scored on one prefix: a model in the right mode, a cache that branches share, masks."""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from accelerate.utils import extract_model_from_parallel, is_peft_model
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedConfig
from transformers.cache_utils import DynamicLayer

# Attention implementations that take a mask of any shape. Flash and flex attention only know causal ones or their own.
_MASKED_ATTENTION = ("eager", "sdpa")
# Layers whose memory of the past is the keys and values of single tokens, so that a mask can cut it at any token.
_MASKED_LAYERS = {"full_attention", "sliding_attention"}
# These count positions from the first real token, but only where no position ids are given; TRL gives none.
_POSITIONS_FROM_MASK = {"biogpt", "opt"}
# These put a causal mask of their own, by key index, on top of the mask they are given.
_OWN_MASKS = {"gpt_neo", "moshi"}
# Rotary embeddings that depend on the length of the sequence being read: a longer prefix turns its keys otherwise.
_LENGTH_DEPENDENT_ROPE = {"dynamic", "longrope"}


def unsupported_reason(model: nn.Module) -> str | None:
    """
    Why answers cannot be scored exactly on one shared prefix of this model (METHOD §8), as a sentence fragment; None
    where `method="shared"` is exact.
    """
    model = unwrap(model)
    if is_peft_model(model):
        if model.active_peft_config.is_prompt_learning:
            return f"PEFT's {model.active_peft_config.peft_type.value} puts its own tokens before the prompt"
        model = model.get_base_model()
    config = model.config.get_text_config()

    attention = config._attn_implementation
    if attention not in _MASKED_ATTENTION:
        return f"attention implementation {attention!r} does not support a mask per branch (eager and sdpa do)"
    if config.is_encoder_decoder:
        return "it is an encoder-decoder"
    if model._is_stateful:
        return "it keeps a recurrent state instead of keys and values"
    layer_types = _layer_types(config)
    if layer_types - _MASKED_LAYERS:
        return (
            f"layers of type {', '.join(sorted(layer_types - _MASKED_LAYERS))} cannot be cut at a boundary by a mask"
        )
    if not getattr(config, "is_causal", True):
        return "its attention is bidirectional"
    if getattr(config, "num_kv_shared_layers", 0):
        return "several of its layers share one cache of keys and values"
    if config.model_type in _OWN_MASKS:
        return f"{config.model_type} builds its own attention masks"
    if config.model_type in _POSITIONS_FROM_MASK:
        return f"{config.model_type} counts positions from the attention mask"
    if getattr(config, "alibi", False) or "position_ids" not in inspect.signature(type(model).forward).parameters:
        return "position ids cannot be passed to it"
    rope_types = _rope_types(getattr(config, "rope_parameters", None) or {})
    if rope_types & _LENGTH_DEPENDENT_ROPE:
        return f"rotary embeddings of type {', '.join(sorted(rope_types))} depend on the length of the sequence"
    return None


def unwrap(model: nn.Module) -> nn.Module:
    """The model without distributed wrappers, to read its settings; only the wrapped one may be called."""
    return extract_model_from_parallel(model, keep_torch_compile=False)


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
    base = without_adapters(model)
    chosen = base.config.get_text_config()._attn_implementation
    if "flash" not in chosen and chosen != "flex_attention":
        yield
        return
    base.set_attn_implementation("sdpa" if base._supports_sdpa else "eager")
    try:
        yield
    finally:
        base.set_attn_implementation(chosen)


def cache_argument(model: nn.Module) -> str:
    """The argument of `forward` for keys and values: `past_key_values`, or `cache` from transformers 5.24 on."""
    # By its signature: a model with code of its own on the Hub keeps the old name.
    names = inspect.signature(type(without_adapters(model)).forward).parameters
    return "cache" if "cache" in names else "past_key_values"


def without_adapters(model: nn.Module) -> nn.Module:
    """The model without distributed wrappers and PEFT."""
    model = unwrap(model)
    return model.get_base_model() if is_peft_model(model) else model


def _layer_types(config: PreTrainedConfig) -> set[str]:
    """The kinds of attention layers, in transformers' names."""
    layer_types = getattr(config, "layer_types", None)
    if layer_types is not None:
        return set(layer_types)
    # Without a list of kinds every layer is of the same one, and transformers tells it by these attributes.
    if getattr(config, "sliding_window", None) is not None:
        return {"sliding_attention"}
    if getattr(config, "attention_chunk_size", None) is not None:
        return {"chunked_attention"}
    return {"full_attention"}


def _rope_types(rope_parameters: dict) -> set[str]:
    """The types of rotary embeddings; models with several kinds of layers nest one set of parameters per kind."""
    nested = [value for value in rope_parameters.values() if isinstance(value, dict)]
    return {parameters.get("rope_type", "default") for parameters in nested or [rope_parameters]}


class _ReadOnlyLayer(DynamicLayer):
    """A cache layer that shows new keys and values to the attention without keeping them."""

    def __init__(self, layer: DynamicLayer, length: int) -> None:
        super().__init__()
        self.keys, self.values = layer.keys[..., :length, :], layer.values[..., :length, :]
        # Not from the layer: transformers 5.24 keeps no dtype there.
        self.dtype, self.device = self.keys.dtype, self.keys.device
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args, **kwargs) -> tuple[Tensor, Tensor]:
        return torch.cat([self.keys, key_states], dim=-2), torch.cat([self.values, value_states], dim=-2)


def read_only(cache: DynamicCache, length: int) -> DynamicCache:
    """
    A view of the first `length` tokens of `cache`, for branches.

    It costs no memory, and leaves the prefix as it was for the next branch pass.
    """
    view = DynamicCache()
    view.layers = [_ReadOnlyLayer(layer, length) for layer in cache.layers]
    return view


def branch_attention_mask(
    model: nn.Module, prefix_starts: Tensor, starts: Tensor, branch_length: int, prefix_length: int
) -> Tensor | dict[str, Tensor]:
    """
    Attention mask of branches that leave one prefix at different tokens.

    Branch m reads `branch_length` tokens of its own from sequence index `starts[:, m]` on. It sees the prefix between
    `prefix_starts` and that index, itself causally, and no other branch. Every query sees at least itself, so no
    softmax is empty.

    Args:
        model: causal language model for which `unsupported_reason` is None.
        prefix_starts: (B,) int, sequence index of the prefix's first real token.
        starts: (B, M) int, sequence index of each branch's first token; all tokens between are real.
        branch_length: tokens per branch, A.
        prefix_length: tokens of the prefix, K.

    Returns:
        (B, 1, M·A, K + M·A), bool for sdpa and additive in the model's dtype for eager; models that mix full and
        sliding layers get a dict with one such mask per kind.
    """
    model = unwrap(model)
    config = model.config.get_text_config()
    batch, branches = starts.shape
    queries = branches * branch_length
    offset = torch.arange(branch_length, device=starts.device)
    same_branch = torch.eye(branches, dtype=torch.bool, device=starts.device)[:, None, :, None]
    key = torch.arange(prefix_length, device=starts.device)

    def build(window: int | None) -> Tensor:
        start = starts[:, :, None, None]
        prefix = ((key >= prefix_starts[:, None, None, None]) & (key < start)).expand(-1, -1, branch_length, -1)
        own = offset[None, :] <= offset[:, None]
        if window is not None:
            prefix = prefix & (key > start + offset[:, None] - window)
            own = own & (offset[None, :] > offset[:, None] - window)
        own = (same_branch & own[:, None, :]).reshape(1, queries, queries).expand(batch, -1, -1)
        mask = torch.cat([prefix.reshape(batch, queries, prefix_length), own], dim=-1).unsqueeze(1)
        if config._attn_implementation == "eager":
            return torch.zeros_like(mask, dtype=model.dtype).masked_fill_(~mask, torch.finfo(model.dtype).min)
        return mask

    windows = {kind: config.sliding_window if kind == "sliding_attention" else None for kind in _layer_types(config)}
    masks = {kind: build(window) for kind, window in windows.items()}
    # Models with layers of one kind hand a 4-D mask to all of them; only models that mix kinds take a dict.
    return masks if len(masks) > 1 else masks.popitem()[1]
