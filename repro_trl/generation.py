"""
Completions of a model, with vLLM or with transformers: the one sampler of evaluation, `repro-trl inspect` and
examples.

Every completion has random numbers of its own, made from its seed. So it does not depend on what else is sampled, up
to the rounding of the model's arithmetic in batches of another shape.
"""

import importlib.util
import sys
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    AutoConfig,
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)

from .command_line import FailedWork
from .messages import Messages
from .models import check_dtype, load_model, load_tokenizer
from .sampling import Backend, Sampling, VllmSettings


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


def prompt_text(tokenizer: PreTrainedTokenizerBase, prompt: Messages | str) -> str:
    """
    The prompt as the model sees it: messages by its chat template, the last one continued if it is the assistant's. A
    base model, which has no template, continues the plain text.
    """
    if isinstance(prompt, str):
        return prompt
    if tokenizer.chat_template is None:
        return "\n\n".join(message["content"] for message in prompt) + "\n\n"
    goes_on = prompt[-1].get("role") == "assistant"
    return tokenizer.apply_chat_template(
        prompt, add_generation_prompt=not goes_on, continue_final_message=goes_on, tokenize=False
    )


def prompt_ids(tokenizer: PreTrainedTokenizerBase, prompt: Messages | str) -> list[int]:
    """Token ids of `prompt_text`. A chat template writes its special tokens itself; to plain text they are added."""
    is_templated = not isinstance(prompt, str) and tokenizer.chat_template is not None
    return tokenizer(prompt_text(tokenizer, prompt), add_special_tokens=not is_templated)["input_ids"]


def eos_token_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """
    Tokens that end a completion: those of the model's generation config and the tokenizer's; a `ValueError` if there
    are none.
    """
    configured = model.generation_config.eos_token_id
    ids = [configured] if isinstance(configured, int) else list(configured or [])
    if tokenizer.eos_token_id is not None and tokenizer.eos_token_id not in ids:
        ids.append(tokenizer.eos_token_id)
    if not ids:
        raise ValueError("The model has no end-of-sequence token: set eos_token_id in its generation_config.json.")
    return ids


class TransformersSampler:
    """
    Samples with `generate`, on the model's device. A `ValueError` if the model has no end-of-sequence token.

    Args:
        in_step: whether all processes generate at the same time, token by token until the last one is done, as a model
            needs that is split over them.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, in_step: bool = False) -> None:
        self.model, self.tokenizer, self.in_step = model, tokenizer, in_step
        self.eos_ids = eos_token_ids(model, tokenizer)
        # Padding is masked: a tokenizer that has no token for it can do with any.
        self.pad_id = self.eos_ids[0] if tokenizer.pad_token_id is None else tokenizer.pad_token_id

    @torch.no_grad()
    def generate(self, prompts: list[list[int]], seeds: list[int], sampling: Sampling) -> list[Generation]:
        rows = [torch.tensor(ids, dtype=torch.long) for ids in prompts]
        input_ids = pad_sequence(rows, batch_first=True, padding_value=self.pad_id, padding_side="left")
        attention_mask = pad_sequence([row.new_ones(len(row)) for row in rows], batch_first=True, padding_side="left")
        config = GenerationConfig(
            do_sample=False,  # the draw is in the processor below
            max_new_tokens=sampling.max_new_tokens,
            eos_token_id=self.eos_ids,
            pad_token_id=self.pad_id,
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
            synced_gpus=self.in_step or None,  # `None`: transformers decides, and knows DeepSpeed, but not FSDP2
        )
        self.model.train(was_training)
        generations = []
        for ids in output[:, input_ids.shape[1] :].tolist():
            end = next((i for i, token in enumerate(ids) if token in self.eos_ids), None)
            generations.append(Generation(ids if end is None else ids[: end + 1], truncated=end is None))
        return generations


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
    """
    Samples with vLLM, on this process's device. All processes of a launcher must make one at the same time, for their
    engines meet while they load.

    Args:
        model: folder, or name on the Hub.
        dtype: of the weights; "auto": as they were saved, float32 included.
        processes, process: of the launcher, and this one's number. Neighbouring ones share a model if
            `settings.tensor_parallel_size` is above 1.

    Raises:
        ValueError: a setting that the engine refuses, or, while sampling, a prompt as long as all that it takes.
        FailedWork: the engine does not start.
    """

    def __init__(
        self,
        model: str,
        tokenizer: PreTrainedTokenizerBase,
        revision: str | None,
        dtype: str,
        processes: int = 1,
        process: int = 0,
        settings: VllmSettings | None = None,
        trust_remote_code: bool = False,
    ) -> None:
        from vllm import LLM
        from vllm.platforms import current_platform

        self.tokenizer = tokenizer
        self._speaks = process == 0
        settings = settings or VllmSettings()
        options: dict[str, Any] = {
            "tensor_parallel_size": settings.tensor_parallel_size,
            "trust_remote_code": trust_remote_code,
        }
        if settings.gpu_memory_utilization is not None:
            options["gpu_memory_utilization"] = settings.gpu_memory_utilization
        if settings.max_model_length is not None:
            options["max_model_len"] = settings.max_model_length
        if current_platform.is_cpu():
            # There vLLM cannot read a prompt in parts when its completion has a seed of its own.
            options["enable_chunked_prefill"] = False
        if processes > 1:
            # Under a launcher the engine must not start processes that would take the launcher's place in the process
            # group. Processes that share a model draw alike.
            options |= {
                "distributed_executor_backend": "external_launcher",
                "seed": process // settings.tensor_parallel_size,
            }
        options["dtype"] = _vllm_dtype(model, revision, dtype, self._speaks)
        try:
            self.llm = LLM(model=model, revision=revision, **options)
        except RuntimeError as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            raise FailedWork(f"vLLM did not start: {error}") from error

    def generate(self, prompts: list[list[int]], seeds: list[int], sampling: Sampling) -> list[Generation]:
        from vllm import SamplingParams

        self._check_lengths(max(map(len, prompts)), sampling.max_new_tokens)
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

    def _check_lengths(self, longest_prompt: int, max_new_tokens: int) -> None:
        limit = self.llm.llm_engine.model_config.max_model_len
        if longest_prompt >= limit:
            raise ValueError(
                f"vllm_max_model_length={limit}: the longest prompt has {longest_prompt} tokens, which leaves no room "
                "for a completion. Raise the limit, up to that of the model, or leave such problems out."
            )
        if longest_prompt + max_new_tokens > limit and self._speaks:
            self._speaks = False
            print(
                f"vllm_max_model_length={limit}: completions are cut off there, prompt included, before they "
                f"reach max_completion_length={max_new_tokens}.",
                file=sys.stderr,
            )


def _vllm_dtype(model: str, revision: str | None, dtype: str, speaks: bool) -> str:
    """vLLM's own "auto" turns float32 weights to 16 bits; here it means what it means with transformers."""
    if dtype != "auto":
        return dtype
    saved = AutoConfig.from_pretrained(model, revision=revision).dtype
    if saved is torch.float32:
        if speaks:
            note = "The weights are float32, so vLLM computes in float32; --dtype bfloat16 is faster."
            print(note, file=sys.stderr)
        return "float32"
    if saved is None and speaks:
        print(
            "The model's config.json names no dtype, so vLLM chooses one; it uses 16 bits for float32 weights. "
            "Set --dtype to decide.",
            file=sys.stderr,
        )
    return "auto"


def default_backend() -> Backend:
    """vLLM where it is installed and there is a GPU."""
    return "vllm" if importlib.util.find_spec("vllm") is not None and torch.cuda.is_available() else "transformers"


def load_sampler(
    model: str,
    revision: str | None,
    backend: Backend,
    dtype: str,
    device: torch.device,
    processes: int = 1,
    process: int = 0,
    vllm_settings: VllmSettings | None = None,
    trust_remote_code: bool = False,
    attn_implementation: str | None = None,
) -> Sampler:
    """
    The model by its name or folder, on every process; see `VllmSampler` and `load_model`, for what is raised too. A
    `ValueError` if vLLM is asked for and not installed.
    """
    check_dtype(dtype)
    tokenizer = load_tokenizer(model, revision, trust_remote_code)
    if backend == "vllm":
        if importlib.util.find_spec("vllm") is None:
            raise ValueError(
                "backend='vllm': vLLM is not installed. Install it (`repro-trl[vllm]`), or choose another backend."
            )
        if attn_implementation is not None:
            raise ValueError(
                f"attn_implementation={attn_implementation!r}: vLLM chooses its own. Leave the option out, or "
                "sample with transformers."
            )
        return VllmSampler(model, tokenizer, revision, dtype, processes, process, vllm_settings, trust_remote_code)
    loaded = load_model(model, revision, dtype, device, trust_remote_code, attn_implementation)
    return TransformersSampler(loaded, tokenizer)
