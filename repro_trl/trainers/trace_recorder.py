"""What training shows of its rollouts: a trace file every so many steps, and the process view beside TRL's table."""

import dataclasses
import math
import os
from collections.abc import Sequence
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor
from transformers.utils import logging

from ..messages import prompt_text
from ..method.score import ScoredRollouts
from ..traces import Trace, floats, make_trace, write_traces
from .hook import Rollout
from .trace_panels import describe_auc, print_traces

logger = logging.get_logger(__name__)

# TRL prints whole batches unless told otherwise; a thought takes a page.
_SHOWN_BY_DEFAULT = 2


class TraceRecorder:
    """
    Turns the rollouts that a trainer has scored into traces; computes nothing on the model.

    Every `repro_trace_steps` optimizer steps those of all processes are written by the main process to
    `<output_dir>/traces/step_<step>.jsonl`: from the first generation batch at or after each multiple, and from all
    generation batches of that step where it has several. With `log_completions` the main process keeps the newest
    few for `show`, and TRL's completions table gets the ground truth as `repro_answer`.
    """

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer
        self._next_step: int | None = None  # the first step at which the next file is due
        self._file_step: int | None = None
        self._batches = 0  # generation batches in that file
        self._newest: list[Trace] = []
        self._objective_auc = math.nan
        args = trainer.args
        if args.repro_trace_steps > 0 and args.repro_alpha == 0 and trainer.accelerator.is_main_process:
            logger.warning("repro_trace_steps is ignored: with repro_alpha=0 nothing is scored.")

    def record(
        self,
        rollout: Rollout,
        scored: ScoredRollouts,
        total: Tensor,
        answers: Sequence[str | None],
        objective_auc: float,
    ) -> None:
        """
        Take note of one generation batch; collective.

        Args:
            rollout, scored: this process's B completions, and their scores.
            total: (B, T) the advantages that reach the loss.
            answers: (B,) ground truths.
            objective_auc: how well J separates correct completions from wrong ones.
        """
        trainer = self._trainer
        self._objective_auc = objective_auc
        file_due = trainer.model.training and self._is_file_due(trainer.state.global_step)
        num_shown = 0
        if trainer.log_completions:
            trainer._logs["extra"]["repro_answer"].extend(gather_object(list(answers)))
            if trainer.accelerator.is_main_process:
                wanted = trainer.num_completions_to_print
                num_shown = _SHOWN_BY_DEFAULT if wanted is None else wanted
        count = len(rollout.examples) if file_due else min(num_shown, len(rollout.examples))
        # Tokens that the policy did not write carry no advantage (METHOD §5).
        scored = dataclasses.replace(scored, advantages=scored.advantages * rollout.policy_mask)
        traces = [self._trace(rollout, scored, total, answers[row], row) for row in range(count)]
        self._newest = traces[:num_shown]
        if file_due:
            self._write(gather_object(traces))

    def show(self) -> None:
        """Print the newest traces, once. Does nothing where there are none, as on all processes but the main one."""
        if self._newest:
            title = f"Process rewards at step {self._trainer.state.global_step}"
            print_traces(self._newest, title, describe_auc(self._objective_auc))
            self._newest = []

    def _is_file_due(self, step: int) -> bool:
        every = self._trainer.args.repro_trace_steps
        if every == 0:
            return False
        if self._next_step is None:  # a resumed run does not repeat what was written
            self._next_step = -(-step // every) * every
        if step < self._next_step and step != self._file_step:
            return False
        if step != self._file_step:
            self._file_step, self._batches = step, 0
            self._next_step = (step // every + 1) * every
        return True

    def _write(self, traces: list[Trace]) -> None:
        if self._trainer.accelerator.is_main_process:
            file = os.path.join(self._trainer.args.output_dir, "traces", f"step_{self._file_step:06d}.jsonl")
            write_traces(file, traces, append=self._batches > 0)
        self._batches += 1

    def _trace(self, rollout: Rollout, scored: ScoredRollouts, total: Tensor, answer: str | None, row: int) -> Trace:
        trainer, batch = self._trainer, rollout.batch
        tokenizer = trainer._tokenizer
        ids, mask = batch["completion_ids"][row], batch["completion_mask"][row].bool()
        # TRL masks truncated completions as a whole, if it is told to: what they say is still worth seeing.
        ids = (ids[mask] if mask.any() else ids[ids != tokenizer.pad_token_id]).tolist()
        total_advantages = torch.where(rollout.policy_mask[row], total[row], 0.0)[: len(ids)]
        rewards = floats(rollout.rewards_per_func[row])
        step = trainer.state.global_step
        return make_trace(
            tokenizer,
            trainer.args,
            scored,
            row,
            ids,
            answer,
            group=f"{step}.{self._batches}.{rollout.groups[row].item()}",
            prompt=prompt_text(rollout.examples[row]["prompt"]),
            truncated=not ids or ids[-1] not in {*trainer.eos_token_ids, tokenizer.pad_token_id},
            # A record must not stop a run whose loss is not finite.
            total_advantages=floats(total_advantages) if total_advantages.isfinite().all() else None,
            rewards={
                name: reward if math.isfinite(reward) else None
                for name, reward in zip(trainer.reward_func_names, rewards, strict=True)
            },
            step=step,
        )
