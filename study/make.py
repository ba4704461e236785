"""Makes the starting policies of the tasks search and chain: a supervised warm-up on overthinking traces.

    PYTHONPATH=examples python -m study.make chain      # writes study/models/chain, minutes on one core

Everything is drawn from fixed seeds and computed on one thread, so the same machine and versions give the same bytes.
The search policy is made from nothing; that of chain from the digits policy, which knows sums of two digits. The
digits policy comes from `examples/pocket/make.py`, before it widens heads from 24 to 32. The study keeps a copy of its
own, so that results stay reproducible when the bundled model changes.
"""

import argparse
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pocket.make import CHAT_TEMPLATE, END, PAD, START, warm_up_batch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from . import chain, search
from .search import CHECKS, DEAD_END, FILLERS, RESTART, SIZE

MODELS_DIR = Path(__file__).parent / "models"
SEED = 0
BATCH_SIZE = 64


@dataclass(frozen=True)
class WarmUp:
    """How a starting policy is made.

    Attributes:
        base: folder of the model it is made from; `None`: from nothing.
        stages: number of steps and style of the traces, one stage after the other.
    """

    problems: Callable[[int, bool], Iterator[Any]]
    make_trace: Callable[[Any, random.Random, Any], tuple[list[str], str]]
    stages: tuple[tuple[int, Any], ...]
    base: Path | None = None
    learning_rate: float = 3e-3

    @property
    def num_steps(self) -> int:
        """Of all stages."""
        return sum(steps for steps, _ in self.stages)


WARM_UPS = {
    "search": WarmUp(
        problems=search.problems,
        make_trace=search.make_trace,
        # Faultless searches first, from which the moves are learned quickly.
        stages=((500, search.TraceStyle(clean=1, clean_slip=0, early=0)), (900, search.TraceStyle())),
    ),
    "chain": WarmUp(
        problems=chain.problems,
        make_trace=chain.make_trace,
        stages=((60, chain.TraceStyle(clean=1, clean_slip=0, early=0)), (300, chain.TraceStyle())),
        base=MODELS_DIR / "digits",
        learning_rate=2e-3,
    ),
}


def make_tokenizer() -> PreTrainedTokenizerFast:
    """That of search: byte-level BPE, so that every text decodes to itself; the words and signs of the task are one
    token each.
    """
    tokenizer = Tokenizer(models.BPE())
    phrases = "|".join(text.replace(".", r"\.") for text in (DEAD_END, *CHECKS, *FILLERS, RESTART))
    words = Regex(rf"\n\n|\\boxed\{{|{phrases}|Turn | into |\. Moves: |\d\d| [ab] |: |.|\n")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(words, "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    texts = ["Turn ", " into ", ". Moves: ", "\n\n\\boxed{", " a ", " b ", ": ", *FILLERS, *CHECKS, RESTART]
    texts += [DEAD_END, *(f"{number:02}" for number in range(SIZE))]
    trainer = trainers.BpeTrainer(
        vocab_size=1024,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[PAD, START, END],
        show_progress=False,
    )
    tokenizer.train_from_iterator([*texts, "user\n", "assistant\n"], trainer)
    tokenizer.add_tokens([AddedToken("<think>", normalized=False), AddedToken("</think>", normalized=False)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
        model_input_names=["input_ids", "attention_mask"],
    )


def make_model(
    tokenizer: PreTrainedTokenizerFast, hidden_size: int = 64, num_layers: int = 3, max_length: int = 512
) -> Qwen3ForCausalLM:
    """An untrained Qwen3, by default of about 0.2 million parameters."""
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        intermediate_size=3 * hidden_size,
        num_hidden_layers=num_layers,
        num_attention_heads=hidden_size // 16,
        num_key_value_heads=hidden_size // 16,
        head_dim=16,
        max_position_embeddings=max_length,
        rope_parameters={"rope_type": "default", "rope_theta": 100.0},  # texts are short: copying is learned sooner
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = Qwen3ForCausalLM(config)
    model.generation_config = GenerationConfig(
        do_sample=True, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    return model


def train(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, warm_up: WarmUp) -> None:
    """Supervised learning on fresh traces, stage by stage."""
    rng = random.Random(SEED)
    styles = [style for steps, style in warm_up.stages for _ in range(steps)]
    rate = warm_up.learning_rate
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.95), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=warm_up.num_steps, pct_start=0.05)
    model.train()
    started = time.monotonic()
    for step, style in enumerate(styles, start=1):
        batch = warm_up_batch(tokenizer, rng, BATCH_SIZE, style, warm_up.problems, warm_up.make_trace, max_length=None)
        loss = model(**{name: tensor.to(model.device) for name, tensor in batch.items()}).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % 20 == 0 or step == warm_up.num_steps:
            seconds = time.monotonic() - started
            print(f"step {step}/{warm_up.num_steps}  loss {loss.item():.3f}  {seconds:.0f} s", flush=True)
    model.eval()


def make(warm_up: WarmUp, output: Path) -> Qwen3ForCausalLM:
    """Make, warm up and save model and tokenizer. Sets torch to one thread and to deterministic algorithms."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(SEED)
    if warm_up.base is None:
        tokenizer = make_tokenizer()
        model = make_model(tokenizer)
    else:
        tokenizer = AutoTokenizer.from_pretrained(warm_up.base)
        model = AutoModelForCausalLM.from_pretrained(warm_up.base)
    print(f"{model.num_parameters():,} parameters, {len(tokenizer)} tokens", flush=True)
    train(model, tokenizer, warm_up)
    model.save_pretrained(output)
    tokenizer.save_pretrained(output)
    return model


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=WARM_UPS)
    parser.add_argument("--output", type=Path, help="default: study/models/TASK")
    options = parser.parse_args()
    make(WARM_UPS[options.task], options.output or MODELS_DIR / options.task)
