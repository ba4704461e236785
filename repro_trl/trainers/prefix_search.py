"""`PrefixSearch`: finds out where this policy gives its answer, for `repro_answer_prefix="auto"`."""

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor
from transformers.utils import logging

from ..method.answer_forms import (
    AnswerForm,
    FormEvidence,
    Separation,
    best_separation,
    candidate_forms,
    describe_choice,
    frequent_texts,
    own_texts,
)
from .policy_scorer import PolicyScorer

logger = logging.get_logger(__name__)

# Generation batches after which the candidates are compared again.
_RECHECK_EVERY = 50
# Standard errors by which another one must be better then to be named.
_CLEARLY = 2.0


class PrefixSearch:
    """
    `repro_answer_prefix="auto"`: tries candidate forms on the first completions and sets the scorer's to the best.

    Until there are enough right and wrong completions the paper's form stays. Every process must make the same calls;
    all of them see the same evidence and choose the same form.

    Attributes:
        chosen: the form that was found; None until then.
        separations: how the candidates compared then; None until then, and in a run that was resumed later.
    """

    def __init__(self, scorer: PolicyScorer) -> None:
        self.chosen: AnswerForm | None = None
        self.separations: list[Separation] | None = None
        self._scorer = scorer
        self._evidence: FormEvidence | None = None
        self._batches = 0
        self._has_warned = self._has_said_waiting = False

    def observe(
        self,
        batch: dict[str, Any],
        answers: Sequence[str | None],
        policy_mask: Tensor,
        texts: Sequence[str],
        right: Sequence[bool | None],
        batch_size: int,
    ) -> bool:
        """
        Look at one generation batch; collective. Completions that would add nothing are not asked.

        Args:
            batch, answers, policy_mask: as in `PolicyScorer.score`.
            texts: (B,) completions as the policy wrote them, special tokens included.
            right: (B,) whether each completion's answer is right.
            batch_size: completions per forward.

        Returns:
            Whether the form has been found in this batch; what was asked in the earlier one is void then.
        """
        self._batches += 1
        if self.chosen is not None and self._batches % _RECHECK_EVERY:
            return False
        (has_images,) = self._scorer.agree("pixel_values" in batch)
        if has_images:
            self._warn_of_images()
            return False
        if self._evidence is None:
            self._evidence = FormEvidence(self._find_forms(texts))
        elif self.chosen is not None:
            self._evidence = FormEvidence(self._evidence.forms)
        local = [-1 if verdict is None else int(verdict) for verdict in right]  # without a ground truth, none
        verdicts = self._scorer.accelerator.gather(torch.tensor(local, device=policy_mask.device))
        if not self._evidence.wants(verdicts[verdicts >= 0] == 1):
            return False
        rows, _ = self._scorer.read(batch, answers, policy_mask)
        (num_micro_batches,) = self._scorer.agree(math.ceil(len(rows) / batch_size))
        objective = self._scorer.ask_forms(batch, rows, answers, self._evidence.forms, batch_size, num_micro_batches)
        self._evidence.add(self._scorer.accelerator.gather(objective), verdicts == 1)
        found = self._evidence.separations()
        if self.chosen is None and found is not None:
            self._choose(found)
            return True
        if self.chosen is None:
            self._say_waiting()
        elif found is not None:
            self._compare(found)
        return False

    def _warn_of_images(self) -> None:
        if not self._has_warned and self._scorer.accelerator.is_main_process:
            logger.warning(
                "repro_answer_prefix='auto' needs prompts without images. The answer is scored right after the "
                "thought, as in the paper."
            )
        self._has_warned = True

    def _say_waiting(self) -> None:
        if not self._has_said_waiting and self._scorer.accelerator.is_main_process:
            logger.warning(
                f"repro_answer_prefix='auto' waits for {FormEvidence.ENOUGH} correct and {FormEvidence.ENOUGH} wrong "
                "completions. Until then, the answer is scored right after the thought, as in the paper."
            )
        self._has_said_waiting = True

    def _find_forms(self, texts: Sequence[str]) -> list[AnswerForm]:
        settings = self._scorer.settings
        template, think_end = settings.repro_answer_template, settings.repro_think_end
        counts = sum(gather_object([own_texts(texts, template, think_end)]), Counter())
        frequent = frequent_texts(counts, len(texts) * self._scorer.accelerator.num_processes)
        return candidate_forms(template, think_end, frequent, settings.repro_prefix_candidates or ())

    def _choose(self, found: list[Separation]) -> None:
        best, _ = best_separation(found)
        self.chosen = self._scorer.reader.form = best.form
        self.separations = found
        if self._scorer.accelerator.is_main_process:
            logger.warning(f"repro_answer_prefix='auto': {describe_choice(found, self._evidence.count)}.")

    def _compare(self, found: list[Separation]) -> None:
        used = next(one for one in found if one.form == self.chosen)
        best, _ = best_separation(found)
        if self._has_warned or best.auc - used.auc <= _CLEARLY * math.hypot(best.error, used.error):
            return
        self._has_warned = True
        if self._scorer.accelerator.is_main_process:
            logger.warning(
                f"The policy now answers better in the form {best.form} (AUC {best.auc:.2f}) than in {used.form} "
                f"({used.auc:.2f}), which is in use. To switch, set repro_answer_prefix={best.form.prefix!r} and "
                f"repro_answer_template={best.form.template!r}, and resume."
            )

    def state(self) -> dict[str, Any]:
        """What a resumed run needs to go on with the same form, or the same search; the same on all processes."""
        evidence = self._evidence
        return {
            "chosen": None if self.chosen is None else dataclasses.asdict(self.chosen),
            "forms": None if evidence is None else [dataclasses.asdict(form) for form in evidence.forms],
            "evidence": None if evidence is None or self.chosen is not None else evidence.state(),
            "batches": self._batches,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take over what `state` returned."""
        self._batches = state["batches"]
        if state["forms"] is not None:
            self._evidence = FormEvidence([AnswerForm(**form) for form in state["forms"]])
        if state["evidence"] is not None:
            self._evidence.restore(state["evidence"])
        if state["chosen"] is not None:
            self.chosen = self._scorer.reader.form = AnswerForm(**state["chosen"])
