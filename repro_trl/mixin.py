"""`ReproMixin`: adds the process advantage to whatever outcome advantage a trainer computes."""

import math
import re
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor
from transformers.utils import logging
from trl.trainer.utils import get_config_model_id

from .advantage import normalize_rewards, reward_to_go, segment_credit
from .answers import answer_text, extract_answer
from .boundaries import find_segment_starts
from .branch_attention import unsupported_reason, unwrap
from .config import ReproConfigMixin
from .hook import Rollout
from .images import score_rows_with_images
from .process_reward import magnitude_score, process_rewards, stability_score
from .scoring import (
    AnswerTokens,
    ScoringRow,
    encode_answer,
    evaluation_mode,
    has_think_end,
    masked_attention,
    method_difference,
    prefix_after_marker,
    score_rows,
)
from .trace import ScoredRollouts

logger = logging.get_logger(__name__)

# Largest |ΔJ| / (1 + |J|) between both methods that counts as rounding, for models computed in 32 and in 16 bits.
_TOLERANCE_32_BIT, _TOLERANCE_16_BIT = 1e-3, 5e-2

# Columns of these names hold what a reward compares with: a wrong `repro_answer_column` is then an oversight.
_GROUND_TRUTH_NAME = re.compile(r"answer|solution|truth|target|label|gold|reference|^gt$", re.IGNORECASE)

REPRO_PAPER = {
    "title": "Rectifying LLM Thought from Lens of Optimization",
    "id": "2512.01925",
    "citation": """\
@article{liu2025rectifying,
    title   = {{Rectifying LLM Thought from Lens of Optimization}},
    author  = {Junnan Liu and Hongwei Liu and Songyang Zhang and Kai Chen},
    year    = 2025,
    eprint  = {arXiv:2512.01925},
}""",
}


class ReproMixin:
    """
    RePro for any trainer with an `AdvantageHook` among its bases: `class T(ReproMixin, AdvantageHook, GRPOTrainer)`.

    Its `_compute_advantages` is `super()._compute_advantages(rollout)` plus `repro_alpha` times the process advantage
    of METHOD §5. With `repro_alpha=0` it is `super()` alone.

    Args:
        answer_fn: takes a dataset row, returns the bare ground-truth answer, or `None` for a row without one. Replaces
            `repro_answer_column`.

    All other arguments are those of the trainer. `args` may be the plain TRL config: RePro's settings then have their
    defaults.
    """

    _config_class: type[ReproConfigMixin]
    _paper = REPRO_PAPER
    # False where the training set is known to hold no ground truth.
    _has_answers = True
    _warned_of_merged_segments = False

    def __init__(
        self,
        model: Any,
        reward_funcs: Any = None,
        args: Any = None,
        *more: Any,
        answer_fn: Callable[[dict[str, Any]], str | None] | None = None,
        **kwargs: Any,
    ) -> None:
        if args is None:
            model_name = model if isinstance(model, str) else get_config_model_id(model.config)
            args = self._config_class(f"{model_name.split('/')[-1]}-RePro")
        elif not isinstance(args, ReproConfigMixin):
            args = self._config_class.from_trl(args)
        super().__init__(model, reward_funcs, args, *more, **kwargs)
        self._answer_fn = answer_fn
        self._check_dataset()
        self._repro_method = self._choose_method()
        self._is_method_proven = self._repro_method == "replay" or self.args.repro_method == "shared"
        self._answer_cache: dict[str, tuple[AnswerTokens, AnswerTokens]] = {}

    # ------------------------------------------------------------------------------------------------ start-up checks

    def _check_dataset(self) -> None:
        columns = self.train_dataset.column_names
        if columns is None:  # a streamed dataset may not know its columns; rows are checked as they come
            return
        if "prompt" not in columns and self.environment_factories is None:
            raise ValueError(
                f"train_dataset has no column 'prompt', only {columns}. Rename the column that holds the problem, for "
                "example dataset.rename_column('question', 'prompt')."
            )
        if self.args.repro_alpha > 0 and self._answer_fn is None and self.args.repro_answer_column not in columns:
            self._report_missing_answers(columns)
            self._has_answers = False

    def _report_missing_answers(self, columns: list[str]) -> None:
        """An error where a ground truth seems to be meant; else a warning, so that data that train GRPO train this."""
        column = self.args.repro_answer_column
        candidates = [name for name in columns if _GROUND_TRUTH_NAME.search(name)]
        if column != ReproConfigMixin.repro_answer_column or candidates:
            raise ValueError(
                f"repro_answer_column={column!r} is not a column of the dataset, which has {columns}. Name the column "
                "with the ground truth, or give the trainer an `answer_fn`."
            )
        if self.accelerator.is_main_process:
            logger.warning_once(
                f"The dataset has no column {column!r}, only {columns}: without a ground truth RePro adds nothing to "
                "the outcome advantage. Name its column in `repro_answer_column`, or give the trainer an `answer_fn`."
            )

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

    def _prove_shared(self, batch: dict[str, Any], rows: list[ScoringRow], num_boundaries: int) -> None:
        """Compare both methods on one row of every process, once; what the model's settings promise may not hold."""
        row = max(rows, key=lambda row: len(row.starts), default=self._idle_row())
        difference = method_difference(self.model, batch, row, self.args.repro_top_k, num_boundaries, self.temperature)
        # What an idle process computes takes part in the forwards, not in the verdict.
        local = torch.tensor([difference if rows else 0.0], device=batch["completion_ids"].device)
        difference = self.accelerator.gather(local).max().item()
        half = self.accelerator.mixed_precision in {"fp16", "bf16"} or unwrap(self.model).dtype.itemsize < 4
        if difference > (_TOLERANCE_16_BIT if half else _TOLERANCE_32_BIT):
            self._repro_method = "replay"
            self._warn_of_replay(f"on this model 'shared' differs from it by {difference:.2g} nats per token")
        self._is_method_proven = True

    def _set_signature_columns_if_needed(self) -> None:
        # With `remove_unused_columns=True`, TRL keeps only what it reads itself.
        super()._set_signature_columns_if_needed()
        if self.args.repro_answer_column not in self._signature_columns:
            self._signature_columns = [*self._signature_columns, self.args.repro_answer_column]

    # ----------------------------------------------------------------------------------------------------- advantages

    def _compute_advantages(self, rollout: Rollout) -> Tensor:
        outcome = super()._compute_advantages(rollout)
        alpha = self.args.repro_alpha
        if alpha == 0 or not self._has_answers:
            return outcome
        started = time.perf_counter()
        rows, counts = self._scoring_rows(rollout)
        if self.args.repro_credit == "segment":
            self._warn_of_merged_segments(rows)
        scored = self._score(rollout, rows)
        if outcome.dim() == 1:
            outcome = outcome.unsqueeze(1)
        mask = rollout.policy_mask
        process = alpha * scored.advantages * mask
        self._log_repro(scored, outcome * mask, process, counts, time.perf_counter() - started)
        return outcome * mask + process

    def _scoring_rows(self, rollout: Rollout) -> tuple[list[ScoringRow], dict[str, int]]:
        """The completions that can be scored, and how many have no answer, delimiter or end-of-thinking marker."""
        args, tokenizer = self.args, self._tokenizer
        completion_mask = rollout.batch["completion_mask"].bool()
        policy_mask = rollout.policy_mask.cpu()
        rows = []
        counts = {"no_answer": 0, "no_delimiter": 0, "no_think_end": 0}
        lengths = completion_mask.sum(dim=1).tolist()
        for index, (example, ids, length) in enumerate(
            zip(rollout.examples, rollout.batch["completion_ids"].tolist(), lengths, strict=True)
        ):
            ids = ids[:length]
            starts, end = find_segment_starts(tokenizer, ids, args.repro_delimiter, args.repro_think_end)
            finished = args.repro_think_end is not None and has_think_end(tokenizer, ids, end, args.repro_think_end)
            answer = self._answer_of(example)
            counts["no_answer"] += answer is None
            counts["no_delimiter"] += not starts
            counts["no_think_end"] += not finished
            if answer is None or length == 0 or not policy_mask[index].any():
                continue
            answer_tokens, closing_tokens = self._encode_answer(answer)
            rows.append(
                ScoringRow(
                    index=index,
                    # What a tool wrote is no decision of the policy, so no segment starts there.
                    starts=[start for start in starts if policy_mask[index, start]],
                    end=end,
                    answer=answer_tokens,
                    last_answer=closing_tokens if finished else answer_tokens,
                )
            )
        return rows, counts

    def _warn_of_merged_segments(self, rows: list[ScoringRow]) -> None:
        most_starts = max((len(row.starts) for row in rows), default=0)
        if most_starts > self.args.repro_top_k and not self._warned_of_merged_segments:
            self._warned_of_merged_segments = True
            logger.warning(
                f"repro_credit='segment' with repro_top_k={self.args.repro_top_k}, and a completion has {most_starts} "
                "segment starts: segments are merged, and useless ones share the reward of useful ones, so that the "
                "policy may learn to write more of them. Raise repro_top_k until all starts are kept."
            )

    def _answer_of(self, example: dict[str, Any]) -> str | None:
        if self._answer_fn is not None:
            return self._answer_fn(example) or None
        column = self.args.repro_answer_column
        if column not in example and self.model.training:
            self._report_missing_answers(list(example))
        return extract_answer(example.get(column))

    def _encode_answer(self, answer: str) -> tuple[AnswerTokens, AnswerTokens]:
        """The answer as appended at every boundary, and as appended where the thinking region has been closed."""
        if answer not in self._answer_cache:
            args = self.args
            text = answer_text(answer, args.repro_answer_template)
            closing_prefix = prefix_after_marker(args.repro_answer_prefix, args.repro_think_end)
            tokens = encode_answer(self._tokenizer, text, args.repro_answer_prefix)
            closing = (
                tokens
                if closing_prefix == args.repro_answer_prefix
                else encode_answer(self._tokenizer, text, closing_prefix)
            )
            self._answer_cache[answer] = (tokens, closing)
        return self._answer_cache[answer]

    def _score(self, rollout: Rollout, rows: list[ScoringRow]) -> ScoredRollouts:
        """METHOD §3 to §5.2 for this process's completions, normalised over those of all processes."""
        args = self.args
        count, length = rollout.batch["completion_ids"].shape
        boundaries, boundary_mask, objective = self._compute_objective(rollout.batch, rows)
        boundary_mask &= self._finite_rows(objective, boundary_mask).unsqueeze(1)
        objective = objective.masked_fill(~boundary_mask, 0.0)
        rewards = self._segment_rewards(objective, boundary_mask)
        segment_mask = boundary_mask[:, 1:]
        gathered = [self.accelerator.gather(tensor) for tensor in (rewards, segment_mask, rollout.groups)]
        first_row = self.accelerator.process_index * count
        normalized = normalize_rewards(*gathered, scale=args.repro_scale, center=args.repro_center)
        normalized = normalized[first_row : first_row + count]
        return ScoredRollouts(
            boundaries=boundaries,
            boundary_mask=boundary_mask,
            objective=objective,
            magnitude=magnitude_score(objective, boundary_mask),
            stability=stability_score(objective, boundary_mask, args.repro_ema_weight),
            process_rewards=rewards,
            normalized_rewards=normalized,
            advantages=self._token_advantages(normalized, segment_mask, boundaries[:, 1:], length),
        )

    def _segment_rewards(self, objective: Tensor, boundary_mask: Tensor) -> Tensor:
        """(B, M - 1) reward r of each segment (METHOD §4), from J (B, M) at the boundaries."""
        args = self.args
        return process_rewards(
            objective, boundary_mask, args.repro_stability_weight, args.repro_ema_weight, args.repro_baseline_score
        )

    def _token_advantages(self, normalized: Tensor, segment_mask: Tensor, ends: Tensor, length: int) -> Tensor:
        """(B, T) advantage of each token (METHOD §5.2), from r̂ (B, M - 1) of segments that end at `ends`."""
        spread = segment_credit if self.args.repro_credit == "segment" else reward_to_go
        return spread(normalized, segment_mask, ends, length)

    def _compute_objective(self, batch: dict[str, Any], rows: list[ScoringRow]) -> tuple[Tensor, Tensor, Tensor]:
        """METHOD §2.3 to §3: boundaries (B, M), boundary_mask (B, M) and J (B, M); masked in rows not asked for."""
        args, device = self.args, batch["completion_ids"].device
        micro_batch_size = args.per_device_train_batch_size if self.model.training else args.per_device_eval_batch_size

        # Ranks must run the same number of forwards whatever their texts hold, or ZeRO-3 and FSDP2 deadlock.
        most_starts = max((len(row.starts) for row in rows), default=0)
        num_micro_batches = math.ceil(len(rows) / micro_batch_size)
        local_sizes = torch.tensor([[num_micro_batches, most_starts, "pixel_values" in batch]], device=device)
        num_micro_batches, most_starts, has_images = self.accelerator.gather(local_sizes).max(dim=0).values.tolist()
        num_boundaries = min(args.repro_top_k, most_starts) + 2

        if has_images:
            if args.repro_method == "shared":
                raise ValueError("repro_method='shared' cannot score prompts with images. Use 'replay' or 'auto'.")
            if self._repro_method == "shared":
                self._repro_method, self._is_method_proven = "replay", True
                self._warn_of_replay("prompts hold images")
            with evaluation_mode(self.model):
                return score_rows_with_images(
                    self._get_per_token_logps_and_entropies,
                    self.model,
                    batch,
                    rows,
                    args.repro_top_k,
                    num_boundaries,
                    micro_batch_size,
                )

        count = len(batch["completion_ids"])
        boundaries = torch.zeros(count, num_boundaries, dtype=torch.long, device=device)
        boundary_mask = torch.zeros(count, num_boundaries, dtype=torch.bool, device=device)
        objective = torch.zeros(count, num_boundaries, device=device)
        rows = sorted(rows, key=lambda row: row.end)  # completions of like length share a micro-batch
        with (
            evaluation_mode(self.model),
            masked_attention(self.model) if self._repro_method == "shared" else nullcontext(),
            self.accelerator.autocast(),
        ):
            if num_micro_batches > 0 and not self._is_method_proven:
                self._prove_shared(batch, rows, num_boundaries)
            for first in range(0, num_micro_batches * micro_batch_size, micro_batch_size):
                micro_batch = rows[first : first + micro_batch_size]
                results = score_rows(
                    self.model,
                    batch,
                    micro_batch or [self._idle_row()],
                    args.repro_top_k,
                    num_boundaries,
                    self.temperature,
                    self._repro_method,
                )
                index = torch.tensor([row.index for row in micro_batch], dtype=torch.long, device=device)
                for target, result in zip((boundaries, boundary_mask, objective), results, strict=True):
                    target[index] = result[: len(micro_batch)]
        return boundaries, boundary_mask, objective

    def _idle_row(self) -> ScoringRow:
        """What a process scores, and throws away, while the others still have completions."""
        answer = AnswerTokens([self._tokenizer.eos_token_id], [True])
        return ScoringRow(index=0, starts=[], end=1, answer=answer, last_answer=answer)

    def _finite_rows(self, objective: Tensor, boundary_mask: Tensor) -> Tensor:
        finite = objective.masked_fill(~boundary_mask, 0.0).isfinite().all(dim=1)
        if not finite.all():
            logger.warning(
                "%d completion(s) got no process advantage: the log-probability of the answer is not finite.",
                (~finite).sum().item(),
            )
        return finite

    # -------------------------------------------------------------------------------------------------------- metrics

    def _log_repro(
        self, scored: ScoredRollouts, outcome: Tensor, process: Tensor, counts: dict[str, int], seconds: float
    ) -> None:
        rows = scored.scored
        last = scored.boundary_mask.sum(dim=1, keepdim=True).clamp(min=1) - 1
        first_objective, last_objective = scored.objective[:, 0], scored.objective.gather(1, last).squeeze(1)
        num_rows, num_scored, num_segments = len(rows), rows.sum(), scored.segment_mask.sum()
        outcome_size, process_size = outcome.abs().sum(), process.abs().sum()
        ratios = {  # metric: (sum, number of things summed), both over this process
            "objective_first": (first_objective.sum(), num_scored),
            "objective_last": (last_objective.sum(), num_scored),
            "objective_gain": ((last_objective - first_objective).sum(), num_scored),
            "magnitude_score": (scored.magnitude.gather(1, last).sum(), num_scored),
            "stability_score": (scored.stability.gather(1, last).sum(), num_scored),
            "process_reward/mean": (scored.process_rewards.sum(), num_segments),
            "process_reward/std": (scored.process_rewards.square().sum(), num_segments),
            "segments": (num_segments, num_scored),
            "advantage_share": (process_size, outcome_size + process_size),
            "seconds": (seconds, 1),
            **{f"{name}_ratio": (count, num_rows) for name, count in counts.items()},
        }
        local = torch.tensor(
            [[float(total), float(number)] for total, number in ratios.values()], device=process.device
        )
        totals = self.accelerator.reduce(local, reduction="sum").tolist()
        means = {
            name: total / number if number else math.nan for name, (total, number) in zip(ratios, totals, strict=True)
        }
        variance = means["process_reward/std"] - means["process_reward/mean"] ** 2
        means["process_reward/std"] = math.sqrt(max(variance, 0.0)) if variance == variance else math.nan
        metrics = self._metrics["train" if self.model.training else "eval"]
        for name, value in means.items():
            metrics[f"repro/{name}"].append(value)

        if self.log_completions:
            columns = {
                "repro_segments": scored.segment_mask.sum(dim=1),
                "repro_objective_first": first_objective,
                "repro_objective_last": last_objective,
                "repro_process_reward": scored.process_rewards.sum(dim=1),
            }
            for name, values in columns.items():
                values = [value if used else None for value, used in zip(values.tolist(), rows.tolist(), strict=True)]
                self._logs["extra"][name].extend(gather_object(values))
