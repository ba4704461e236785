"""
Completions of a model, with vLLM where it is installed and with transformers otherwise.

Every completion has random numbers of its own, made from the seed, its problem and its number. So it does not depend
on what else is sampled, nor on how many processes share the work, up to the rounding of the model's arithmetic in
batches of another shape; and work is cut into the same batches whatever was done before, so that a run that was
interrupted repeats the same arithmetic too.
"""

import hashlib
import importlib.util
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)

from ..method.segments import find_segment_starts
from ..pretrained import load_model, load_tokenizer
from ..thinking import count_backtracks, thinking_text
from .records import Key, Sample
from .rows import Problem
from .settings import Sampling

Backend = Literal["vllm", "transformers"]


@dataclass(frozen=True)
class Generation:
    """Token ids of a completion, its end-of-sequence token included, and whether it was cut at the limit."""

    ids: list[int]
    truncated: bool


class Sampler(Protocol):
    """Something that completes prompts."""

    tokenizer: PreTrainedTokenizerBase

    def generate(self, prompts: list[list[int]], seeds: list[int], sampling: Sampling) -> list[Generation]:
        """One completion for each prompt, given as token ids, drawn with the seed beside it."""
        ...


def work_units(problems: Sequence[Problem], samples: int, batch_size: int) -> list[list[tuple[Problem, int]]]:
    """All completions of a task, cut into batches: the same ones however often a run is interrupted."""
    items = [(problem, sample) for problem in problems for sample in range(samples)]
    return [items[start : start + batch_size] for start in range(0, len(items), batch_size)]


def sample_seed(seed: int, problem: Problem, sample: int) -> int:
    """Seed of one completion, in [0, 2^63)."""
    text = repr((seed, problem.id, problem.prompt, sample))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def sample_units(
    sampler: Sampler,
    units: Sequence[list[tuple[Problem, int]]],
    sampling: Sampling,
    done: frozenset[Key] = frozenset(),
) -> Iterator[list[Sample]]:
    """
    Sample the units that hold anything that is not done, one list of samples for each. A unit is sampled whole even if
    part of it is done.
    """
    for unit in units:
        if all((problem.id, sample) in done for problem, sample in unit):
            continue
        prompts = [prompt_ids(sampler.tokenizer, problem.prompt) for problem, _ in unit]
        seeds = [sample_seed(sampling.seed, problem, sample) for problem, sample in unit]
        generations = sampler.generate(prompts, seeds, sampling)
        yield [
            _read(sampler.tokenizer, problem, sample, generation, sampling)
            for (problem, sample), generation in zip(unit, generations, strict=True)
        ]


def prompt_text(tokenizer: PreTrainedTokenizerBase, prompt: list[dict[str, str]] | str) -> str:
    """The prompt as the model sees it: by its chat template; a base model, which has none, continues plain text."""
    if isinstance(prompt, str):
        return prompt
    if tokenizer.chat_template is None:
        return "\n\n".join(message["content"] for message in prompt) + "\n\n"
    return tokenizer.apply_chat_template(prompt, add_generation_prompt=True, tokenize=False)


def prompt_ids(tokenizer: PreTrainedTokenizerBase, prompt: list[dict[str, str]] | str) -> list[int]:
    """Token ids of `prompt_text`. A chat template writes its special tokens itself; to plain text they are added."""
    is_templated = not isinstance(prompt, str) and tokenizer.chat_template is not None
    return tokenizer(prompt_text(tokenizer, prompt), add_special_tokens=not is_templated)["input_ids"]


def _read(
    tokenizer: PreTrainedTokenizerBase, problem: Problem, sample: int, generation: Generation, sampling: Sampling
) -> Sample:
    text = tokenizer.decode(generation.ids, skip_special_tokens=True)
    thought = thinking_text(text, sampling.think_end)
    return Sample(
        problem=problem.id,
        sample=sample,
        completion=text,
        completion_tokens=len(generation.ids),
        thinking_tokens=find_segment_starts(tokenizer, generation.ids, sampling.delimiter, sampling.think_end)[1],
        segments=sum(bool(segment.strip()) for segment in thought.split(sampling.delimiter)),
        backtracks=count_backtracks(text, sampling.delimiter, sampling.think_end),
        truncated=generation.truncated,
    )


class TransformersSampler:
    """Samples with `generate`, on the model's device."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        self.model, self.tokenizer = model, tokenizer

    @torch.no_grad()
    def generate(self, prompts: list[list[int]], seeds: list[int], sampling: Sampling) -> list[Generation]:
        width = max(map(len, prompts))
        input_ids = torch.full((len(prompts), width), self.tokenizer.pad_token_id)
        attention_mask = torch.zeros_like(input_ids)
        for row, ids in enumerate(prompts):
            input_ids[row, width - len(ids) :] = torch.tensor(ids)
            attention_mask[row, width - len(ids) :] = 1
        eos_ids = eos_token_ids(self.model, self.tokenizer)
        config = GenerationConfig(
            do_sample=False,  # the draw is in the processor below
            max_new_tokens=sampling.max_new_tokens,
            eos_token_id=eos_ids,
            pad_token_id=self.tokenizer.pad_token_id,
            repetition_penalty=1.0,
        )
        draws = [SeededDraw(seeds, sampling)] if sampling.temperature else []
        was_training = self.model.training
        self.model.eval()
        output = self.model.generate(
            input_ids=input_ids.to(self.model.device),
            attention_mask=attention_mask.to(self.model.device),
            generation_config=config,
            logits_processor=LogitsProcessorList(draws),
        )
        self.model.train(was_training)
        generations = []
        for ids in output[:, width:].tolist():
            end = next((i for i, token in enumerate(ids) if token in eos_ids), None)
            generations.append(Generation(ids if end is None else ids[: end + 1], truncated=end is None))
        return generations


def eos_token_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """
    Tokens that end a completion: those of the model's generation config and the tokenizer's.

    Raises:
        ValueError: there are none.
    """
    configured = model.generation_config.eos_token_id
    ids = [configured] if isinstance(configured, int) else list(configured or [])
    if tokenizer.eos_token_id is not None and tokenizer.eos_token_id not in ids:
        ids.append(tokenizer.eos_token_id)
    if not ids:
        raise ValueError("The model has no end-of-sequence token: set eos_token_id in its generation config.")
    return ids


class SeededDraw(LogitsProcessor):
    """
    Draws the next token of each row with the row's own random numbers, by inverting the cumulative distribution, and
    leaves no other token to choose.
    """

    def __init__(self, seeds: list[int], sampling: Sampling) -> None:
        self.warpers = LogitsProcessorList([TemperatureLogitsWarper(sampling.temperature)])
        if sampling.top_p < 1:
            self.warpers.append(TopPLogitsWarper(sampling.top_p))
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.uniforms: torch.Tensor | None = None
        self.step = 0

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        if self.step % _BLOCK == 0:
            # One number for each token, fetched in blocks: a generator's numbers do not depend on the device.
            block = torch.stack([torch.rand(_BLOCK, generator=g, dtype=torch.float64) for g in self.generators])
            self.uniforms = block.to(scores.device)
        uniforms = self.uniforms[:, self.step % _BLOCK, None]
        self.step += 1
        cumulative = self.warpers(input_ids, scores).double().softmax(-1).cumsum(-1)
        # The last entry may miss 1 by rounding.
        chosen = torch.searchsorted(cumulative, uniforms * cumulative[:, -1:], right=True)
        # A number within rounding of 1 could fall behind the last token that has any probability.
        last = (cumulative < cumulative[:, -1:]).sum(-1, keepdim=True)
        chosen = torch.minimum(chosen, last)
        return torch.full_like(scores, -torch.inf).scatter_(1, chosen, 0.0)


_BLOCK = 256


class VllmSampler:
    """Samples with vLLM, on this process's device."""

    def __init__(
        self,
        model: str,
        tokenizer: PreTrainedTokenizerBase,
        revision: str,
        dtype: str,
        processes: int,
        trust_remote_code: bool = False,
    ) -> None:
        from vllm import LLM

        self.tokenizer = tokenizer
        # Each process has an engine of its own. Under a launcher the engine must not start processes that would take
        # the launcher's place in the process group.
        launcher = {"distributed_executor_backend": "external_launcher"} if processes > 1 else {}
        self.llm = LLM(model=model, revision=revision, dtype=dtype, trust_remote_code=trust_remote_code, **launcher)

    def generate(self, prompts: list[list[int]], seeds: list[int], sampling: Sampling) -> list[Generation]:
        from vllm import SamplingParams

        outputs = self.llm.generate(
            [{"prompt_token_ids": ids} for ids in prompts],
            [
                SamplingParams(
                    temperature=sampling.temperature,
                    top_p=sampling.top_p,
                    top_k=0,
                    max_tokens=sampling.max_new_tokens,
                    seed=seed,
                    skip_special_tokens=False,
                )
                for seed in seeds
            ],
            use_tqdm=False,
        )
        completions = [output.outputs[0] for output in outputs]
        return [
            Generation(list(completion.token_ids), truncated=completion.finish_reason == "length")
            for completion in completions
        ]


def default_backend() -> Backend:
    """vLLM where it is installed and there is a GPU."""
    return "vllm" if importlib.util.find_spec("vllm") is not None and torch.cuda.is_available() else "transformers"


def load_sampler(
    model: str,
    revision: str,
    backend: Backend,
    dtype: str,
    device: torch.device,
    processes: int,
    attn_implementation: str | None = None,
    trust_remote_code: bool = False,
) -> Sampler:
    """
    The model by its name or folder.

    Raises:
        ValueError: there is no such model, or it cannot be loaded; vLLM is asked for and not installed, or for what it
            has no word for.
    """
    tokenizer = load_tokenizer(model, revision, trust_remote_code)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if backend == "vllm":
        if importlib.util.find_spec("vllm") is None:
            raise ValueError("--backend vllm: vLLM is not installed. Install it (`repro-trl[vllm]`), or give another.")
        if attn_implementation is not None:
            raise ValueError(
                f"--attn_implementation {attn_implementation}: vLLM chooses its own. Leave it out, or give "
                "--backend transformers."
            )
        return VllmSampler(model, tokenizer, revision, dtype, processes, trust_remote_code)
    loaded = load_model(model, revision, dtype, attn_implementation, trust_remote_code, device)
    return TransformersSampler(loaded, tokenizer)
