"""`ObjectiveHealth`: whether J knows anything of the answer, from outcomes alone (METHOD §3)."""

import math
from collections import deque
from collections.abc import Collection, Sequence
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase
from transformers.utils import logging

from ..config import AUTO_PREFIX
from ..method.answer_forms import area_under_curve
from ..method.score import ScoredRollouts
from .policy_scorer import PolicyScorer

logger = logging.get_logger(__name__)

# Completions that the area is taken over: the newest ones.
_WINDOW = 1024
# Completions of each kind before it is believed, and the area below which process rewards are called noise.
_BELIEVED, _NOISE = 24, 0.65


def written_texts(
    tokenizer: PreTrainedTokenizerBase, batch: dict[str, Any], eos_token_ids: Collection[int]
) -> list[str]:
    """(B,) completions as the policy wrote them: with special tokens, without the end of the sequence and padding."""
    ends = {*eos_token_ids, tokenizer.pad_token_id}
    lengths = batch["completion_mask"].sum(dim=1).tolist()
    texts = []
    for ids, length in zip(batch["completion_ids"].tolist(), lengths, strict=True):
        while length > 0 and ids[length - 1] in ends:
            length -= 1
        texts.append(tokenizer.decode(ids[:length], skip_special_tokens=False))
    return texts


class ObjectiveHealth:
    """
    The area under the ROC curve of J at the last boundary, of right completions against wrong ones.

    Near 0.5 J knows nothing of the answer, and process rewards are noise. Every process must make the same calls, and
    gets the same values.
    """

    def __init__(self, scorer: PolicyScorer) -> None:
        self._scorer = scorer
        self._window: deque[tuple[float, bool]] = deque(maxlen=_WINDOW)
        self._has_warned = False

    def update(self, scored: ScoredRollouts, verdicts: Sequence[bool | None]) -> float:
        """
        The area with this process's B completions and those of the other processes; collective.

        NaN while all completions are right, or all wrong.
        """
        device, accelerator = scored.objective.device, self._scorer.accelerator
        known = torch.tensor([verdict is not None for verdict in verdicts], dtype=torch.bool, device=device)
        right = torch.tensor([bool(verdict) for verdict in verdicts], dtype=torch.bool, device=device)
        last = scored.boundary_mask.sum(dim=1, keepdim=True).clamp(min=1) - 1
        local = (scored.objective.gather(1, last).squeeze(1), right, known & scored.scored)
        objective, right, counted = (accelerator.gather(tensor).cpu() for tensor in local)
        self._window.extend(zip(objective[counted].tolist(), right[counted].tolist(), strict=True))
        if not self._window:
            return math.nan
        values, verdicts = zip(*self._window, strict=True)
        auc, _ = area_under_curve(torch.tensor(values), torch.tensor(verdicts))
        if accelerator.is_main_process:
            self._warn_of_noise(auc, sum(verdicts))
        return auc

    def _warn_of_noise(self, auc: float, num_right: int) -> None:
        believed = min(num_right, len(self._window) - num_right) >= _BELIEVED
        if self._has_warned or not believed or not auc < _NOISE:
            return
        self._has_warned = True
        if self._scorer.settings.repro_answer_prefix == AUTO_PREFIX:
            advice = "Add what this policy writes before its answers to repro_prefix_candidates"
        else:
            advice = "Set repro_answer_prefix='auto', or to what this policy writes before its answers"
        logger.warning(
            f"repro/objective_auc is {auc:.2f}: J hardly separates correct completions from wrong ones, so process "
            f"rewards are little more than noise. The answer form in use is {self._scorer.reader.form}. {advice}; or "
            "turn RePro off with repro_alpha=0."
        )

    def state(self) -> list[list[Any]]:
        """The window, for a checkpoint; the same on all processes."""
        return [list(pair) for pair in self._window]

    def restore(self, state: list[list[Any]]) -> None:
        """Take over what `state` returned."""
        self._window.extend((value, right) for value, right in state)
