"""`PolicyScorer`: J of a generation batch's completions, computed by the policy itself on all processes."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase
from transformers.integrations import is_deepspeed_zero3_enabled
from transformers.utils import logging

from ..config import ReproConfigMixin
from ..method.branch_attention import evaluation_mode, without_adapters
from ..method.completions import CompletionReader, ScoringRow
from ..method.measure import Objectives, Scorer
from .images import score_rows_with_images

logger = logging.get_logger(__name__)


@dataclass
class BatchScores:
    """
    What scoring one process's B completions gave, with the same M on all processes; how many of them have no answer,
    delimiter or end-of-thinking marker; and the seconds spent on it.
    """

    objectives: Objectives
    counts: dict[str, int]
    seconds: float = 0.0


class PolicyScorer(Scorer):
    """
    METHOD §2 and §3 under accelerate: every process runs the same number of forwards, whatever its texts hold.
    Attributes and errors are those of `Scorer`.

    Args:
        model, temperature: as in `Scorer`.
        tokenizer, settings, find_starts: as in `CompletionReader`.
        accelerator: under which the processes agree.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        settings: ReproConfigMixin,
        accelerator: Accelerator,
        temperature: float = 1.0,
        find_starts: Callable[[list[int]], tuple[list[int], int]] | None = None,
    ) -> None:
        reader = CompletionReader(tokenizer, settings, find_starts)
        super().__init__(model, reader, temperature, speaks=accelerator.is_main_process)
        self.accelerator = accelerator
        self._is_merging_known = False

    def read(
        self, batch: dict[str, Any], answers: Sequence[str | None], policy_mask: Tensor
    ) -> tuple[list[ScoringRow], dict[str, int]]:
        """
        The completions that can be scored, and how many have no answer, delimiter or end-of-thinking marker. Arguments
        are those of `score`.
        """
        policy_mask = policy_mask.cpu()
        rows = []
        counts = {"no_answer": 0, "no_delimiter": 0, "no_think_end": 0}
        lengths = batch["completion_mask"].sum(dim=1).tolist()
        completions = zip(answers, batch["completion_ids"].tolist(), lengths, strict=True)
        for index, (answer, ids, length) in enumerate(completions):
            starts, end, finished = self.reader.cut(ids[:length])
            counts["no_answer"] += answer is None
            counts["no_delimiter"] += not starts
            counts["no_think_end"] += not finished
            if answer is None or length == 0 or not policy_mask[index].any():
                continue
            # What a tool wrote is no decision of the policy, so no segment starts there.
            starts = [start for start in starts if policy_mask[index, start]]
            rows.append(self.reader.row(index, starts, end, finished, answer))
        self._warn_of_merged_segments(rows)
        return rows, counts

    def _warn_of_merged_segments(self, rows: list[ScoringRow]) -> None:
        top_k = self.settings.repro_top_k
        if self.settings.repro_credit != "segment" or top_k is None or self._is_merging_known:
            return
        most_starts = max((len(row.starts) for row in rows), default=0)
        if most_starts > top_k:
            self._is_merging_known = True
            logger.warning(
                f"repro_credit='segment' with repro_top_k={top_k}, but a completion has {most_starts} segment "
                "starts. Segments are merged, so useless ones share the reward of useful ones, and the policy may "
                "learn to write more of them. Keep all starts: repro_top_k=None."
            )

    def agree(self, *sizes: int) -> list[int]:
        """The largest value of each size over all processes; collective."""
        # Ranks must run the same number of forwards whatever their texts hold, or ZeRO-3 and FSDP2 deadlock.
        local = torch.tensor([sizes], device=self.accelerator.device)
        return self.accelerator.gather(local).max(dim=0).values.tolist()

    def score(
        self,
        batch: dict[str, Any],
        answers: Sequence[str | None],
        policy_mask: Tensor,
        batch_size: int,
        image_pass: Callable[..., tuple[Tensor, Tensor | None, Any]] | None = None,
    ) -> BatchScores:
        """
        J at every boundary of this process's B completions; collective.

        Args:
            batch: `prompt_ids`, `prompt_mask` (B, P), `completion_ids`, `completion_mask` (B, T), and images.
            answers: (B,) bare ground truths.
            policy_mask: (B, T) bool, tokens that the policy wrote and the loss sees.
            batch_size: completions per forward.
            image_pass: TRL's pass for log-probabilities, which hands images to the model.
        """
        started = time.perf_counter()
        rows, counts = self.read(batch, answers, policy_mask)
        num_micro_batches, num_boundaries, has_images = self.agree(
            math.ceil(len(rows) / batch_size), self.boundary_count(rows), "pixel_values" in batch
        )
        if has_images:
            if self.settings.repro_method == "shared":
                raise ValueError("repro_method='shared' cannot score prompts with images. Use 'replay' or 'auto'.")
            if self.method == "shared":
                self._fall_back("prompts have images")
            with evaluation_mode(self.model):  # TRL's pass sees to the rest
                objectives = score_rows_with_images(
                    image_pass, self.model, batch, rows, self.reader, num_boundaries, batch_size
                )
        else:
            rows = sorted(rows, key=lambda row: row.end)  # completions of like length share a micro-batch
            if num_micro_batches > 0:
                self.prove(batch, rows, num_boundaries)
            objectives = self.score_batch(batch, rows, num_boundaries, batch_size, num_micro_batches)
        return BatchScores(objectives, counts, time.perf_counter() - started)

    def prove(self, batch: dict[str, Any], rows: list[ScoringRow], num_boundaries: int) -> None:
        """
        Compare both methods on one row of every process, once; what the model's settings promise may not hold.

        Collective: every process calls it for the same batches, with rows or without.
        """
        if self._is_proven:
            return
        row = max(rows, key=lambda row: len(row.starts), default=self.reader.idle_row())
        difference = self.method_difference(batch, row, num_boundaries)
        # What an idle process computes takes part in the forwards, not in the verdict.
        local = torch.tensor([difference if rows else 0.0], device=batch["completion_ids"].device)
        difference = self.accelerator.gather(local).max().item()
        self._judge(difference, half_precision=self.accelerator.mixed_precision in {"fp16", "bf16"})

    @contextmanager
    def scoring_mode(self) -> Iterator[None]:
        """The model ready to be scored with, under whatever it is wrapped in."""
        _register_output_embeddings(self.model)
        with super().scoring_mode(), self.accelerator.autocast():
            yield


def _register_output_embeddings(model: nn.Module) -> None:
    """
    Tell ZeRO-3 that the causal LM's own forward reads the weights of its LM head, as TRL's fused LM head makes it do.

    ZeRO-3 finds out at the first fused pass. If plain passes were run and recorded before it, the next plain pass
    would no longer be as recorded, which is an error.
    """
    if not is_deepspeed_zero3_enabled():
        return
    import deepspeed

    base = without_adapters(model)
    for parameter in base.get_output_embeddings().parameters():
        deepspeed.zero.register_external_parameter(base, parameter)
