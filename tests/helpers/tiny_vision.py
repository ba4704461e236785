"""Tiny random vision-language policies on disk, their processors, and rows with images, all made on the spot."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from tiny_tokenizers import byte_level_tokenizer
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    CLIPImageProcessorPil,
    Gemma3ImageProcessorPil,
    Gemma3Processor,
    LlavaProcessor,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    ProcessorMixin,
    Qwen2VLImageProcessorPil,
    Qwen2VLProcessor,
)

IMAGE, IMAGE_START, IMAGE_END, VIDEO = "<|image_pad|>", "<|vision_start|>", "<|vision_end|>", "<|video_pad|>"

_LAYERS = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "initializer_range": 0.3,
}
_TEXT = {
    **_LAYERS,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": 1,
}


def _chat_template(image: str) -> str:
    """For messages whose content is a list of texts and images."""
    return (
        "{% for message in messages %}<|{{ message['role'] }}|>\n"
        "{% for part in message['content'] %}"
        "{% if part['type'] == 'image' %}" + image + "{% else %}{{ part['text'] }}{% endif %}"
        "{% endfor %}\n{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
    )


def _gemma3(tokenizer: PreTrainedTokenizerBase) -> tuple[dict[str, Any], ProcessorMixin]:
    """`token_type_ids`; attention in both directions within an image; sliding windows."""
    config = {
        "text_config": {
            **_TEXT,
            "query_pre_attn_scalar": 8,
            "layer_types": ["sliding_attention", "full_attention"],
            "sliding_window": 64,
            "vocab_size": len(tokenizer),
        },
        "vision_config": {**_LAYERS, "image_size": 16, "patch_size": 4},
        "mm_tokens_per_image": 4,
        "image_token_index": tokenizer.convert_tokens_to_ids(IMAGE),
        "boi_token_index": tokenizer.convert_tokens_to_ids(IMAGE_START),
        "eoi_token_index": tokenizer.convert_tokens_to_ids(IMAGE_END),
    }
    processor = Gemma3Processor(
        Gemma3ImageProcessorPil(size={"height": 16, "width": 16}),
        tokenizer,
        chat_template=_chat_template(IMAGE_START),
        image_seq_length=4,
    )
    return config, processor


class _ImageQwenProcessor(Qwen2VLProcessor):
    """Without its half for videos, which needs torchvision."""

    def __init__(self, image_processor: Any = None, tokenizer: Any = None, chat_template: str | None = None) -> None:
        self.image_token, self.image_token_id = IMAGE, tokenizer.convert_tokens_to_ids(IMAGE)
        ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=chat_template)


def _qwen2_5_vl(tokenizer: PreTrainedTokenizerBase) -> tuple[dict[str, Any], ProcessorMixin]:
    """`mm_token_type_ids`; positions in three dimensions; images of several sizes, told apart by `image_grid_thw`."""
    config = {
        "text_config": {
            **_TEXT,
            "vocab_size": len(tokenizer),
            "rope_parameters": {"rope_type": "default", "mrope_section": [2, 1, 1], "rope_theta": 1e4},
        },
        "vision_config": {
            "depth": 2,
            "hidden_size": 32,
            "out_hidden_size": 32,
            "intermediate_size": 48,
            "num_heads": 4,
            "patch_size": 4,
            "window_size": 16,
            "fullatt_block_indexes": [1],
            "initializer_range": 0.3,
        },
        "image_token_id": tokenizer.convert_tokens_to_ids(IMAGE),
        "video_token_id": tokenizer.convert_tokens_to_ids(VIDEO),
        "vision_start_token_id": tokenizer.convert_tokens_to_ids(IMAGE_START),
        "vision_end_token_id": tokenizer.convert_tokens_to_ids(IMAGE_END),
    }
    processor = _ImageQwenProcessor(
        Qwen2VLImageProcessorPil(patch_size=4, size={"shortest_edge": 8 * 8, "longest_edge": 32 * 32}),
        tokenizer,
        chat_template=_chat_template(IMAGE_START + IMAGE + IMAGE_END),
    )
    return config, processor


def _llava(tokenizer: PreTrainedTokenizerBase) -> tuple[dict[str, Any], ProcessorMixin]:
    """No token types: an image is told by its tokens alone."""
    config = {
        "text_config": {**_TEXT, "model_type": "llama", "vocab_size": len(tokenizer)},
        "vision_config": {
            **_LAYERS,
            "model_type": "clip_vision_model",
            "image_size": 8,
            "patch_size": 4,
            "projection_dim": 32,
        },
        "image_token_id": tokenizer.convert_tokens_to_ids(IMAGE),
        "vision_feature_select_strategy": "default",
        "vision_feature_layer": -1,
    }
    processor = LlavaProcessor(
        CLIPImageProcessorPil(size={"height": 8, "width": 8}, do_center_crop=False),
        tokenizer,
        patch_size=4,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=_chat_template(IMAGE),
        image_token=IMAGE,
    )
    return config, processor


_MAKERS: dict[str, Callable[[PreTrainedTokenizerBase], tuple[dict[str, Any], ProcessorMixin]]] = {
    "gemma3": _gemma3,
    "qwen2_5_vl": _qwen2_5_vl,
    "llava": _llava,
}
FAMILIES = tuple(_MAKERS)


def make_processor(family: str) -> ProcessorMixin:
    """The processor of a family in `FAMILIES`."""
    return _make(family)[1]


def save_tiny_vision_policy(family: str, path: Path) -> str:
    """Save a model of a family in `FAMILIES`, in float32, without its processor; returns the path."""
    config, _ = _make(family)
    torch.manual_seed(0)
    model = AutoModelForImageTextToText.from_config(AutoConfig.for_model(family, **config), dtype=torch.float32)
    if family == "gemma3":  # starts with a projection of zeros, which would hide its images
        torch.nn.init.normal_(model.model.multi_modal_projector.mm_input_projection_weight, std=0.3)
    model.save_pretrained(path)
    return str(path)


def _make(family: str) -> tuple[dict[str, Any], ProcessorMixin]:
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=byte_level_tokenizer(vocab_size=300).backend_tokenizer,
        pad_token="<pad>",
        eos_token="<eos>",
        unk_token="<unk>",
        padding_side="left",
        extra_special_tokens={
            "image_token": IMAGE,
            "boi_token": IMAGE_START,
            "eoi_token": IMAGE_END,
            "video_token": VIDEO,
        },
    )
    return _MAKERS[family](tokenizer)


def random_image(seed: int, height: int = 16, width: int = 16) -> Image.Image:
    """An image of noise."""
    pixels = torch.randint(256, (height, width, 3), generator=torch.Generator().manual_seed(seed))
    return Image.fromarray(pixels.to(torch.uint8).numpy())
