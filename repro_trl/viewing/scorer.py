"""Scores given completions with a model, outside a trainer: the same stages, one prompt at a time."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jinja2 import TemplateError
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .. import generation
from ..config import ReproConfigMixin
from ..method.completions import CompletionReader, ScoringRow
from ..method.measure import Scorer
from ..method.padding import pad_rows
from ..method.score import ScoredRollouts, reward_completions

NO_ANSWER = "no ground truth"
EMPTY = "empty completion"
TOO_LONG = "longer than the model's table of positions"
NOT_FINITE = "the log-probability of the answer is not finite"


@dataclass
class ScoringSettings(ReproConfigMixin):
    """RePro's settings by themselves, validated as those of a trainer."""

    def __post_init__(self) -> None:
        self.validate_repro_settings()
        if self.repro_scale == "batch":
            raise ValueError(
                "repro_scale='batch' needs a generation batch. Outside training choose 'group' or 'none'."
            )


@dataclass
class ScoredGroup:
    """
    The C completions of one prompt, scored, and (C,) why one was not: `None` for those that were. Those that were not
    are all padding.
    """

    scored: ScoredRollouts
    skipped: list[str | None]


class CompletionScorer(Scorer):
    """
    RePro's scores of given completions (METHOD §2 to §5.2), as a trainer with the same settings would compute them.

    Only completions of one prompt are padded to a common length, on the right, so that a group's scores depend on
    nothing but the group. The model is in evaluation mode; `batch_size` completions of one prompt share a forward.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        settings: ScoringSettings,
        temperature: float = 1.0,
        batch_size: int = 8,
    ) -> None:
        super().__init__(model, CompletionReader(tokenizer, settings), temperature)
        self.tokenizer, self.batch_size = tokenizer, batch_size
        if not self._is_proven:
            # On some text of no meaning; never on a row, or the first would decide.
            ids = self.encode_completion("1 + 1 = 2\n\n2 + 2 = 4\n\n")
            row = self.reader.row(0, *self.reader.cut(ids), "4")
            self._judge(self.method_difference(self._batch(ids, [ids]), row, self.boundary_count([row])))

    @property
    def context_length(self) -> int | None:
        """Tokens that the model was made for; `None` where its configuration does not say."""
        return getattr(self.model.config.get_text_config(), "max_position_embeddings", None)

    def exceeds_context(self, prompt_ids: list[int], completion_ids: list[int]) -> bool:
        """Whether prompt and completion are longer than what the model was made for."""
        return self.context_length is not None and len(prompt_ids) + len(completion_ids) > self.context_length

    def encode_prompt(self, prompt: str | list[dict[str, Any]]) -> list[int]:
        """Token ids of a prompt as TRL makes them: messages through the chat template, text as it is."""
        if not isinstance(prompt, str):
            self.tokenizer.get_chat_template()  # a `ValueError` where there is none
        return generation.prompt_ids(self.tokenizer, prompt)

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
        Score the completions (C lists of token ids) of one prompt (one token or more), which are one group, with (C,)
        bare ground truths.
        """
        batch, rows, skipped = self.read(prompt_ids, completions, answers)
        objectives, _ = self.score_batch(batch, rows, self.boundary_count(rows), self.batch_size).finite()
        for row in rows:
            if not objectives.boundary_mask[row.index].any():
                skipped[row.index] = NOT_FINITE
        count, length = batch["completion_ids"].shape
        one_group = torch.zeros(count, dtype=torch.long, device=self.model.device)
        return ScoredGroup(reward_completions(objectives, self.settings, one_group, length), skipped)

    def read(
        self, prompt_ids: list[int], completions: Sequence[list[int]], answers: Sequence[str | None]
    ) -> tuple[dict[str, Tensor], list[ScoringRow], list[str | None]]:
        """The C completions as a batch, those that can be scored, and (C,) why the others cannot."""
        rows, skipped = [], []
        for index, (ids, answer) in enumerate(zip(completions, answers, strict=True)):
            reason = NO_ANSWER if answer is None else None if ids else EMPTY
            if reason is None:
                row = self.reader.row(index, *self.reader.cut(ids), answer)
                if self._has_room(len(prompt_ids) + row.end + len(row.answer.ids)):
                    rows.append(row)
                else:
                    reason = TOO_LONG
            skipped.append(reason)
        return self._batch(prompt_ids, completions), rows, skipped

    def _has_room(self, length: int) -> bool:
        # Rotary positions go on beyond what a model was made for; a table of positions ends.
        has_table = getattr(self.model.config.get_text_config(), "rope_parameters", None) is None
        return not has_table or self.context_length is None or length <= self.context_length

    def _batch(self, prompt_ids: list[int], completions: Sequence[list[int]]) -> dict[str, Tensor]:
        prompts, prompt_mask = pad_rows([prompt_ids] * len(completions), self.model.device)
        ids, mask = pad_rows(list(completions), self.model.device)
        return {"prompt_ids": prompts, "prompt_mask": prompt_mask, "completion_ids": ids, "completion_mask": mask}
