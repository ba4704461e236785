"""`ReproMixin`: adds the process advantage to whatever outcome advantage a trainer computes."""

import math
import time
from collections.abc import Callable
from typing import Any

from accelerate.utils import gather_object
from torch import Tensor
from transformers.utils import logging
from trl.trainer.utils import get_config_model_id

from ..answers import answer_text
from ..config import ReproConfigMixin
from ..method.advantage import normalize_rewards, reward_to_go, segment_credit
from ..method.process_reward import magnitude_score, process_rewards, stability_score
from ..method.score import AnswerTokens, ScoredRollouts, ScoringRow, encode_answer, has_think_end, prefix_after_marker
from ..method.segments import find_segment_starts
from .ground_truth import GroundTruth
from .hook import Rollout
from .policy_scorer import CompletionScores, PolicyScoring
from .trace_recorder import TraceRecorder

logger = logging.get_logger(__name__)

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


class ReproMixin(PolicyScoring):
    """
    RePro for any trainer with an `AdvantageHook` among its bases: `class T(ReproMixin, AdvantageHook, GRPOTrainer)`.

    Its `_compute_advantages` is `super()._compute_advantages(rollout)` plus `repro_alpha` times the process advantage
    of METHOD §5. With `repro_alpha=0` it is `super()` alone.

    Args:
        answer_fn: takes a dataset row, returns its ground truth in any form that a column may hold it, or `None` for a
            row without one. Replaces `repro_answer_column`.

    All other arguments are those of the trainer. `args` may be the plain TRL config: RePro's settings then have their
    defaults.
    """

    _config_class: type[ReproConfigMixin]
    _paper = REPRO_PAPER
    _warned_of_merged_segments = False

    def __init__(
        self,
        model: Any,
        reward_funcs: Any = None,
        args: Any = None,
        *more: Any,
        answer_fn: Callable[[dict[str, Any]], Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if args is None:
            model_name = model if isinstance(model, str) else get_config_model_id(model.config)
            args = self._config_class(f"{model_name.split('/')[-1]}-RePro")
        elif not isinstance(args, ReproConfigMixin):
            args = self._config_class.from_trl(args)
        super().__init__(model, reward_funcs, args, *more, **kwargs)
        self._check_dataset()
        self._ground_truth = GroundTruth(self.train_dataset, args, answer_fn, self.accelerator.is_main_process)
        self._answer_cache: dict[str, tuple[AnswerTokens, AnswerTokens]] = {}
        self._traces = TraceRecorder(self)
        self._start_scoring()

    # ------------------------------------------------------------------------------------------------ start-up checks

    def _check_dataset(self) -> None:
        columns = self.train_dataset.column_names
        if columns is not None and "prompt" not in columns and self.environment_factories is None:
            raise ValueError(
                f"train_dataset has no column 'prompt', only {columns}. Rename the column that holds the problem, for "
                "example dataset.rename_column('question', 'prompt')."
            )

    @property
    def _has_answers(self) -> bool:
        return self._ground_truth.has_answers

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        if self.model.training:
            self._ground_truth.observe(inputs)
        return super()._generate_and_score_completions(inputs)

    def _set_signature_columns_if_needed(self) -> None:
        # With `remove_unused_columns=True`, TRL keeps only what it reads itself.
        super()._set_signature_columns_if_needed()
        self._signature_columns = self._ground_truth.kept_columns(self._signature_columns)

    # ----------------------------------------------------------------------------------------------------- advantages

    def _compute_advantages(self, rollout: Rollout) -> Tensor:
        outcome = super()._compute_advantages(rollout)
        alpha = self.args.repro_alpha
        if alpha == 0 or not self._has_answers:
            return outcome
        scores = self._score_completions(rollout)
        started = time.perf_counter()
        scored = self._reward(rollout, scores)
        if outcome.dim() == 1:
            outcome = outcome.unsqueeze(1)
        mask = rollout.policy_mask
        process = alpha * scored.advantages * mask
        seconds = scores.seconds + time.perf_counter() - started
        self._log_repro(scored, outcome * mask, process, scores.counts, seconds)
        total = outcome * mask + process
        if self.args.repro_trace_steps > 0 or self.log_completions:
            self._traces.record(
                rollout, scored, total, [self._ground_truth.answer_of(example) for example in rollout.examples]
            )
        return total

    def _scoring_rows(
        self, examples: list[dict[str, Any]], completion_ids: Tensor, completion_mask: Tensor, policy_mask: Tensor
    ) -> tuple[list[ScoringRow], dict[str, int]]:
        args, tokenizer = self.args, self._tokenizer
        policy_mask = policy_mask.cpu()
        rows = []
        counts = {"no_answer": 0, "no_delimiter": 0, "no_think_end": 0}
        lengths = completion_mask.sum(dim=1).tolist()
        for index, (example, ids, length) in enumerate(zip(examples, completion_ids.tolist(), lengths, strict=True)):
            ids = ids[:length]
            starts, end = find_segment_starts(tokenizer, ids, args.repro_delimiter, args.repro_think_end)
            finished = args.repro_think_end is not None and has_think_end(tokenizer, ids, end, args.repro_think_end)
            answer = self._ground_truth.answer_of(example)
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
        if args.repro_credit == "segment":
            self._warn_of_merged_segments(rows)
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

    def _reward(self, rollout: Rollout, scores: CompletionScores) -> ScoredRollouts:
        """METHOD §4 to §5.2 for this process's completions, normalised over those of all processes."""
        args = self.args
        count, length = rollout.batch["completion_ids"].shape
        boundaries = scores.boundaries
        boundary_mask = scores.boundary_mask & self._finite_rows(scores).unsqueeze(1)
        objective = scores.objective.masked_fill(~boundary_mask, 0.0)
        rewards = self._segment_rewards(objective, boundary_mask)
        segment_mask = boundary_mask[:, 1:]
        gathered = [self.accelerator.gather(tensor) for tensor in (rewards, segment_mask, rollout.groups)]
        first_row = self.accelerator.process_index * count
        normalized = normalize_rewards(*gathered, scale=args.repro_scale, center=args.repro_center)
        normalized = normalized[first_row : first_row + count]
        return ScoredRollouts(
            boundaries=boundaries,
            boundary_mask=boundary_mask,
            entropies=scores.entropies,
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

    def _finite_rows(self, scores: CompletionScores) -> Tensor:
        finite = scores.objective.masked_fill(~scores.boundary_mask, 0.0).isfinite().all(dim=1)
        if not finite.all():
            logger.warning(
                "%d completion(s) got no process advantage: the log-probability of the answer is not finite.",
                (~finite).sum().item(),
            )
        return finite

    # -------------------------------------------------------------------------------------------------------- metrics

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        super().log(logs, start_time)
        self._traces.show()

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
        sums = self._sum_over_processes(ratios)
        means = {name: total / number if number else math.nan for name, (total, number) in sums.items()}
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
