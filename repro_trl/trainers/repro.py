"""`ReproMixin`: adds the process advantage to whatever outcome advantage a trainer computes."""

import math
import time
from collections.abc import Callable
from typing import Any

from accelerate.utils import gather_object
from torch import Tensor
from transformers.utils import logging
from trl.trainer.utils import get_config_model_id

from ..config import AUTO_PREFIX, ReproConfigMixin
from ..method.advantage import normalize_rewards
from ..method.measure import Objectives
from ..method.process_reward import score_gains
from ..method.score import ScoredRollouts, reward_completions, spread_rewards
from ..method.segments import find_segment_starts
from ..verifier import verify_answer
from .ground_truth import GroundTruth
from .health import ObjectiveHealth, written_texts
from .hook import Rollout
from .markers import MarkerKeeper
from .model_card import ReproModelCard
from .policy_scorer import BatchScores, PolicyScorer
from .prefix_search import PrefixSearch
from .shared_pass import SharedPass, sharing_obstacle
from .startup import check_dataset, check_engine_dtype
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


class ReproMixin(ReproModelCard):
    """
    RePro for any trainer with an `AdvantageHook` among its bases: `class T(ReproMixin, AdvantageHook, GRPOTrainer)`.

    Its `_compute_advantages` is `super()._compute_advantages(rollout)` plus `repro_alpha` times the process advantage
    of METHOD §5. With `repro_alpha=0` it is `super()` alone.

    Args:
        answer_fn: takes a dataset row and returns its ground truth in any form that a column may have, or `None` if
            the row has none. Replaces `repro_answer_column`.

    All other arguments are those of the trainer. `args` can be a plain TRL config; RePro's settings then have their
    defaults.
    """

    _config_class: type[ReproConfigMixin]
    _paper = REPRO_PAPER

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
        check_dataset(self)
        check_engine_dtype(self)
        self._ground_truth = GroundTruth(self.train_dataset, args, answer_fn, self.accelerator.is_main_process)
        self._traces = TraceRecorder(self)
        self._markers = MarkerKeeper(self._tokenizer, self.args.repro_think_end, self.accelerator.is_main_process)
        self._kept: dict[str, Any] = {}  # what checkpoints hold the state of
        if self.args.repro_alpha > 0:
            self._scorer = PolicyScorer(
                self.model, self._tokenizer, self.args, self.accelerator, self.temperature, self.segment_starts
            )
            self._shared_pass = SharedPass(self._scorer, lambda: sharing_obstacle(self))
            self._health = {mode: ObjectiveHealth(self._scorer) for mode in ("train", "eval")}
            self._kept["objective_health"] = self._health["train"]
            if self.args.repro_answer_prefix == AUTO_PREFIX:
                self._prefix_search = self._kept["prefix_search"] = PrefixSearch(self._scorer)

    # ----------------------------------------------------------------------------------------------- what TRL hands on

    def _set_signature_columns_if_needed(self) -> None:
        # With `remove_unused_columns=True`, TRL keeps only what it reads itself.
        super()._set_signature_columns_if_needed()
        self._signature_columns = self._ground_truth.kept_columns(self._signature_columns)

    def _read_completions(self, completions: list[Any], completion_ids: list[list[int]]) -> None:
        super()._read_completions(completions, completion_ids)
        self._markers.restore(completions, completion_ids)

    # ----------------------------------------------------------------------------------------------------- advantages

    def _before_rollout(self, examples: list[dict[str, Any]]) -> None:
        super()._before_rollout(examples)
        if self.model.training:
            self._ground_truth.observe(examples)
        if self.args.repro_alpha == 0 or not self._ground_truth.has_answers:
            return
        self._scorer.model = self.model  # accelerate may have wrapped it
        self._answers = [self._ground_truth.answer_of(example) for example in examples]
        self._shared_pass.open(self._answers)

    def _compute_advantages(self, rollout: Rollout) -> Tensor:
        outcome = super()._compute_advantages(rollout)
        alpha = self.args.repro_alpha
        if alpha == 0 or not self._ground_truth.has_answers:
            return outcome
        texts = written_texts(self._tokenizer, rollout.batch, self.eos_token_ids)
        verdicts = [verify_answer(*pair, self.args.repro_think_end) for pair in zip(texts, self._answers, strict=True)]
        self._shared_pass.stop_waiting()
        if self._prefix_search is not None:
            told = (rollout.batch, self._answers, rollout.policy_mask, texts, verdicts, self._size)
            if self._prefix_search.observe(*told):
                self._shared_pass.close()
        scores = self._measure(rollout)
        started = time.perf_counter()
        scored = self._newest_scored = self._reward(rollout, scores.objectives)
        if outcome.dim() == 1:
            outcome = outcome.unsqueeze(1)
        outcome = outcome * rollout.policy_mask
        process = alpha * scored.advantages * rollout.policy_mask
        seconds = scores.seconds + time.perf_counter() - started
        self._log_repro(scored, outcome, process, scores.counts, seconds)
        auc = self._health[self._mode].update(scored, verdicts)
        self._metrics[self._mode]["repro/objective_auc"].append(auc)
        total = outcome + process
        if self.args.repro_trace_steps > 0 or self.log_completions:
            self._traces.record(rollout, scored, total, self._answers, auc)
        return total

    def _measure(self, rollout: Rollout) -> BatchScores:
        """METHOD §2 and §3: J at the boundaries of this process's completions; the one stage that runs the policy."""
        if self._shared_pass.scores is not None:
            return self._shared_pass.scores
        image_pass = self._get_per_token_logps_and_entropies
        return self._scorer.score(rollout.batch, self._answers, rollout.policy_mask, self._size, image_pass)

    def _reward(self, rollout: Rollout, objectives: Objectives) -> ScoredRollouts:
        """METHOD §4 to §5.2: from J to the advantage of each token."""
        objectives, num_dropped = objectives.finite()
        if num_dropped:
            logger.warning(
                "%d completion(s) got no process advantage, because the log-probability of the answer is not finite.",
                num_dropped,
            )
        length = rollout.batch["completion_ids"].shape[1]
        return reward_completions(
            objectives,
            self.args,
            rollout.groups,
            length,
            normalize=self._normalize,
            segment_rewards=self.segment_rewards,
            token_advantages=self.token_advantages,
        )

    def _normalize(self, rewards: Tensor, mask: Tensor, groups: Tensor) -> Tensor:
        """METHOD §5.1 over all processes: (B, M - 1) r̂ of this process's segments."""
        count, args = len(rewards), self.args
        gathered = [self.accelerator.gather(tensor) for tensor in (rewards, mask, groups)]
        first_row = self.accelerator.process_index * count
        normalized = normalize_rewards(*gathered, scale=args.repro_scale, center=args.repro_center)
        return normalized[first_row : first_row + count]

    # ----------------------------------------------------------------------------------------------- to be overridden

    def segment_starts(self, completion_ids: list[int]) -> tuple[list[int], int]:
        """
        Where a completion may be cut (METHOD §2). Override it for your own segmenter.

        Args:
            completion_ids: L token ids without padding.

        Returns:
            Candidate starts, ascending token positions in [1, L), and the end boundary, at most L.
        """
        args = self.args
        return find_segment_starts(self._tokenizer, completion_ids, args.repro_delimiter, args.repro_think_end)

    def segment_rewards(self, objective: Tensor, scores: Tensor, boundary_mask: Tensor) -> Tensor:
        """
        The reward r of each segment (METHOD §4). Override it for your own reward on the same scored rollout.

        Args:
            objective: (B, M) J at the boundaries, nats per token; 0 in padding.
            scores: (B, M) S at the boundaries.
            boundary_mask: (B, M) bool.

        Returns:
            (B, M - 1), before normalisation; 0 in padding.
        """
        return score_gains(scores, boundary_mask)

    def token_advantages(self, normalized: Tensor, segment_mask: Tensor, ends: Tensor, length: int) -> Tensor:
        """
        The advantage of each token (METHOD §5.2). Override it to spread rewards by your own rule.

        Args:
            normalized: (B, M - 1) r̂ of each segment.
            segment_mask: (B, M - 1) bool.
            ends: (B, M - 1) int, one past each segment's last token.
            length: T, completion tokens.

        Returns:
            (B, T), before the weight alpha.
        """
        return spread_rewards(normalized, segment_mask, ends, length, self.args)

    # ----------------------------------------------------------------------------------------------------- checkpoints

    def _kept_state(self) -> dict[str, Any]:
        return super()._kept_state() | {name: part.state() for name, part in self._kept.items()}

    def _restore_state(self, state: dict[str, Any]) -> None:
        super()._restore_state(state)
        for name in state.keys() & self._kept.keys():
            self._kept[name].restore(state[name])

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
        metrics = self._metrics[self._mode]
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
