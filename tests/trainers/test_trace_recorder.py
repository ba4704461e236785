"""Traces that training leaves: the numbers that reached the loss, at the right steps, at no further cost."""

import math
import re

import pandas
import pytest
import torch
from tiny_runs import CheckedTrainer, losses, settings, token_reward
from transformers import AutoModelForCausalLM
from transformers.utils import logging

from repro_trl import ReproGRPOConfig, ReproGRPOTrainer
from repro_trl.demo import MODEL_DIR, task
from repro_trl.rewards import answer_reward
from repro_trl.traces import read_traces
from repro_trl.trainers.trace_panels import describe_auc


@pytest.fixture(scope="module")
def dataset():
    return task.train_dataset(size=32, seed=3)


class CountingTrainer(CheckedTrainer):
    calls = 0

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.model.register_forward_pre_hook(lambda *_: setattr(self, "calls", self.calls + 1))


def train(folder, dataset, resume=None, reward=token_reward, **overrides):
    overrides = {"generation_kwargs": None, "max_steps": 3, **overrides}
    trainer = CountingTrainer(str(MODEL_DIR), reward, ReproGRPOConfig(**settings(folder, **overrides)), dataset)
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def files(folder):
    return sorted(path.name for path in (folder / "traces").glob("*"))


def test_a_file_holds_the_rollouts_that_were_trained_on(tmp_path, dataset):
    trainer = train(tmp_path, dataset, reward=answer_reward, repro_trace_steps=2, max_completion_length=48)
    assert files(tmp_path) == ["step_000000.jsonl", "step_000002.jsonl"]
    for step in (0, 2):
        traces = list(read_traces(tmp_path / "traces" / f"step_{step:06d}.jsonl"))
        rollout, _, total = trainer.rollouts[step]
        ids, mask = rollout.batch["completion_ids"], rollout.batch["completion_mask"].bool()
        assert len(traces) == len(ids) == 8
        for row, trace in enumerate(traces):
            assert trace.completion == trainer.processing_class.decode(ids[row][mask[row]])
            assert trace.total_advantages == pytest.approx(total[row][mask[row]].tolist(), abs=1e-6)
            assert trace.answer == rollout.examples[row]["solution"].removeprefix("\\boxed{").removesuffix("}")
            assert rollout.examples[row]["prompt"][0]["content"] in trace.prompt
            assert trace.rewards == {"answer_reward": float(trace.correct)}
            assert trace.truncated == (trainer.processing_class.eos_token_id not in ids[row])
            assert trace.step == step and len(trace.boundaries) >= 2
            to_go = sum(trace.normalized_rewards)
            assert trace.advantages[0] == pytest.approx(to_go, abs=1e-5)
        assert len({trace.group for trace in traces}) == 2
    start = AutoModelForCausalLM.from_pretrained(MODEL_DIR)
    rollout = trainer.rollouts[0][0]
    for row, trace in enumerate(read_traces(tmp_path / "traces" / "step_000000.jsonl")):
        prompt = rollout.batch["prompt_ids"][row][rollout.batch["prompt_mask"][row].bool()]
        completion = rollout.batch["completion_ids"][row]
        with torch.no_grad():
            logits = start(torch.cat([prompt, completion])[None]).logits[0, len(prompt) - 1 :]
        entropy = torch.distributions.Categorical(logits=logits).entropy()
        expected = [entropy[boundary].item() for boundary in trace.boundaries[1:-1]]
        assert trace.entropies == [None, *(pytest.approx(value, abs=1e-4) for value in expected), None]
    outcomes = {trace.truncated for trace in traces} | {trace.correct for trace in traces}
    assert outcomes == {True, False}, "the completions are too much alike for this test to say anything"


def test_traces_cost_no_model_call_and_change_nothing(tmp_path, dataset):
    plain = train(tmp_path / "plain", dataset, max_steps=2)
    traced = train(tmp_path / "traced", dataset, max_steps=2, repro_trace_steps=1, log_completions=True)
    assert losses(traced) == losses(plain) and any(losses(plain))
    assert traced.calls == plain.calls > 0
    assert not (tmp_path / "plain" / "traces").exists()
    assert len(files(tmp_path / "traced")) == 2


def test_a_step_with_several_generation_batches_has_them_all(tmp_path, dataset):
    overrides = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "steps_per_generation": 1}
    train(tmp_path, dataset, max_steps=1, repro_trace_steps=1, **overrides)
    traces = list(read_traces(tmp_path / "traces" / "step_000000.jsonl"))
    assert [trace.step for trace in traces] == [0] * 8
    assert len({trace.group for trace in traces}) == 2


def test_masked_tokens_carry_no_advantage_and_masked_completions_are_shown(tmp_path, dataset):
    trainer = train(
        tmp_path, dataset, max_steps=1, repro_trace_steps=1, max_completion_length=32, mask_truncated_completions=True
    )
    rollout, _, _ = trainer.rollouts[0]
    masked = ~rollout.batch["completion_mask"].bool().any(dim=1)
    assert masked.any() and not masked.all(), "the completions are too much alike for this test to say anything"
    for row, trace in enumerate(read_traces(tmp_path / "traces" / "step_000000.jsonl")):
        assert trace.truncated == bool(masked[row])
        assert trace.completion == trainer.processing_class.decode(
            [
                token
                for token in rollout.batch["completion_ids"][row].tolist()
                if token != trainer.processing_class.pad_token_id
            ]
        )
        assert any(trace.advantages) == any(trace.total_advantages) == (not masked[row])


def test_a_resumed_run_leaves_the_files_of_the_uninterrupted_one(tmp_path, dataset):
    # Rollouts of two steps each, at steps 0 and 2; the second file is due at 2, and the run is resumed before it.
    overrides = {"max_steps": 4, "repro_trace_steps": 2, "save_strategy": "steps", "save_steps": 1}
    overrides |= {"per_device_train_batch_size": 4, "steps_per_generation": 2}
    train(tmp_path, dataset, **overrides)
    assert files(tmp_path) == ["step_000000.jsonl", "step_000002.jsonl"]
    whole = (tmp_path / "traces" / "step_000002.jsonl").read_bytes()
    for file in (tmp_path / "traces").iterdir():
        file.unlink()
    train(tmp_path, dataset, resume=str(tmp_path / "checkpoint-1"), **overrides)
    assert files(tmp_path) == ["step_000002.jsonl"]
    assert (tmp_path / "traces" / "step_000002.jsonl").read_bytes() == whole


def test_the_process_view_is_printed_beside_the_table(tmp_path, dataset, capsys):
    train(tmp_path, dataset, max_steps=1, log_completions=True, num_completions_to_print=1)
    printed = capsys.readouterr().out
    assert printed.count("Process rewards at step 1") == 1
    assert printed.count(", ground truth") == 1
    _, footer = printed.split(", ground truth")
    assert len(re.findall(r"^repro/objective_auc(?:: unknown| \d\.\d\d: )", footer, re.MULTILINE)) == 1
    (file,) = (tmp_path / "completions").glob("*.parquet")
    assert set(pandas.read_parquet(file)["repro_answer"]) <= {row["solution"][7:-1] for row in dataset}


def test_the_footer_says_what_j_knows():
    assert describe_auc(0.974).startswith("repro/objective_auc 0.97: how well J separates")
    assert "unknown until" in describe_auc(math.nan)


def test_a_trace_setting_without_effect_is_said(tmp_path, dataset, caplog):
    logging.enable_propagation()
    config = ReproGRPOConfig(**settings(tmp_path, repro_alpha=0.0, repro_trace_steps=1))
    ReproGRPOTrainer(str(MODEL_DIR), token_reward, config, dataset)
    logging.disable_propagation()
    assert "repro_trace_steps" in caplog.text
