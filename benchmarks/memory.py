"""Peak memory of scoring one completion, against TRL's own pass for log-probabilities plus its keys and values."""

from collections.abc import Iterable
from typing import Any

import torch
from machine import PROMPT, make_model, make_rollouts, peak_bytes
from trl.trainer.utils import add_fused_lm_head

from repro_trl.method.measure import score_rows

LENGTHS = (1024, 4096, 8192, 16384, 32768)
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def measure_memory(lengths: Iterable[int], k: int = 10) -> list[dict[str, Any]]:
    """One row of results per length and dtype."""
    return [_measure(length, dtype, k) for dtype in DTYPES for length in lengths]


def _measure(length: int, dtype: str, k: int) -> dict[str, Any]:
    model = make_model("small", dtype=DTYPES[dtype])
    config = model.config
    batch, rows = make_rollouts(1, length, config.vocab_size)
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)
    mask = torch.ones_like(ids)
    labels = ids.clone()
    labels[:, :PROMPT] = -100
    scoring = peak_bytes(lambda: score_rows(model, batch, rows, k, k + 2, 1.0, "shared"))

    @torch.no_grad()
    def bare_pass() -> None:
        model.model(ids, use_cache=False)

    bare = peak_bytes(bare_pass)

    add_fused_lm_head(model, outputs=("log_probs", "entropy"))

    @torch.no_grad()
    def trl_pass() -> None:
        model(input_ids=ids, attention_mask=mask, labels=labels, fused_lm_head=True)

    stock = peak_bytes(trl_pass)
    head_size = config.num_key_value_heads * config.head_dim
    cache = 2 * config.num_hidden_layers * head_size * ids.numel() * DTYPES[dtype].itemsize
    sizes = {"TRL": stock, "bare pass": bare, "keys and values": cache, "RePro": scoring}
    references = {"TRL": stock + cache, "bare pass": bare + cache}
    ratios = {f"RePro / ({name} + keys and values)": round(scoring / size, 3) for name, size in references.items()}
    text = " | ".join(f"{name} {value / 2**20:.1f} MiB" for name, value in sizes.items())
    print(f"{dtype}, {length} tokens: {text}", *(f"{key} {ratio:.2f}" for key, ratio in ratios.items()), sep=" | ")
    return {
        "case": f"{dtype}, {length}",
        "dtype": dtype,
        "length": length,
        "peak_mib": {name: round(value / 2**20, 1) for name, value in sizes.items()},
        "ratios": ratios,
    }
