"""An output folder over several runs of `repro-trl eval`: what is kept, what is refused, what is done again."""

import json
import shutil
from functools import partial

import pytest
import tiny_evaluations
import torch
from transformers import AutoTokenizer

from repro_trl.demo import task as pocket_task
from repro_trl.evaluation import command
from repro_trl.evaluation.records import Record, Verdict, item_line, read_items
from repro_trl.evaluation.verify import Verifier

evaluation = partial(tiny_evaluations.evaluation, length=8, batch_size=None)


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    """Two tasks, `a` and `b`."""
    folder = tmp_path_factory.mktemp("data")
    rows = list(pocket_task.eval_dataset(4))
    for name, part in (("a", rows[:2]), ("b", rows[2:])):
        tiny_evaluations.write_rows(folder / f"{name}.jsonl", part)
    return folder / "a.jsonl", folder / "b.jsonl"


def results(folder):
    return json.loads((folder / "results.json").read_text())


def test_results_hold_what_the_folder_holds(policy, tasks, tmp_path, capsys):
    first, second = tasks
    assert evaluation(policy, first, tmp_path / "apart") == 0
    assert evaluation(policy, second, tmp_path / "apart") == 0
    assert list(results(tmp_path / "apart")["tasks"]) == ["a", "b"]
    assert evaluation(policy, f"{second},{first}", tmp_path / "together") == 0
    for name in ("results.json", "results.md", "a.jsonl", "b.jsonl"):
        assert (tmp_path / "apart" / name).read_bytes() == (tmp_path / "together" / name).read_bytes()
    assert "| model | a | b |" in (tmp_path / "apart" / "results.md").read_text()
    # A task that was begun and not finished is none of the results.
    (tmp_path / "apart" / "b.jsonl").unlink()
    assert evaluation(policy, first, tmp_path / "apart") == 0
    assert list(results(tmp_path / "apart")["tasks"]) == ["a"]
    # All are compared; one that the earlier folder lacks is an error only if it was asked for.
    assert evaluation(policy, first, tmp_path / "together", "--compare_to", str(tmp_path / "apart")) == 0
    assert list(results(tmp_path / "together")["compared_to"]["tasks"]) == ["a"]
    assert evaluation(policy, second, tmp_path / "together", "--compare_to", str(tmp_path / "apart")) == 1
    capsys.readouterr()
    # One folder is one model, sampled in one way: other numbers of samples may stand beside each other.
    shutil.rmtree(tmp_path / "apart" / "work" / "b")
    assert evaluation(policy, second, tmp_path / "apart", "--temperature", "0.5") == 2
    assert "an evaluation of a with other settings (temperature: 1.0 then, 0.5 now)" in capsys.readouterr().err
    assert evaluation(policy, second, tmp_path / "apart", "--num_generations", "1") == 0
    assert [row["samples"] for row in results(tmp_path / "apart")["tasks"].values()] == [2, 1]


def test_a_task_named_twice_is_evaluated_once(policy, tasks, tmp_path):
    assert evaluation(policy, f"{tasks[0]},{tasks[0]}", tmp_path) == 0
    assert list(results(tmp_path)["tasks"]) == ["a"]


@pytest.mark.parametrize("name", ["chat_template.jinja", "merges.txt", "generation_config.json"])
def test_a_model_that_changed_does_not_go_on(policy, tasks, tmp_path, capsys, name):
    model = tmp_path / "model"
    shutil.copytree(policy, model)
    assert evaluation(model, tasks[0], tmp_path / "out") == 0
    with (model / name).open("a") as file:
        file.write("\n")
    assert evaluation(model, tasks[0], tmp_path / "out") == 2
    assert f"model_files: {name} changed" in capsys.readouterr().err


def test_a_start_that_failed_binds_nobody(policy, tasks, tmp_path, capsys, monkeypatch):
    folder = tmp_path / "out"

    def too_large(*args):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    monkeypatch.setattr(command, "load_sampler", too_large)
    assert evaluation(policy, tasks[0], folder) == 1
    assert "repro-trl eval: out of memory (CUDA out of memory. Tried" in capsys.readouterr().err
    monkeypatch.undo()
    assert evaluation(policy, tasks[0], folder, "--dtype", "flaot32") == 2
    assert "flaot32" in capsys.readouterr().err
    assert evaluation(policy, tasks[0], folder, "--dtype", "float64", "--batch_size", "2") == 0
    assert evaluation(policy, tasks[0], folder, "--dtype", "float32", "--batch_size", "2") == 2
    assert "dtype: 'float64' then, 'float32' now" in capsys.readouterr().err


def test_a_verdict_that_timed_out_is_asked_for_again_with_more_time(policy, tasks, tmp_path, monkeypatch):
    assert evaluation(policy, tasks[0], tmp_path) == 0
    file = tmp_path / "work" / "a" / "verdicts-0.jsonl"
    whole = (tmp_path / "a.jsonl").read_bytes()
    verdicts = list(read_items(file, Verdict))
    late = [Verdict(v.problem, v.sample, "timeout", detail="no answer in time", seconds=10.0) for v in verdicts[:2]]
    file.write_bytes(b"".join(map(item_line, [*late, *verdicts[2:]])))
    asked, verify = [], Verifier.verify

    def counted(self, problems, samples):
        asked.extend(samples)
        return verify(self, problems, samples)

    monkeypatch.setattr(Verifier, "verify", counted)
    for seconds in ("10", "5"):
        assert evaluation(policy, tasks[0], tmp_path, "--verify_seconds", seconds) == 0
        assert [r.outcome for r in read_items(tmp_path / "a.jsonl", Record)][:2] == ["timeout"] * 2 and asked == []
    assert evaluation(policy, tasks[0], tmp_path, "--verify_seconds", "20") == 0
    assert [(sample.problem, sample.sample) for sample in asked] == [(v.problem, v.sample) for v in late]
    assert (tmp_path / "a.jsonl").read_bytes() == whole
    assert evaluation(policy, tasks[0], tmp_path, "--verify_seconds", "30") == 0 and len(asked) == 2


@pytest.mark.parametrize("task", ["empty.jsonl", "nowhere.jsonl", "aime99", "folder.jsonl", "noise.parquet"])
def test_without_any_task_nothing_is_written(policy, tmp_path, capsys, task):
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "folder.jsonl").mkdir()
    (tmp_path / "noise.parquet").write_bytes(bytes(range(256)))
    name = task if task == "aime99" else tmp_path / task
    assert evaluation(policy, name, tmp_path / "out") == 2
    (said,) = capsys.readouterr().err.splitlines()[-1:]
    assert said.startswith("repro-trl eval: no task can be evaluated") and task in said
    assert not (tmp_path / "out").exists()


def test_a_tokenizer_without_padding_and_end(policy, tasks, tmp_path, capsys):
    model = tmp_path / "model"
    shutil.copytree(policy, model)
    tokenizer = AutoTokenizer.from_pretrained(policy)
    tokenizer.pad_token = tokenizer.eos_token = None
    tokenizer.save_pretrained(model)
    assert evaluation(model, tasks[0], tmp_path / "out") == 0  # the model's own generation config names ends
    settings = json.loads((model / "generation_config.json").read_text())
    for file in ("generation_config.json", "config.json"):
        settings = json.loads((model / file).read_text())
        (model / file).write_text(json.dumps({**settings, "eos_token_id": None}))
    assert evaluation(model, tasks[0], tmp_path / "other") == 2
    assert "no end-of-sequence token" in capsys.readouterr().err


def test_settings_of_vllm_are_skipped_aloud(policy, tasks, tmp_path, capsys):
    assert evaluation(policy, tasks[0], tmp_path, "--vllm_max_model_length", "64") == 0
    assert "vLLM settings are ignored" in capsys.readouterr().err
    assert evaluation(policy, tasks[0], tmp_path, "--vllm_gpu_memory_utilization", "1.5") == 2
    assert "vllm_gpu_memory_utilization=1.5" in capsys.readouterr().err
