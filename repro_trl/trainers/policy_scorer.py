"""`PolicyScoring`: a generation batch's objective J, computed with the trainer's own policy on all processes."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import torch
from accelerate.utils import is_peft_model
from torch import Tensor, nn
from transformers import DynamicCache, ProcessorMixin
from transformers.integrations import is_deepspeed_zero3_enabled
from transformers.utils import logging

from ..method.branch_attention import unsupported_reason, unwrap
from ..method.score import (
    TOLERANCE_16_BIT,
    TOLERANCE_32_BIT,
    AnswerTokens,
    ScoringRow,
    evaluation_mode,
    masked_attention,
    method_difference,
    prefix_of_pass,
    score_branches,
    score_rows,
)
from .hook import Rollout
from .images import score_rows_with_images

logger = logging.get_logger(__name__)


@dataclass
class CompletionScores:
    """
    METHOD §2 and §3 for one process's B completions.

    Attributes:
        boundaries: (B, M) int; M is the same on all processes.
        boundary_mask: (B, M) bool; all False for completions that cannot be scored.
        objective: (B, M) float32, J at each boundary.
        entropies: (B, M) float32, H_s where a boundary is a segment start s, else 0.
        counts: how many completions have no answer, delimiter, end-of-thinking marker.
        seconds: spent on scoring.
    """

    boundaries: Tensor
    boundary_mask: Tensor
    objective: Tensor
    entropies: Tensor
    counts: dict[str, int]
    seconds: float = 0.0

    @classmethod
    def empty(cls, shape: tuple[int, int], counts: dict[str, int], device: torch.device) -> Self:
        """Room for the scores of B completions at M boundaries."""
        return cls(
            boundaries=torch.zeros(shape, dtype=torch.long, device=device),
            boundary_mask=torch.zeros(shape, dtype=torch.bool, device=device),
            objective=torch.zeros(shape, device=device),
            entropies=torch.zeros(shape, device=device),
            counts=counts,
        )

    def put(self, rows: list[ScoringRow], results: tuple[Tensor, ...], places: list[int]) -> None:
        """Take over the results of a micro-batch as `score_rows` gives them: those at `places`, one for each row."""
        device = self.objective.device
        index = torch.tensor([row.index for row in rows], dtype=torch.long, device=device)
        places = torch.tensor(places, dtype=torch.long, device=device)
        targets = (self.boundaries, self.boundary_mask, self.objective, self.entropies)
        for target, result in zip(targets, results, strict=True):
            target[index] = result[places]


class PolicyScoring:
    """
    Scores the completions of a generation batch where that is cheapest, with an `AdvantageHook` among its bases.

    Where the trainer runs the policy over the rollouts anyway, for old log-probabilities (`num_iterations` > 1, vLLM's
    correction, the KL penalty of REINFORCE++ and PPO), the answers are read on the keys and values of that pass, one
    micro-batch at a time, and only the branch pass comes on top (METHOD §8). Otherwise RePro runs its own prefix pass.

    A subclass gives `_scoring_rows`.
    """

    # The rows of the generation batch in the making, until its completions are scored.
    _unscored_examples: list[dict[str, Any]] | None = None
    # Scores of that batch that were computed within the trainer's own pass.
    _scores: CompletionScores | None = None
    # Why the trainer's pass cannot be used; None before the first one.
    _sharing_obstacle: str | None = None

    def _scoring_rows(
        self, examples: list[dict[str, Any]], completion_ids: Tensor, completion_mask: Tensor, policy_mask: Tensor
    ) -> tuple[list[ScoringRow], dict[str, int]]:
        """The completions that can be scored, and how many have no answer, delimiter or end-of-thinking marker."""
        raise NotImplementedError

    def _start_scoring(self) -> None:
        """Choose the method; to be called once, at the end of `__init__`."""
        self._repro_method = self._choose_method()
        self._is_method_proven = self._repro_method == "replay" or self.args.repro_method == "shared"

    def _choose_method(self) -> str:
        method = self.args.repro_method
        if self.args.repro_alpha == 0 or method == "replay":
            return "replay"
        with masked_attention(self.model):
            reason = unsupported_reason(self.model)
        if reason is None:
            return "shared"
        if method == "shared":
            raise ValueError(f"repro_method='shared' is not exact for this model: {reason}. Use 'replay' or 'auto'.")
        self._warn_of_replay(reason)
        return "replay"

    def _warn_of_replay(self, reason: str) -> None:
        if self.accelerator.is_main_process:
            logger.warning("repro_method='auto' takes the slower 'replay': %s.", reason)

    def _score_completions(self, rollout: Rollout) -> CompletionScores:
        """J at every boundary of this process's completions; collective."""
        self._unscored_examples = None  # what runs from here on is no pass of the trainer's own
        if self._scores is not None:
            return self._scores
        started = time.perf_counter()
        batch = rollout.batch
        rows, counts = self._scoring_rows(
            rollout.examples, batch["completion_ids"], batch["completion_mask"].bool(), rollout.policy_mask
        )
        scores = self._run_own_passes(batch, rows, counts)
        scores.seconds = time.perf_counter() - started
        return scores

    # -------------------------------------------------------------------------------------------------- own passes

    @property
    def _micro_batch_size(self) -> int:
        args = self.args
        return args.per_device_train_batch_size if self.model.training else args.per_device_eval_batch_size

    def _agree(self, *sizes: int) -> list[int]:
        """The largest value of each size over all processes."""
        # Ranks must run the same number of forwards whatever their texts hold, or ZeRO-3 and FSDP2 deadlock.
        local = torch.tensor([sizes], device=self.accelerator.device)
        return self.accelerator.gather(local).max(dim=0).values.tolist()

    def _run_own_passes(
        self, batch: dict[str, Any], rows: list[ScoringRow], counts: dict[str, int]
    ) -> CompletionScores:
        args, size = self.args, self._micro_batch_size
        num_micro_batches, most_starts, has_images = self._agree(
            math.ceil(len(rows) / size), max((len(row.starts) for row in rows), default=0), "pixel_values" in batch
        )
        num_boundaries = min(args.repro_top_k, most_starts) + 2
        if has_images:
            return CompletionScores(*self._score_with_images(batch, rows, num_boundaries), counts)

        completion_ids = batch["completion_ids"]
        scores = CompletionScores.empty((len(completion_ids), num_boundaries), counts, completion_ids.device)
        rows = sorted(rows, key=lambda row: row.end)  # completions of like length share a micro-batch
        with self._scoring_mode():
            if num_micro_batches > 0 and not self._is_method_proven:
                self._prove_shared(batch, rows, num_boundaries)
            for first in range(0, num_micro_batches * size, size):
                micro_batch = rows[first : first + size]
                results = score_rows(
                    self.model,
                    batch,
                    micro_batch or [self._idle_row(0)],
                    args.repro_top_k,
                    num_boundaries,
                    self.temperature,
                    self._repro_method,
                )
                scores.put(micro_batch, results, list(range(len(micro_batch))))
        return scores

    def _score_with_images(
        self, batch: dict[str, Any], rows: list[ScoringRow], num_boundaries: int
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        if self.args.repro_method == "shared":
            raise ValueError("repro_method='shared' cannot score prompts with images. Use 'replay' or 'auto'.")
        if self._repro_method == "shared":
            self._repro_method, self._is_method_proven = "replay", True
            self._warn_of_replay("prompts hold images")
        run = self._get_per_token_logps_and_entropies
        top_k = self.args.repro_top_k
        with evaluation_mode(self.model):
            return score_rows_with_images(run, self.model, batch, rows, top_k, num_boundaries, self._micro_batch_size)

    def _prove_shared(self, batch: dict[str, Any], rows: list[ScoringRow], num_boundaries: int) -> None:
        """Compare both methods on one row of every process, once; what the model's settings promise may not hold."""
        row = max(rows, key=lambda row: len(row.starts), default=self._idle_row(0))
        difference = method_difference(self.model, batch, row, self.args.repro_top_k, num_boundaries, self.temperature)
        # What an idle process computes takes part in the forwards, not in the verdict.
        local = torch.tensor([difference if rows else 0.0], device=batch["completion_ids"].device)
        difference = self.accelerator.gather(local).max().item()
        half = self.accelerator.mixed_precision in {"fp16", "bf16"} or unwrap(self.model).dtype.itemsize < 4
        if difference > (TOLERANCE_16_BIT if half else TOLERANCE_32_BIT):
            self._repro_method = "replay"
            self._warn_of_replay(f"on this model 'shared' differs from it by {difference:.2g} nats per token")
        self._is_method_proven = True

    def _idle_row(self, index: int) -> ScoringRow:
        """What is scored, and thrown away, in place of a completion that cannot be while others still can."""
        answer = AnswerTokens([self._tokenizer.eos_token_id], [True])
        return ScoringRow(index=index, starts=[], end=1, answer=answer, last_answer=answer)

    # ---------------------------------------------------------------------------------------- the trainer's own pass

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        if self.args.repro_alpha > 0 and self._has_answers and self._repro_method == "shared":
            self._unscored_examples, self._policy_adapters = inputs, _adapters(self.model)
        try:
            return super()._generate_and_score_completions(inputs)
        finally:
            self._unscored_examples = self._scores = None

    def _get_per_token_logps_and_entropies(
        self,
        model: nn.Module,
        input_ids: Tensor,
        attention_mask: Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        run = super()._get_per_token_logps_and_entropies
        examples = self._unscored_examples
        # The reference model runs over the rollouts as well; with PEFT it is the policy with other adapters.
        if examples is not None and model is self.model and _adapters(model) == self._policy_adapters:
            self._unscored_examples = None
            if self._can_share_pass():
                size = batch_size or len(input_ids)
                run_part = partial(run, logits_to_keep=logits_to_keep, compute_entropy=True)
                return self._run_trainers_pass(run_part, examples, input_ids, attention_mask, logits_to_keep, size)
        return run(model, input_ids, attention_mask, logits_to_keep, batch_size=batch_size, **kwargs)

    def _can_share_pass(self) -> bool:
        if self._sharing_obstacle is None:
            self._note_sharing_obstacle(self._find_sharing_obstacle())
        return not self._sharing_obstacle

    def _find_sharing_obstacle(self) -> str:
        # The answer must be the same on all processes, so it hangs on settings, not on what a batch holds.
        if isinstance(self.processing_class, ProcessorMixin):
            return "the model reads images, too"
        if self.tools or self.rollout_func is not None or self.environment_factories is not None:
            return "which tokens are the policy's own is known only after it, with tools or a rollout function"
        base = unwrap(self.model)
        drops_out = any(isinstance(module, nn.Dropout) and module.p > 0 for module in base.modules())
        if drops_out or (getattr(base.config.get_text_config(), "attention_dropout", None) or 0.0) > 0:
            return "dropout is active in it (disable_dropout=True, or lora_dropout=0, switch it off)"
        return ""

    def _note_sharing_obstacle(self, obstacle: str) -> None:
        self._sharing_obstacle = obstacle
        if obstacle and self.accelerator.is_main_process:
            logger.warning("RePro reads the rollouts once more after the trainer's own pass: %s.", obstacle)

    def _run_trainers_pass(
        self,
        run: Callable[..., tuple[Tensor, Tensor, None]],
        examples: list[dict[str, Any]],
        input_ids: Tensor,
        attention_mask: Tensor,
        completion_width: int,
        size: int,
    ) -> tuple[Tensor, Tensor, None]:
        """
        TRL's pass over the rollouts, `size` at a time, with the branches of each micro-batch read right after it.

        Args:
            run: TRL's method, with (model, input_ids, attention_mask) to be given.
            examples: the B dataset rows.
            input_ids, attention_mask: (B, P + T), prompts and completions.
            completion_width: T.

        Returns:
            What TRL's method returns: log-probabilities and entropies (B, T).
        """
        started = time.perf_counter()
        prompt_width = input_ids.shape[1] - completion_width
        batch = {
            "prompt_ids": input_ids[:, :prompt_width],
            "prompt_mask": attention_mask[:, :prompt_width],
            "completion_ids": input_ids[:, prompt_width:],
            "completion_mask": attention_mask[:, prompt_width:],
        }
        policy_mask = batch["completion_mask"].bool()  # no tools, so that every token is the policy's
        rows, counts = self._scoring_rows(examples, batch["completion_ids"], policy_mask, policy_mask)
        micro_batches = [range(first, min(first + size, len(input_ids))) for first in range(0, len(input_ids), size)]
        by_index = {row.index: row for row in rows}
        most_starts, *is_scored = self._agree(
            max((len(row.starts) for row in rows), default=0),
            *(any(index in by_index for index in indices) for indices in micro_batches),
        )
        num_boundaries = min(self.args.repro_top_k, most_starts) + 2
        if any(is_scored) and not self._is_method_proven:
            with self._scoring_mode():
                self._prove_shared(batch, rows, num_boundaries)
        scores = CompletionScores.empty((len(input_ids), num_boundaries), counts, input_ids.device)
        scores.seconds = time.perf_counter() - started

        passes = []
        for indices, keep in zip(micro_batches, is_scored, strict=True):
            part = slice(indices.start, indices.stop)
            ids, mask = input_ids[part], attention_mask[part]
            if not keep or self._repro_method != "shared" or self._sharing_obstacle:
                passes.append(run(self.model, ids, mask))
                continue
            cache = DynamicCache()
            passes.append(run(partial(self.model, past_key_values=cache), ids, mask))
            if cache.get_seq_length() != ids.shape[1]:
                self._note_sharing_obstacle("the model keeps no keys and values in it")
                continue
            started = time.perf_counter()
            all_rows = [by_index.get(index) or self._idle_row(index) for index in indices]
            with self._scoring_mode():
                results = score_branches(
                    self.model,
                    prefix_of_pass(all_rows, prompt_width, ids, mask, entropies=passes[-1][1], cache=cache),
                    all_rows,
                    self.args.repro_top_k,
                    num_boundaries,
                    self.temperature,
                )
            del cache  # before the keys and values of the next micro-batch come
            scored = [index for index in indices if index in by_index]
            scores.put([by_index[index] for index in scored], results, [index - indices.start for index in scored])
            scores.seconds += time.perf_counter() - started
        if self._repro_method == "shared" and not self._sharing_obstacle:
            self._scores = scores
        log_probs, entropies, _ = zip(*passes, strict=True)
        return torch.cat(log_probs), torch.cat(entropies), None

    @contextmanager
    def _scoring_mode(self) -> Iterator[None]:
        _register_output_embeddings(self.model)
        attention = masked_attention(self.model) if self._repro_method == "shared" else nullcontext()
        with evaluation_mode(self.model), attention, self.accelerator.autocast():
            yield


def _adapters(model: nn.Module) -> tuple[Any, ...]:
    """Which adapters the policy runs with; empty without PEFT."""
    base = unwrap(model)
    if not is_peft_model(base) or base.active_peft_config.is_prompt_learning:
        return ()
    status = base.get_model_status()
    return status.enabled, *status.active_adapters


def _register_output_embeddings(model: nn.Module) -> None:
    """
    Tell ZeRO-3 that the causal LM's own forward reads the weights of its LM head, as TRL's fused LM head makes it do.

    ZeRO-3 finds out at the first fused pass. If plain passes were run and recorded before it, the next plain pass
    would no longer be as recorded, which is an error.
    """
    if not is_deepspeed_zero3_enabled():
        return
    import deepspeed

    base = unwrap(model)
    base = base.get_base_model() if is_peft_model(base) else base
    for parameter in base.get_output_embeddings().parameters():
        deepspeed.zero.register_external_parameter(base, parameter)
