"""The policy that the study of the real model starts from: SmolLM2 after a short warm-up on written-out thoughts.

Without it one completion in twenty is right: the model wanders off, and seldom boxes its answer.
"""

import random
import shutil
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from .problems import prompt_of, sample_problems, written_out

STEPS = 16
BATCH_SIZE = 6
LEARNING_RATE = 1.5e-4
SEED = 1


def make_policy(source: Path, folder: Path, device: str = "cpu", steps: int = STEPS) -> None:
    """Warm the model in `source` up and save it to `folder`, which appears whole or not at all."""
    torch.manual_seed(SEED)
    tokenizer = AutoTokenizer.from_pretrained(source)
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32).to(device)
    warm_up(model, tokenizer, steps)
    work = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(work, ignore_errors=True)  # what a killed run left
    model.save_pretrained(work)
    tokenizer.save_pretrained(work)
    work.rename(folder)


def warm_up(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, steps: int) -> None:
    """Supervised learning of thoughts, each once; the learning rate falls to 0."""
    rng = random.Random(SEED)
    problems = sample_problems(steps * BATCH_SIZE, SEED, held_out=False)
    rng.shuffle(problems)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    model.train()
    for step in range(steps):
        rows = [
            [*prompt_of(problem), {"role": "assistant", "content": written_out(problem, rng)}]
            for problem in problems[step * BATCH_SIZE : (step + 1) * BATCH_SIZE]
        ]
        loss = _loss(model, tokenizer, rows)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        print(f"warm-up, step {step + 1} of {steps}: loss {loss.item():.3f}", flush=True)
    model.eval()


def _loss(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: list[list[dict[str, str]]]
) -> torch.Tensor:
    """Cross-entropy of what the assistant writes, its end-of-turn token included."""
    ids, labels = [], []
    for messages in rows:
        prompt = tokenizer.apply_chat_template(messages[:1], add_generation_prompt=True, return_dict=True)["input_ids"]
        answer = [*tokenizer.encode(messages[1]["content"], add_special_tokens=False), tokenizer.eos_token_id]
        ids.append(torch.tensor(prompt + answer))
        labels.append(torch.tensor([-100] * len(prompt) + answer))
    pad = torch.nn.utils.rnn.pad_sequence
    # Padding is on the right, so that no token of a row sees it.
    input_ids = pad(ids, batch_first=True, padding_value=tokenizer.pad_token_id).to(model.device)
    targets = pad(labels, batch_first=True, padding_value=-100).to(model.device)
    # Logits of the prompts are not needed.
    first = min(int((row != -100).nonzero()[0]) for row in labels)
    logits = model(input_ids=input_ids, logits_to_keep=input_ids.shape[1] - first + 1).logits
    return torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), targets[:, first:].flatten())
