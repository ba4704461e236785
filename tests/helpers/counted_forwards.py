"""Counts the policy's forwards while rollouts are scored."""

from typing import Any


class CountsForwards:
    """
    For a trainer of this package: `class T(CountsForwards, ReproGRPOTrainer)`.

    Attributes:
        scores: what was scored, one `BatchScores` for each generation batch.
        scored: batches whose answers were read on TRL's own pass.
        forwards_per_batch: forwards of the policy in each generation batch, after its completions were generated.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.scores: list[Any] = []
        self.forwards_per_batch: list[int] = []
        self.scored = self._forwards = 0
        super().__init__(*args, **kwargs)
        self.model.register_forward_pre_hook(self._count)

    def _count(self, *_: Any) -> None:
        self._forwards += 1

    def _measure(self, rollout):
        scores = super()._measure(rollout)
        self.scored += self._shared_pass.scores is not None
        self.scores.append(scores)
        return scores

    def _generate_and_score_completions(self, inputs):
        batch = super()._generate_and_score_completions(inputs)
        self.forwards_per_batch.append(self._forwards)
        self._forwards = 0
        return batch

    def _generate(self, *args, **kwargs):
        generated = super()._generate(*args, **kwargs)
        self._forwards = 0
        return generated
