"""The bundled model, taught in seconds to close its thoughts in another way."""

import random
from pathlib import Path
from typing import Any

import torch
from pocket.traces import THINK_END, TraceStyle, make_trace
from transformers import AutoModelForCausalLM, AutoTokenizer

from repro_trl.demo import MODEL_DIR
from repro_trl.demo.task import problems

OTHER_MARKER = "[/THINK]"
# What stands between the last segment and the answer's digits.
CLOSINGS = {
    "text between": "</think>\n\nSo \\boxed{",
    "none": "</think>\\boxed{",
    "another marker": f"{OTHER_MARKER}\n\\boxed{{",
}
STEPS, ROWS = 100, 24


def _tokenizer_for(closing: str, path: Path) -> Any:
    """The bundled model's tokenizer, whose end-of-thinking marker is named as in `closing`."""
    tokenizer = AutoTokenizer.from_pretrained(MODEL_DIR)
    if THINK_END in closing:
        return tokenizer
    tokenizer.save_pretrained(path)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        text = (path / file).read_text(encoding="utf-8")
        (path / file).write_text(text.replace(THINK_END, OTHER_MARKER), encoding="utf-8")
    return AutoTokenizer.from_pretrained(path)


def save_closing_policy(closing: str, path: Path) -> str:
    """Fine-tune on traces that end with `closing` and the answer, save model and tokenizer, return the path."""
    torch.manual_seed(0)
    rng = random.Random(0)
    tokenizer = _tokenizer_for(closing, path)
    model = AutoModelForCausalLM.from_pretrained(MODEL_DIR)
    # Slow enough that the policy keeps what it knows of sums: some of its answers must be right.
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=STEPS)
    source = problems(5, held_out=False)
    for _ in range(STEPS):
        rows = []
        for problem, _ in zip(source, range(ROWS), strict=False):
            segments, ending = make_trace(problem, rng, TraceStyle())
            digits = ending.rpartition("{")[2]
            prompt = tokenizer.apply_chat_template(
                [{"role": "user", "content": problem.text}], add_generation_prompt=True, tokenize=False
            )
            # Thoughts that are broken off ask for the answer in the same way.
            text = "".join(segments) + closing + digits + tokenizer.eos_token
            prompt_ids, ids = (tokenizer(part, add_special_tokens=False)["input_ids"] for part in (prompt, text))
            rows.append((prompt_ids, ids[: 240 - len(prompt_ids)]))
        width = max(len(prompt) + len(ids) for prompt, ids in rows)
        input_ids = torch.full((ROWS, width), tokenizer.pad_token_id)
        labels = torch.full_like(input_ids, -100)
        for index, (prompt, ids) in enumerate(rows):
            input_ids[index, : len(prompt) + len(ids)] = torch.tensor(prompt + ids)
            labels[index, len(prompt) : len(prompt) + len(ids)] = torch.tensor(ids)
        mask = (torch.arange(width) < torch.tensor([len(prompt) + len(ids) for prompt, ids in rows])[:, None]).long()
        model(input_ids=input_ids, attention_mask=mask, labels=labels).loss.backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return str(path)
