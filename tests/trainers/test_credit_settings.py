"""How rewards become token advantages under settings other than the paper's, as a trainer applies them."""

import logging

import pytest
import torch
from tiny_policy import save_tiny_policy
from tiny_runs import settings, token_reward

from repro_trl import ReproGRPOConfig, ReproGRPOTrainer
from repro_trl.demo import task
from repro_trl.method.advantage import normalize_rewards, reward_to_go, segment_credit
from repro_trl.method.process_reward import process_rewards


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    return save_tiny_policy(tmp_path_factory.mktemp("policy"))


class RecordingTrainer(ReproGRPOTrainer):
    def _reward(self, rollout, scores):
        scored = super()._reward(rollout, scores)
        self.scored, self.groups = scored, rollout.groups
        return scored


def train(policy, tmp_path, **overrides):
    args = ReproGRPOConfig(**settings(tmp_path, max_steps=1, **overrides))
    trainer = RecordingTrainer(policy, token_reward, args, task.train_dataset(size=8, seed=3))
    trainer.train()
    return trainer


@pytest.mark.parametrize(
    ("baseline_score", "center", "credit"),
    [
        ("zero", "group", "to_go"),
        ("magnitude", "group", "to_go"),
        ("zero", "index", "to_go"),
        ("zero", "group", "segment"),
        ("magnitude", "index", "segment"),
    ],
)
def test_settings_reach_the_advantages(tmp_path, policy, baseline_score, center, credit):
    trainer = train(
        policy, tmp_path, repro_baseline_score=baseline_score, repro_center=center, repro_credit=credit,
        repro_top_k=100,
    )  # fmt: skip
    scored = trainer.scored
    rewards = process_rewards(scored.objective, scored.boundary_mask, baseline_score=baseline_score)
    normalized = normalize_rewards(rewards, scored.segment_mask, trainer.groups, center=center)
    spread = {"to_go": reward_to_go, "segment": segment_credit}[credit]
    expected = spread(normalized, scored.segment_mask, scored.boundaries[:, 1:], scored.advantages.shape[1])
    assert scored.segment_mask.sum() > 16
    torch.testing.assert_close(scored.advantages, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("credit", "top_k", "warned"), [("segment", 1, 1), ("segment", 100, 0), ("to_go", 1, 0)])
def test_credit_for_merged_segments_is_warned_of_once(tmp_path, policy, caplog, credit, top_k, warned):
    with caplog.at_level(logging.WARNING, logger="repro_trl"):
        args = ReproGRPOConfig(**settings(tmp_path, max_steps=2, repro_credit=credit, repro_top_k=top_k))
        ReproGRPOTrainer(policy, token_reward, args, task.train_dataset(size=8, seed=3)).train()
    messages = [record.getMessage() for record in caplog.records if "repro_top_k=" in record.getMessage()]
    assert len(messages) == warned
