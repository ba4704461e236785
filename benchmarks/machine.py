"""What all benchmarks share: the models and rollouts they run on, clocks, peak memory, and the name of the machine."""

import datetime
import gc
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
import transformers
import trl
from transformers import PreTrainedTokenizerBase, Qwen3Config, Qwen3ForCausalLM

from repro_trl.method.completions import AnswerTokens, ScoringRow

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
PROMPT = 128
# `\boxed{42}` under tokenizers that split digits: "\", "boxed", "{", "4", "2", "}", and one more for longer answers.
ANSWER = 7
# One token in 32 starts a segment.
SEGMENT = 32

MODELS = {
    # name: layers, width, vocabulary. The LM head is to the rest about as in Qwen3-1.7B and R1-Distill-Qwen-1.5B.
    "small": (4, 128, 2048),
    "medium": (8, 256, 8192),
}


def make_model(name: str, vocabulary: int | None = None, dtype: torch.dtype = torch.float32) -> Qwen3ForCausalLM:
    """A Qwen3 of random weights, in evaluation mode."""
    layers, width, default_vocabulary = MODELS[name]
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=vocabulary or default_vocabulary,
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=layers,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=width // 8,
        max_position_embeddings=40960,
        tie_word_embeddings=False,
        attn_implementation="sdpa",
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=1,
    )
    return Qwen3ForCausalLM(config).to(DEVICE, dtype).eval()


def make_rollouts(
    rows: int, length: int, vocabulary: int, segment: int = SEGMENT
) -> tuple[dict[str, torch.Tensor], list[ScoringRow]]:
    """Prompts of up to `PROMPT` tokens and completions of `length`, all thinking, with their segment starts."""
    generator = torch.Generator().manual_seed(1)
    batch = {
        "prompt_ids": torch.randint(2, vocabulary, (rows, PROMPT), generator=generator),
        "prompt_mask": torch.ones(rows, PROMPT, dtype=torch.long),
        "completion_ids": torch.randint(2, vocabulary, (rows, length), generator=generator),
        "completion_mask": torch.ones(rows, length, dtype=torch.long),
    }
    for row in range(rows):  # prompts differ in length, as they do
        batch["prompt_mask"][row, : 8 * row] = 0
    answer = AnswerTokens(list(range(2, 2 + ANSWER)), [True] * ANSWER)
    scoring_rows = [
        ScoringRow(row, list(range(segment, length, segment)), length, answer, answer) for row in range(rows)
    ]
    return {name: tensor.to(DEVICE) for name, tensor in batch.items()}, scoring_rows


def words_and_blank_line(tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """Tokens of which a thought may consist, and those of a blank line."""
    ends = {tokenizer.convert_tokens_to_ids("</think>"), *tokenizer.all_special_ids}
    words = [i for i in range(len(tokenizer)) if i not in ends and "\n" not in tokenizer.decode([i])]
    return words, tokenizer.encode("\n\n", add_special_tokens=False)


def seconds(run: Callable[[], Any]) -> float:
    """Time of one call. On a CPU the process's own time, summed over threads: other processes do not count."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
        started = time.perf_counter()
        run()
        torch.cuda.synchronize()
        return time.perf_counter() - started
    started = time.process_time()
    run()
    return time.process_time() - started


def medians(runs: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median seconds of each, run in turn (A B C A B C …), so that a drift of the machine's speed meets all alike."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            times[name].append(seconds(run))
    return {name: statistics.median(values) for name, values in times.items()}


def peak_bytes(run: Callable[[], Any]) -> int:
    """Largest number of bytes in tensors that were allocated during a call and not yet freed."""
    gc.collect()
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        run()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        run()
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    current = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        current += event.nbytes()
        peak = max(peak, current)
    return peak


def describe() -> dict[str, Any]:
    """The machine, the versions and the date, to be kept with results."""
    return {
        "date": datetime.date.today().isoformat(),
        "device": torch.cuda.get_device_name() if DEVICE.type == "cuda" else _cpu_name(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "trl": trl.__version__,
    }


def _cpu_name() -> str:
    with open("/proc/cpuinfo") as lines:
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]} ({len(names)} cores)" if names else platform.machine()
