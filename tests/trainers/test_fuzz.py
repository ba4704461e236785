"""Random completions from boundaries to advantages: whatever a policy writes, credit is finite and in its place."""

import random

import pytest
import tiny_tokenizers
import torch
from datasets import Dataset
from pocket.make import make_tokenizer
from tiny_models import tiny_model
from tiny_runs import settings, token_reward

from repro_trl import ReproGRPOConfig, ReproGRPOTrainer
from repro_trl.method.completions import CompletionReader
from repro_trl.trainers.hook import Rollout

ROWS, LENGTH, PROMPT = 100, 48, 7  # completions per batch, their tokens, those of prompts
TOKENIZERS = {
    "pocket": make_tokenizer,
    "byte level": tiny_tokenizers.byte_level_tokenizer,
    "sentencepiece": lambda: tiny_tokenizers.sentencepiece_tokenizer(think_end=True),
    "unigram": tiny_tokenizers.unigram_tokenizer,
    "wordpiece": tiny_tokenizers.wordpiece_tokenizer,
}
PIECES = (
    *("\n\n", "\n", "\n\n\n", "\r\n\r\n", " \n \n ", ".\n\n", "\n\n " * 3),
    *("</think>", "</think>\n\n", "\n\n</think>", "</thi", "nk>", "</think></think>", "<think>"),
    *("😀", "👩‍👩‍👧\n\n", "é", "四十二。\n\n", "\u200b", "\x00", "\ufffd", "\u2028\u2029", "ﷺ"),
    *("\\boxed{42}", "\\boxed{", "}", "A: 3+4 = 7", "wait, ", "<|im_end|>", "<eos>", "<pad>", ""),
)


def random_completion(tokenizer, rng: random.Random) -> list[int]:
    """Between 1 and `LENGTH` tokens."""
    kind = rng.randrange(5)
    if kind == 0:
        ids = tokenizer.encode(
            rng.randbytes(rng.randint(1, 60)).decode(rng.choice(["utf-8", "utf-16", "latin-1"]), "replace")
        )
    elif kind == 1:
        ids = rng.choices(range(len(tokenizer)), k=rng.randint(1, LENGTH))
    elif kind == 2:
        ids = tokenizer.encode(rng.choice(PIECES) * rng.randint(1, 30))
    else:
        ids = tokenizer.encode("".join(rng.choices(PIECES, k=rng.randint(1, 20))))
    if rng.random() < 0.1:
        ids = ids * LENGTH  # cut at the maximum length below, anywhere in a text
    return ids[:LENGTH] or [tokenizer.eos_token_id]


def random_rollout(tokenizer, rng: random.Random) -> Rollout:
    completion_ids = torch.zeros(ROWS, LENGTH, dtype=torch.long)
    completion_mask, tool_mask = torch.zeros_like(completion_ids), torch.ones_like(completion_ids)
    for row in range(ROWS):
        ids = random_completion(tokenizer, rng)
        completion_ids[row, : len(ids)] = torch.tensor(ids)
        completion_mask[row, : len(ids)] = rng.random() > 0.05  # truncated ones are masked as a whole
        first = rng.randint(0, LENGTH)
        tool_mask[row, first : first + rng.choice([0, 0, 5, LENGTH])] = 0
    prompt_mask = (torch.arange(PROMPT).flip(0) < torch.randint(1, PROMPT + 1, (ROWS, 1))).long()
    answers = ["42", "\\boxed{\\frac{1}{2}}", "", None, "x" * 30, "四十二", "#### 7", "\n\n", "</think>"]
    batch = {
        "prompt_ids": torch.randint(3, len(tokenizer), prompt_mask.shape) * prompt_mask,
        "prompt_mask": prompt_mask,
        "completion_ids": completion_ids,
        "completion_mask": completion_mask,
        "advantages": torch.randn(ROWS),
    }
    if rng.random() < 0.5:
        batch["tool_mask"] = tool_mask
    return Rollout(
        examples=[{"prompt": "", "solution": rng.choice(answers)} for _ in range(ROWS)],
        batch=batch,
        rewards_per_func=torch.zeros(ROWS, 1),
        groups=torch.arange(ROWS) // 4,
    )


SETTINGS = {
    "repro_scale": ["group", "batch", "none"],
    "repro_top_k": [1, 3, 40],
    "repro_think_end": ["</think>", None, "\n"],
    "repro_delimiter": ["\n\n", "\n", " ", "</think>", "wait"],
    "repro_answer_prefix": ["", "\n</think>\n\n", " so "],
    "repro_ema_weight": [None, 0.01, 1.0],
    "repro_stability_weight": [0.0, 0.1, 1.0],
}


@pytest.mark.parametrize("completions", [300, pytest.param(2_200, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", TOKENIZERS)
def test_credit_is_finite_and_in_its_place(tmp_path, name, completions):
    tokenizer = TOKENIZERS[name]()
    torch.manual_seed(0)
    rng = random.Random(name)
    trainer = ReproGRPOTrainer(
        tiny_model("qwen3", vocab_size=len(tokenizer)),
        token_reward,
        ReproGRPOConfig(**settings(tmp_path, per_device_train_batch_size=ROWS, repro_alpha=1.0)),
        Dataset.from_dict({"prompt": ["a"], "solution": ["1"]}),
        processing_class=tokenizer,
    )
    with_credit = 0
    for _ in range(completions // ROWS):
        for setting, values in SETTINGS.items():
            setattr(trainer.args, setting, rng.choice(values))
        trainer._scorer.reader = CompletionReader(tokenizer, trainer.args, trainer.segment_starts)
        rollout = random_rollout(tokenizer, rng)
        with torch.no_grad():
            trainer._before_rollout(rollout.examples)
            total = trainer._compute_advantages(rollout)
        assert total.shape == (ROWS, LENGTH) and total.isfinite().all()
        assert not total[~rollout.policy_mask].any()
        process = (total - rollout.batch["advantages"][:, None]) * rollout.policy_mask
        has_answer = torch.tensor([bool((example["solution"] or "").strip()) for example in rollout.examples])
        assert not process[~has_answer].any()
        with_credit += process.any(1).sum().item()
    assert with_credit > completions // 3
    for values in trainer._metrics["train"].values():
        assert len(values) == completions // ROWS
