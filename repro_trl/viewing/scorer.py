"""Scores given completions with a model, outside a trainer: the same stages, one prompt at a time."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jinja2 import TemplateError
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from ..answers import answer_text
from ..config import ReproConfigMixin
from ..method.advantage import normalize_rewards, reward_to_go, segment_credit
from ..method.branch_attention import unsupported_reason
from ..method.process_reward import magnitude_score, process_rewards, scores, stability_score
from ..method.score import (
    TOLERANCE_16_BIT,
    TOLERANCE_32_BIT,
    AnswerTokens,
    ScoredRollouts,
    ScoringRow,
    encode_answer,
    has_think_end,
    masked_attention,
    method_difference,
    prefix_after_marker,
    score_rows,
)
from ..method.segments import find_segment_starts
from ..trainers.policy_scorer import CompletionScores

logger = logging.get_logger(__name__)

NO_ANSWER = "no ground truth"
EMPTY = "empty completion"
TOO_LONG = "longer than the model's table of positions"
NOT_FINITE = "the log-probability of the answer is not finite"


class _Plain:
    def __post_init__(self) -> None:
        pass


@dataclass
class ScoringSettings(ReproConfigMixin, _Plain):
    """RePro's settings by themselves, validated as those of a trainer."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.repro_scale == "batch":
            raise ValueError(
                "repro_scale='batch' needs a generation batch. Outside training choose 'group' or 'none'."
            )


@dataclass
class ScoredGroup:
    """
    The completions of one prompt, scored.

    Attributes:
        scored: the C completions; those that were not scored are all padding.
        scores: (C, M) S at each boundary; 0 in padding.
        skipped: (C,) why a completion was not scored; `None` for those that were.
    """

    scored: ScoredRollouts
    scores: Tensor
    skipped: list[str | None]


class CompletionScorer:
    """
    RePro's scores of given completions (METHOD §2 to §5.2), as a trainer with the same settings would compute them.

    Only completions of one prompt are padded to a common length, on the right, so that a group's scores depend on
    nothing but the group.

    Args:
        model: causal language model, in evaluation mode.
        tokenizer: its tokenizer.
        settings: RePro's.
        temperature: by which logits are divided.
        batch_size: completions of one prompt that share a forward.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        settings: ScoringSettings,
        temperature: float = 1.0,
        batch_size: int = 8,
    ) -> None:
        self.model, self.tokenizer, self.settings = model, tokenizer, settings
        self.temperature, self.batch_size = temperature, batch_size
        self._method = self._choose_method()

    @property
    def context_length(self) -> int | None:
        """Tokens that the model was made for; `None` where its configuration does not say."""
        return getattr(self.model.config.get_text_config(), "max_position_embeddings", None)

    def exceeds_context(self, prompt_ids: list[int], completion_ids: list[int]) -> bool:
        """Whether prompt and completion are longer than what the model was made for."""
        return self.context_length is not None and len(prompt_ids) + len(completion_ids) > self.context_length

    def encode_prompt(self, prompt: str | list[dict[str, Any]]) -> list[int]:
        """Token ids of a prompt as TRL makes them: messages through the chat template, text as it is."""
        if isinstance(prompt, str):
            return self.tokenizer(prompt)["input_ids"]
        goes_on = prompt[-1].get("role") == "assistant"
        return self.tokenizer.apply_chat_template(
            prompt, add_generation_prompt=not goes_on, continue_final_message=goes_on, return_dict=True
        )["input_ids"]

    def prompt_problem(self, prompt: str | list[dict[str, Any]]) -> str | None:
        """Why a prompt cannot be put to the model; `None` where it can."""
        try:
            return None if self.encode_prompt(prompt) else "its prompt has no tokens"
        except (TemplateError, ValueError) as error:  # templates refuse roles in the wrong order, and so on
            return f"its prompt does not fit the model's chat template ({error})"

    def encode_completion(self, completion: str) -> list[int]:
        """Token ids of a completion's text."""
        return self.tokenizer(completion, add_special_tokens=False)["input_ids"]

    def score(
        self,
        prompt_ids: list[int],
        completions: Sequence[list[int]],
        answers: Sequence[str | None],
    ) -> ScoredGroup:
        """
        Score the completions of one prompt, which are one group.

        Args:
            prompt_ids: at least one token.
            completions: C lists of token ids.
            answers: (C,) bare ground truths.

        Raises:
            ValueError: an empty prompt.
        """
        if not prompt_ids:
            raise ValueError("the prompt has no tokens")
        skipped = [
            NO_ANSWER if answer is None else None if ids else EMPTY
            for ids, answer in zip(completions, answers, strict=True)
        ]
        batch = self._batch(prompt_ids, completions)
        rows = []
        for index, (ids, answer) in enumerate(zip(completions, answers, strict=True)):
            if skipped[index] is None:
                row = self._row(index, ids, answer)
                if self._has_room(len(prompt_ids) + row.end + len(row.answer.ids)):
                    rows.append(row)
                else:
                    skipped[index] = TOO_LONG
        scored = self._score(batch, rows)
        for row in rows:
            if not scored.scored[row.index]:
                skipped[row.index] = NOT_FINITE
        settings = self.settings
        score = scores(
            scored.objective,
            scored.boundary_mask,
            settings.repro_stability_weight,
            settings.repro_ema_weight,
            settings.repro_baseline_score,
        )
        return ScoredGroup(scored, score, skipped)

    def _has_room(self, length: int) -> bool:
        # Rotary positions go on beyond what a model was made for; a table of positions ends.
        has_table = getattr(self.model.config.get_text_config(), "rope_parameters", None) is None
        return not has_table or self.context_length is None or length <= self.context_length

    def _choose_method(self) -> str:
        method = self.settings.repro_method
        if method == "replay":
            return method
        with masked_attention(self.model):
            problem = unsupported_reason(self.model)
            if problem is None and method == "auto":
                problem = self._shared_error()
        if problem is None:
            return "shared"
        if method == "shared":
            raise ValueError(f"repro_method='shared' is not exact for this model: {problem}. Use 'replay' or 'auto'.")
        logger.warning("repro_method='auto' takes the slower 'replay': %s.", problem)
        return "replay"

    def _shared_error(self) -> str | None:
        """What both methods differ by on some text of no meaning; never on a row, or the first would decide."""
        ids = self.encode_completion("1 + 1 = 2\n\n2 + 2 = 4\n\n")
        batch = self._batch(ids, [ids])
        row = self._row(0, ids, "4")
        num_boundaries = min(self.settings.repro_top_k, len(row.starts)) + 2
        difference = method_difference(
            self.model, batch, row, self.settings.repro_top_k, num_boundaries, self.temperature
        )
        tolerance = TOLERANCE_16_BIT if self.model.dtype.itemsize < 4 else TOLERANCE_32_BIT
        if difference <= tolerance:
            return None
        return f"on this model 'shared' differs from it by {difference:.2g} nats per token"

    def _batch(self, prompt_ids: list[int], completions: Sequence[list[int]]) -> dict[str, Tensor]:
        device, count = self.model.device, len(completions)
        prompts = torch.tensor([prompt_ids] * count, dtype=torch.long, device=device).view(count, len(prompt_ids))
        lengths = torch.tensor([len(ids) for ids in completions], device=device)
        width = max(map(len, completions))
        padded = torch.tensor([ids + [0] * (width - len(ids)) for ids in completions], dtype=torch.long, device=device)
        return {
            "prompt_ids": prompts,
            "prompt_mask": torch.ones_like(prompts, dtype=torch.bool),
            "completion_ids": padded.view(count, width),
            "completion_mask": torch.arange(width, device=device) < lengths.unsqueeze(1),
        }

    def _row(self, index: int, ids: list[int], answer: str) -> ScoringRow:
        settings, tokenizer = self.settings, self.tokenizer
        think_end, prefix = settings.repro_think_end, settings.repro_answer_prefix
        starts, end = find_segment_starts(tokenizer, ids, settings.repro_delimiter, think_end)
        finished = think_end is not None and has_think_end(tokenizer, ids, end, think_end)
        tokens = self._encode_answer(answer, prefix)
        closing = prefix_after_marker(prefix, think_end)
        last = self._encode_answer(answer, closing) if finished and closing != prefix else tokens
        return ScoringRow(index, starts, end, answer=tokens, last_answer=last)

    def _encode_answer(self, answer: str, prefix: str) -> AnswerTokens:
        return encode_answer(self.tokenizer, answer_text(answer, self.settings.repro_answer_template), prefix)

    def _score(self, batch: dict[str, Tensor], rows: list[ScoringRow]) -> ScoredRollouts:
        settings = self.settings
        count, length = batch["completion_ids"].shape
        device = batch["completion_ids"].device
        num_boundaries = min(settings.repro_top_k, max((len(row.starts) for row in rows), default=0)) + 2
        found = CompletionScores.empty((count, num_boundaries), {}, device)
        for first in range(0, len(rows), self.batch_size):
            part = rows[first : first + self.batch_size]
            with masked_attention(self.model):
                results = score_rows(
                    self.model, batch, part, settings.repro_top_k, num_boundaries, self.temperature, self._method
                )
            found.put(part, results, list(range(len(part))))

        boundaries, mask, objective = found.boundaries, found.boundary_mask, found.objective
        mask &= objective.masked_fill(~mask, 0.0).isfinite().all(dim=1, keepdim=True)
        objective = objective.masked_fill(~mask, 0.0)
        weight, ema_weight = settings.repro_stability_weight, settings.repro_ema_weight
        rewards = process_rewards(objective, mask, weight, ema_weight, settings.repro_baseline_score)
        group = torch.zeros(count, dtype=torch.long, device=device)
        normalized = normalize_rewards(rewards, mask[:, 1:], group, settings.repro_scale, settings.repro_center)
        spread = segment_credit if settings.repro_credit == "segment" else reward_to_go
        return ScoredRollouts(
            boundaries=boundaries,
            boundary_mask=mask,
            entropies=found.entropies,
            objective=objective,
            magnitude=magnitude_score(objective, mask),
            stability=stability_score(objective, mask, ema_weight),
            process_rewards=rewards,
            normalized_rewards=normalized,
            advantages=spread(normalized, mask[:, 1:], boundaries[:, 1:], length),
        )
