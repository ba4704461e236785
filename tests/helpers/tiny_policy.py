"""A tiny random policy on disk, with the tokenizer and the chat template of the pocket task."""

from pathlib import Path

from pocket.make import make_tokenizer
from tiny_models import tiny_model


def save_tiny_policy(path: Path, **overrides) -> str:
    """Save model and tokenizer; returns the path. About half of its completions of 24 tokens end by themselves."""
    tokenizer = make_tokenizer()
    model = tiny_model("qwen3", vocab_size=len(tokenizer), **overrides)
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, *range(10, 20)]
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return str(path)
