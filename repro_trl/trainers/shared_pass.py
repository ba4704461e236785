"""`SharedPass`: answers read on the keys and values of a pass that TRL runs over the rollouts anyway (METHOD §8)."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from accelerate.utils import is_peft_model
from torch import Tensor, nn
from transformers import DynamicCache, ProcessorMixin
from transformers.utils import logging

from ..method.branch_attention import cache_argument, unwrap
from ..method.measure import Objectives, read_objectives
from ..method.shared_prefix import branch_pass, prefix_of_pass
from .policy_scorer import BatchScores, PolicyScorer

logger = logging.get_logger(__name__)


class SharedPass:
    """
    Where a trainer runs the policy over the rollouts for old log-probabilities (`num_iterations` > 1, vLLM's
    correction, the KL penalty of REINFORCE++ and PPO), only the branch pass comes on top, one micro-batch at a time.

    A trainer opens it before each generation batch, and closes it after. In between `takes` recognises the first pass
    of the policy over the rollouts, and `run` stands in for it.

    Args:
        scorer: scores with the policy.
        find_obstacle: says why the trainer's pass cannot be used; empty where it can. Asked once. The answer must be
            the same on all processes, so it hangs on settings, not on what a batch holds.

    Attributes:
        scores: what the pass gave, from `run` until `close`; None where the completions have to be scored apart.
    """

    def __init__(self, scorer: PolicyScorer, find_obstacle: Callable[[], str]) -> None:
        self.scores: BatchScores | None = None
        self._scorer, self._find_obstacle = scorer, find_obstacle
        self._obstacle: str | None = None
        self._answers: Sequence[str | None] | None = None  # of the generation batch in the making

    def open(self, answers: Sequence[str | None]) -> None:
        """A generation batch begins, whose rows have these (B,) ground truths."""
        if self._scorer.method == "shared":
            self._answers, self._adapters = answers, _adapters(self._scorer.model)

    def close(self) -> None:
        """The generation batch is done."""
        self._answers = self.scores = None

    def stop_waiting(self) -> None:
        """What the policy runs over from here on is no pass of the trainer's own."""
        self._answers = None

    def takes(self, model: nn.Module) -> bool:
        """Whether this is the pass that answers are read on; True at most once between `open` and `close`."""
        # The reference model runs over the rollouts as well; with PEFT it is the policy with other adapters.
        if self._answers is None or model is not self._scorer.model or _adapters(model) != self._adapters:
            return False
        if self._obstacle is None:
            self._note_obstacle(self._find_obstacle())
        if self._obstacle:
            self._answers = None
        return self._answers is not None

    def _note_obstacle(self, obstacle: str) -> None:
        self._obstacle = obstacle
        if obstacle and self._scorer.accelerator.is_main_process:
            logger.warning("RePro runs a second forward pass over the rollouts after the trainer's own: %s.", obstacle)

    def run(
        self,
        run: Callable[..., tuple[Tensor, Tensor, None]],
        input_ids: Tensor,
        attention_mask: Tensor,
        completion_width: int,
        size: int,
    ) -> tuple[Tensor, Tensor, None]:
        """
        TRL's pass over the rollouts, `size` at a time, with the branches of each micro-batch read right after it.

        Args:
            run: TRL's method, with (model, input_ids, attention_mask) to be given.
            input_ids, attention_mask: (B, P + T), prompts and completions.
            completion_width: T.
            size: rows per micro-batch.

        Returns:
            What TRL's method returns: log-probabilities and entropies (B, T).
        """
        started = time.perf_counter()
        scorer = self._scorer
        answers, self._answers = self._answers, None
        prompt_width = input_ids.shape[1] - completion_width
        batch = {
            "prompt_ids": input_ids[:, :prompt_width],
            "prompt_mask": attention_mask[:, :prompt_width],
            "completion_ids": input_ids[:, prompt_width:],
            "completion_mask": attention_mask[:, prompt_width:],
        }
        policy_mask = batch["completion_mask"].bool()  # no tools, so that every token is the policy's
        rows, counts = scorer.read(batch, answers, policy_mask)
        by_index = {row.index: row for row in rows}
        micro_batches = [range(first, min(first + size, len(input_ids))) for first in range(0, len(input_ids), size)]
        top_k = scorer.settings.repro_top_k
        num_boundaries, *is_scored = scorer.agree(
            scorer.boundary_count(rows), *(any(index in by_index for index in indices) for indices in micro_batches)
        )
        if any(is_scored):
            scorer.prove(batch, rows, num_boundaries)
        objectives = Objectives.empty((len(input_ids), num_boundaries), input_ids.device)
        scores = BatchScores(objectives, counts, time.perf_counter() - started)

        passes = []
        for indices, keep in zip(micro_batches, is_scored, strict=True):
            part = slice(indices.start, indices.stop)
            ids, mask = input_ids[part], attention_mask[part]
            if not keep or scorer.method != "shared" or self._obstacle:
                passes.append(run(scorer.model, ids, mask))
                continue
            cache = DynamicCache()
            passes.append(run(partial(scorer.model, **{cache_argument(scorer.model): cache}), ids, mask))
            if cache.get_seq_length() != ids.shape[1]:
                self._note_obstacle("the model does not cache keys and values in it")
                continue
            started = time.perf_counter()
            all_rows = [by_index.get(index) or scorer.reader.idle_row(index) for index in indices]
            prefix = prefix_of_pass([row.starts for row in all_rows], prompt_width, ids, mask, passes[-1][1], cache)
            with scorer.scoring_mode():
                read = partial(branch_pass, scorer.model, prefix, temperature=scorer.temperature)
                results = read_objectives(read, all_rows, prefix.entropies, top_k, num_boundaries)
            del cache, prefix, read  # before the keys and values of the next micro-batch come
            scored = [index for index in indices if index in by_index]
            objectives.put([by_index[index] for index in scored], results, [index - indices.start for index in scored])
            scores.seconds += time.perf_counter() - started
        if scorer.method == "shared" and not self._obstacle:
            self.scores = scores
        log_probs, entropies, _ = zip(*passes, strict=True)
        return torch.cat(log_probs), torch.cat(entropies), None


def sharing_obstacle(trainer: Any) -> str:
    """Why a TRL trainer's own pass over the rollouts is not one to read answers on; empty where it is."""
    if isinstance(trainer.processing_class, ProcessorMixin):
        return "the model reads images"
    if trainer.tools or trainer.rollout_func is not None or trainer.environment_factories is not None:
        return "with tools or a rollout function, it is only known afterwards which tokens the policy wrote"
    base = unwrap(trainer.model)
    drops_out = any(isinstance(module, nn.Dropout) and module.p > 0 for module in base.modules())
    if drops_out or (getattr(base.config.get_text_config(), "attention_dropout", None) or 0.0) > 0:
        return "dropout is active (turn it off with disable_dropout=True, or lora_dropout=0)"
    return ""


def _adapters(model: nn.Module) -> tuple[Any, ...]:
    """Which adapters the policy runs with; empty without PEFT."""
    base = unwrap(model)
    if not is_peft_model(base) or base.active_peft_config.is_prompt_learning:
        return ()
    status = base.get_model_status()
    return status.enabled, *status.active_adapters
