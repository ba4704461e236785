"""The command's figures during training."""

import json

import pytest
from ranks import backend_settings, run_ranks
from tiny_evaluations import write_problems
from tiny_runs import token_reward, trl_settings
from trl import GRPOConfig, GRPOTrainer

from repro_trl.cli import main
from repro_trl.demo import task as pocket_task
from repro_trl.evaluation import EvaluationCallback, Sampling, TaskError, task_from_rows

SAMPLING = Sampling(temperature=1.0, top_p=1.0, max_new_tokens=16, batch_size=4)


def train(policy, folder, backend="ddp"):
    """A short run with an evaluation before it and after each of its two steps; the logs of these, by step."""
    args = GRPOConfig(
        **trl_settings(
            folder,
            per_device_train_batch_size=4,
            num_generations=2,
            eval_strategy="steps",
            eval_steps=1,
            eval_on_start=True,
            per_device_eval_batch_size=2,
            num_generations_eval=1,
            max_completion_length=8,
            **backend_settings(backend),
        )
    )
    trainer = GRPOTrainer(
        policy, token_reward, args, pocket_task.train_dataset(8), eval_dataset=pocket_task.eval_dataset(2)
    )
    # Three units on two processes: the last one has to be sampled twice.
    task = task_from_rows("pocket", pocket_task.eval_dataset(5))
    trainer.add_callback(EvaluationCallback(trainer, [task], SAMPLING, num_samples=2))
    trainer.train()
    trainer.save_model(str(folder))
    logs = [entry for entry in trainer.state.log_history if "eval_pocket/accuracy" in entry]
    return logs, trainer.accelerator.num_processes, [e["loss"] for e in trainer.state.log_history if "loss" in e]


def command_figures(model, folder):
    """What the command says of a saved model."""
    tasks = folder / "pocket.jsonl"
    write_problems(tasks, 5)
    settings = ["--temperature", "1", "--top_p", "1", "--max_completion_length", "16", "--batch_size", "4"]
    arguments = ["--model", str(model), "--tasks", str(tasks), "--num_generations", "2", *settings]
    assert main(["eval", *arguments, "--output_dir", str(folder / "eval")]) == 0
    return json.loads((folder / "eval" / "results.json").read_text())["tasks"]["pocket"]


def assert_logged(entry, figures):
    names = ("accuracy", "thinking_tokens", "completion_tokens", "backtracking_rate", "truncation_rate", "majority")
    for name in names:
        assert entry[f"eval_pocket/{name}"] == pytest.approx(figures[name]), name
    assert entry["eval_pocket/pass_at/2"] == figures["pass_at"]["2"]
    assert "eval_pocket/thinking_tokens_right" not in entry  # none is right


def test_the_figures_of_the_command_are_logged_whenever_the_trainer_evaluates(policy, tmp_path):
    logs, _, losses = train(policy, tmp_path / "run")
    assert [entry["step"] for entry in logs] == [0, 1, 2] and len(losses) == 2
    assert_logged(logs[-1], command_figures(tmp_path / "run", tmp_path))
    # The metrics of training are not drawn into them, and the model did change.
    assert not any("rewards" in key for entry in logs for key in entry)
    assert len({entry["eval_pocket/thinking_tokens"] for entry in logs}) > 1


@pytest.mark.slow
def test_training_is_the_same_with_and_without(policy, tmp_path, monkeypatch):
    *_, losses = train(policy, tmp_path / "with")
    monkeypatch.setattr(EvaluationCallback, "on_evaluate", lambda *args, **kwargs: None)
    *_, alone = train(policy, tmp_path / "without")
    assert losses == alone


def test_tasks_by_name_are_loaded_at_once(policy, tmp_path):
    args = GRPOConfig(**trl_settings(tmp_path))
    trainer = GRPOTrainer(policy, token_reward, args, pocket_task.train_dataset(8))
    (tmp_path / "aime24.jsonl").write_text('{"id": 1, "problem": "1+1", "answer": "2"}\n')
    callback = EvaluationCallback(trainer, ["aime24"], data_dir=tmp_path)
    assert callback.tasks[0].problems[0].id == "1" and callback.sampling == Sampling()
    with pytest.raises(TaskError, match="no such task"):
        EvaluationCallback(trainer, ["aime99"])


@pytest.mark.distributed
@pytest.mark.parametrize("backend", ["ddp", "zero3", "fsdp2"])
def test_several_processes_log_what_the_command_says(policy, tmp_path, backend):
    folder = tmp_path / "run"
    results = run_ranks(train, tmp_path, policy, folder, backend, backend=backend)
    assert [processes for _, processes, _ in results] == [2, 2]
    for logs, *_ in results:
        assert [entry["step"] for entry in logs] == [0, 1, 2]
        assert_logged(logs[0], command_figures(policy, tmp_path))
