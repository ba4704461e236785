"""How completions are drawn; without the libraries that draw them, so that `--help` reads this at once."""

import argparse
import hashlib
import math
from dataclasses import dataclass
from typing import Any, Literal

Backend = Literal["vllm", "transformers"]


@dataclass(frozen=True)
class Sampling:
    """
    How completions are drawn; the defaults are the paper's.

    Attributes:
        temperature: 0 is greedy.
        top_p: probability mass that is kept, in (0, 1].
        max_new_tokens: after which a completion is cut.
        seed: of all completions.
        batch_size: completions that are sampled together.
        delimiter: text between the segments of a thought.
        think_end: text that ends the thought; `None`: all of a completion is thought.

    Raises:
        ValueError: a value out of range.
    """

    temperature: float = 0.6
    top_p: float = 0.95
    max_new_tokens: int = 32768
    seed: int = 0
    batch_size: int = 64
    delimiter: str = "\n\n"
    think_end: str | None = "</think>"

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < math.inf:
            raise ValueError(f"temperature={self.temperature}: give 0 (greedy) or more.")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p={self.top_p}: give a number above 0 and at most 1.")
        for name in ("max_new_tokens", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: give 1 or more.")
        if not self.delimiter or self.think_end == "":
            raise ValueError("delimiter and think_end must not be empty; think_end may be None.")


def completion_seed(*parts: Any) -> int:
    """Seed of one completion, in [0, 2^63), made from what tells it from others: numbers, texts, lists of them."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "big") >> 1


@dataclass(frozen=True)
class VllmSettings:
    """
    Of vLLM's engine, named as in TRL's `GRPOConfig` without its prefix. A value out of range raises a `ValueError`.

    Attributes:
        gpu_memory_utilization: share of a GPU's memory that the engine takes, in (0, 1]; `None`: vLLM's own default.
        max_model_length: tokens of prompt and completion together; `None`: what the model was made for.
        tensor_parallel_size: GPUs, and under a launcher processes, that hold one model together.
    """

    gpu_memory_utilization: float | None = None
    max_model_length: int | None = None
    tensor_parallel_size: int = 1

    def __post_init__(self) -> None:
        share = self.gpu_memory_utilization
        if share is not None and not 0 < share <= 1:
            raise ValueError(f"vllm_gpu_memory_utilization={share}: give a number above 0 and at most 1.")
        for name in ("max_model_length", "tensor_parallel_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"vllm_{name}={value}: give 1 or more.")


_VLLM_ARGUMENTS = (
    ("gpu_memory_utilization", float, "SHARE", "Share of a GPU's memory for weights and cache. Default: vLLM's own."),
    ("max_model_length", int, "TOKENS", "Maximum length of prompt plus completion. Default: that of the model."),
    ("tensor_parallel_size", int, "N", "GPUs that share one model. Default: %(default)s."),
)


def add_vllm_arguments(parser: argparse.ArgumentParser) -> None:
    """Settings of vLLM's engine, with the names that TRL gives them."""
    group = parser.add_argument_group("vLLM")
    for name, kind, metavar, text in _VLLM_ARGUMENTS:
        default = getattr(VllmSettings, name)
        group.add_argument(f"--vllm_{name}", type=kind, default=default, metavar=metavar, help=text)
