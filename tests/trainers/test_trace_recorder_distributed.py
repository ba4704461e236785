"""Traces of several processes: one file with all of them."""

import pytest
from ranks import run_ranks
from tiny_runs import CheckedTrainer, settings, token_reward

from repro_trl import ReproGRPOConfig
from repro_trl.demo import MODEL_DIR, task
from repro_trl.traces import read_traces


def _train(folder):
    args = ReproGRPOConfig(
        **settings(folder, per_device_train_batch_size=4, repro_trace_steps=2, max_steps=3, log_completions=True)
    )
    trainer = CheckedTrainer(str(MODEL_DIR), token_reward, args, task.train_dataset(size=8, seed=3))
    trainer.train()
    return {
        "processes": trainer.accelerator.num_processes,
        "completions": [
            trainer.processing_class.batch_decode(rollout.batch["completion_ids"], skip_special_tokens=True)
            for rollout, _, _ in trainer.rollouts
        ],
        "table": list(trainer._logs["extra"]["repro_answer"]),
    }


@pytest.mark.distributed
def test_the_file_holds_the_rollouts_of_all_processes(tmp_path):
    first, second = run_ranks(_train, tmp_path, tmp_path / "run")
    assert first["processes"] == 2
    files = sorted((tmp_path / "run" / "traces").iterdir())
    assert [file.name for file in files] == ["step_000000.jsonl", "step_000002.jsonl"]
    traces = list(read_traces(files[1]))
    texts = [trace.completion.replace("<|im_end|>", "").replace("<|endoftext|>", "") for trace in traces]
    assert texts == first["completions"][2] + second["completions"][2]
    assert len({trace.group for trace in traces}) == 2
    assert first["table"] == [trace.answer for trace in traces]
