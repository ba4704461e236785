"""`find_segment_starts` on long completions."""

import random
from typing import Any

from machine import medians, words_and_blank_line
from transformers import AutoTokenizer

from repro_trl.demo import MODEL_DIR
from repro_trl.method.segments import find_segment_starts

COMPLETIONS, LENGTH = 64, 32768


def measure_segments(repeats: int) -> list[dict[str, Any]]:
    """64 completions of 32k tokens, one in 32 a blank line."""
    tokenizer = AutoTokenizer.from_pretrained(MODEL_DIR)
    rng = random.Random(0)
    words, blank = words_and_blank_line(tokenizer)
    completions = [
        [token for _ in range(LENGTH // 32) for token in (*rng.choices(words, k=32 - len(blank)), *blank)]
        for _ in range(COMPLETIONS)
    ]
    find_segment_starts(tokenizer, completions[0])  # the table of the tokenizer is made once

    def search() -> None:
        for ids in completions:
            find_segment_starts(tokenizer, ids)

    value = medians({"search": search}, repeats)["search"]
    print(f"{COMPLETIONS} × {LENGTH} tokens: {value:.3f} s", flush=True)
    return [{"case": f"{COMPLETIONS} × {LENGTH}", "seconds": {"search": round(value, 4)}, "ratios": {}}]
