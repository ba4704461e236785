"""Makes the pocket model and its tokenizer from nothing: a supervised warm-up on traces that overthink.

    cd examples && python -m pocket.make            # writes pocket/model, a few minutes on one core
    cd examples && python -m pocket.make --output /tmp/model

Everything is drawn from fixed seeds and computed on one thread, so the same machine and versions give the same bytes.
The weights in `pocket/model` come from this script. There is no pre-training: the model sees nothing but the task.
"""

import argparse
import copy
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from repro_trl.demo.task import eval_dataset, problems

from .evaluate import evaluate, format_table
from .traces import FILLERS, RECHECKS, RESTART, TraceStyle, make_trace

MODEL_DIR = Path(__file__).parent / "model"
SEED = 0
CLEAN_STEPS = 300
OVERTHINKING_STEPS = 900
BATCH_SIZE = 48
LEARNING_RATE = 3e-3
MAX_LENGTH = 256
HEAD_DIM = 32
"""Size of the saved model's heads: the smallest that vLLM's attention runs on a CPU."""

PAD, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n<think>\\n' }}{% endif %}"
)


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE, so that every text decodes to itself; the words and signs of the task are one token each, and so
    is every digit. `<think>` and `</think>` are tokens, but not special: decoding keeps them.
    """
    tokenizer = Tokenizer(models.BPE())
    words = Regex(r"\n\n|\\boxed\{|[A-E]: | = | ; |[A-Za-z]{2,}[,.]? ?|\d|.|\n")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(words, "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    problem = next(problems(SEED, held_out=False)).text
    texts = [problem, "A: B: C: D: E:  =  \n\n\\boxed{", *FILLERS, *RECHECKS, RESTART]
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


def make_model(tokenizer: PreTrainedTokenizerFast) -> Qwen3ForCausalLM:
    """An untrained Qwen3 of about 0.34 million parameters."""
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=96,
        intermediate_size=256,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=24,
        max_position_embeddings=1024,
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


def warm_up_batch(
    tokenizer: PreTrainedTokenizerFast,
    rng: random.Random,
    size: int,
    style: Any,
    make_problems: Callable[[int, bool], Iterator[Any]] = problems,
    make_trace: Callable[[Any, random.Random, Any], tuple[list[str], str]] = make_trace,
    max_length: int | None = MAX_LENGTH,
) -> dict[str, torch.Tensor]:
    """`input_ids`, `attention_mask`, `labels`, each (size, T) and padded on the right; the prompt is not learned."""
    prompts, completions = [], []
    for problem, _ in zip(make_problems(rng.getrandbits(32), False), range(size), strict=False):
        segments, ending = make_trace(problem, rng, style)
        messages = [{"role": "user", "content": problem.text}]
        prompts.append(tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False))
        completions.append("".join(segments) + ending + END)
    prompt_ids = tokenizer(prompts, add_special_tokens=False)["input_ids"]
    completion_ids = tokenizer(completions, add_special_tokens=False)["input_ids"]
    rows = [(p + c)[:max_length] for p, c in zip(prompt_ids, completion_ids, strict=True)]
    input_ids = torch.full((size, max(map(len, rows))), tokenizer.pad_token_id)
    labels = torch.full_like(input_ids, -100)
    attention_mask = torch.zeros_like(input_ids)
    for index, (row, prompt) in enumerate(zip(rows, prompt_ids, strict=True)):
        input_ids[index, : len(row)] = torch.tensor(row)
        labels[index, len(prompt) : len(row)] = torch.tensor(row[len(prompt) :])
        attention_mask[index, : len(row)] = 1
    return {"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels}


def warm_up(
    model: Qwen3ForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    clean_steps: int = CLEAN_STEPS,
    overthinking_steps: int = OVERTHINKING_STEPS,
) -> None:
    """Supervised learning on fresh traces: first faultless ones, from which the sums are learned quickly, then the
    overthinking mix that the starting policy is to imitate.
    """
    rng = random.Random(SEED)
    steps = clean_steps + overthinking_steps
    faultless, overthinking = TraceStyle(clean=1, clean_slip=0, early=0), TraceStyle()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.95), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps, pct_start=0.05)
    model.train()
    started = time.monotonic()
    for step in range(1, steps + 1):
        style = faultless if step <= clean_steps else overthinking
        loss = model(**warm_up_batch(tokenizer, rng, BATCH_SIZE, style)).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % 100 == 0 or step == steps:
            print(f"step {step}/{steps}  loss {loss.item():.3f}  {time.monotonic() - started:.0f} s", flush=True)
    model.eval()


def widen_heads(model: Qwen3ForCausalLM, head_dim: int) -> Qwen3ForCausalLM:
    """The same function with larger heads: projections get zeros, norms and RoPE are adjusted to them.

    Args:
        head_dim: even, at least that of `model`.
    """
    old, half = model.config.head_dim, model.config.head_dim // 2
    config = copy.deepcopy(model.config)
    config.head_dim = head_dim
    # RoPE turns pair i by position · theta^(-2i / head_dim): the pairs that were there keep their frequencies.
    config.rope_parameters["rope_theta"] **= head_dim / old
    # RoPE pairs component i with component i + head_dim / 2.
    places = torch.cat([torch.arange(half), head_dim // 2 + torch.arange(half)])
    weights = model.state_dict()
    for name, weight in weights.items():
        if name.endswith(("q_proj.weight", "k_proj.weight", "v_proj.weight")):
            wide = weight.new_zeros(weight.shape[0] // old, head_dim, weight.shape[1])
            wide[:, places] = weight.view(-1, old, weight.shape[1])
            weights[name] = wide.flatten(0, 1)
        elif name.endswith("o_proj.weight"):
            wide = weight.new_zeros(weight.shape[0], weight.shape[1] // old, head_dim)
            wide[:, :, places] = weight.view(weight.shape[0], -1, old)
            weights[name] = wide.flatten(1)
        elif name.endswith(("q_norm.weight", "k_norm.weight")):
            # A norm over more components, of which the new ones are 0, gives sqrt(head_dim / old) times as much, and
            # attention divides the product of two by sqrt(head_dim).
            wide = weight.new_zeros(head_dim)
            wide[places] = weight * (old / head_dim) ** 0.25
            weights[name] = wide
    wider = Qwen3ForCausalLM(config)
    wider.load_state_dict(weights)
    wider.generation_config = model.generation_config
    return wider.eval()


def make(
    output: Path = MODEL_DIR, clean_steps: int = CLEAN_STEPS, overthinking_steps: int = OVERTHINKING_STEPS
) -> Qwen3ForCausalLM:
    """Make, warm up, widen and save model and tokenizer. Sets torch to one thread and to deterministic algorithms."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(SEED)
    tokenizer = make_tokenizer()
    model = make_model(tokenizer)
    print(f"{model.num_parameters():,} parameters, {len(tokenizer)} tokens", flush=True)
    warm_up(model, tokenizer, clean_steps, overthinking_steps)
    model = widen_heads(model, HEAD_DIM)
    model.save_pretrained(output)
    tokenizer.save_pretrained(output)
    return model


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=MODEL_DIR)
    options = parser.parse_args()
    made = make(options.output)
    print(format_table({"warm-up": evaluate(made, make_tokenizer(), eval_dataset(512))}))
