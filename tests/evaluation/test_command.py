"""`repro-trl eval` on a small model: what it writes, how it goes on after it was stopped, what it refuses."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest
import tiny_evaluations
from pocket.evaluate import evaluate
from pocket.make import MODEL_DIR
from ranks import run_ranks
from tiny_evaluations import evaluation, final_files, write_rows
from transformers import AutoModelForCausalLM, AutoTokenizer

from repro_trl.cli import main
from repro_trl.demo import task as pocket_task
from repro_trl.evaluation import sandbox
from repro_trl.evaluation.records import Record, Sample, item_line, part, read_items, read_parts
from repro_trl.generation import TransformersSampler


def test_the_bundled_model_gets_the_accuracy_of_the_examples_own_table(tmp_path, capsys):
    dataset = pocket_task.eval_dataset(24)
    file = write_rows(tmp_path / "pocket.jsonl", dataset)
    settings = ["--temperature", "1", "--top_p", "1", "--max_completion_length", "160", "--num_generations", "1"]
    assert (
        main(["eval", "--model", str(MODEL_DIR), "--tasks", str(file), "--output_dir", str(tmp_path), *settings]) == 0
    )
    table = json.loads((tmp_path / "results.json").read_text())["tasks"]["pocket"]
    model = AutoModelForCausalLM.from_pretrained(MODEL_DIR)
    own = evaluate(model, AutoTokenizer.from_pretrained(MODEL_DIR), dataset, batch_size=24)
    assert table["accuracy"] == own.accuracy and 0.1 < own.accuracy < 0.8
    assert (table["backtracks"], table["truncation_rate"]) == (own.backtracks, own.truncated)
    printed = capsys.readouterr().out
    assert f"{100 * own.accuracy:.1f} ± " in printed


def test_what_is_written(finished, held_out, policy):
    assert sorted(final_files(finished)) == ["held_out.jsonl", "results.json", "results.md"]
    records = list(read_items(finished / "held_out.jsonl", Record))
    assert [(r.problem, r.sample) for r in records] == [(str(p), s) for p in range(10) for s in range(2)]
    results = json.loads((finished / "results.json").read_text())
    task = results["tasks"]["held_out"]
    assert results["model"] == policy and results["errors"] == {} and results["sampling"]["temperature"] == 1.0
    assert (task["problems"], task["samples"], sum(task["outcomes"].values())) == (10, 2, 20)
    assert task["completion_tokens"] == sum(r.completion_tokens for r in records) / 20
    markdown = (finished / "results.md").read_text().splitlines()
    assert markdown[0] == "| model | held_out |" and markdown[2] == f"| {policy} | 0.0 ± 0.0 |"
    assert markdown[4].startswith("| task | problems | n | avg@n | pass@n | maj@n | thinking tokens | if right |")


def test_a_second_run_samples_nothing(finished, policy, held_out, monkeypatch):
    before = final_files(finished)
    monkeypatch.setattr(TransformersSampler, "generate", None)
    assert evaluation(policy, held_out, finished) == 0
    assert final_files(finished) == before


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (0, 2, 3, 4, 5))])
def test_files_cut_anywhere_are_completed_to_the_same_bytes(finished, policy, held_out, tmp_path, seed):
    folder = tmp_path / "out"
    shutil.copytree(finished, folder)
    rng = random.Random(seed)
    for name in ("held_out.jsonl", "results.json", "results.md"):
        (folder / name).unlink()
    # As if it had been killed while it wrote: the completions or the verdicts end in the middle of a line.
    work = folder / "work" / "held_out"
    verdicts, samples = work / "verdicts-0.jsonl", work / "samples-0.jsonl"
    if seed % 2:
        verdicts.unlink()
        os.truncate(samples, rng.randrange(samples.stat().st_size))
    else:
        os.truncate(verdicts, rng.randrange(verdicts.stat().st_size))
    assert evaluation(policy, held_out, folder) == 0
    assert final_files(folder) == final_files(finished)


def test_an_interrupted_unit_is_the_only_one_sampled_again(finished, policy, held_out, tmp_path, monkeypatch):
    calls, generate = [], TransformersSampler.generate

    def counted(self, prompts, seeds, sampling):
        calls.append(len(prompts))
        if len(calls) == 4:
            raise KeyboardInterrupt
        return generate(self, prompts, seeds, sampling)

    monkeypatch.setattr(TransformersSampler, "generate", counted)
    assert evaluation(policy, held_out, tmp_path / "out") == 130
    assert evaluation(policy, held_out, tmp_path / "out") == 0
    assert calls == [4] * 6  # five units, the fourth of them twice
    assert final_files(tmp_path / "out") == final_files(finished)


def test_other_settings_do_not_go_on_with_an_earlier_run(finished, policy, held_out, tmp_path, capsys):
    folder = tmp_path / "out"
    shutil.copytree(finished, folder)
    assert evaluation(policy, held_out, folder, "--seed", "1") == 2
    assert "other settings (seed: 0 then, 1 now)" in capsys.readouterr().err
    changed = tmp_path / "held_out.jsonl"
    changed.write_text(held_out.read_text().replace("+", "-"))
    assert evaluation(policy, changed, folder) == 2
    assert "source" in capsys.readouterr().err
    other = tmp_path / "policy"
    shutil.copytree(policy, other)
    model = AutoModelForCausalLM.from_pretrained(other)
    model.lm_head.weight.data += 0.1
    model.save_pretrained(other)


def test_a_file_of_others_is_not_read(finished, policy, held_out, tmp_path, capsys):
    folder = tmp_path / "out"
    shutil.copytree(finished, folder)
    (folder / "work" / "held_out" / "samples-7.jsonl").write_text('{"problem": "0"}\n')
    assert evaluation(policy, held_out, folder) == 2
    assert "samples-7.jsonl, line 1 was not written by this program" in capsys.readouterr().err


def test_a_task_that_cannot_be_loaded_does_not_stop_the_others(policy, held_out, tmp_path, capsys):
    data = tmp_path / "data"
    data.mkdir()
    (data / "gpqa_diamond.jsonl").write_text('{"Question": "?"}\n')
    tasks = f"nowhere.jsonl,aime99,gpqa_diamond,{held_out}"
    assert evaluation(policy, tasks, tmp_path / "out", "--data_dir", str(data)) == 1
    printed = capsys.readouterr()
    errors = json.loads((tmp_path / "out" / "results.json").read_text())["errors"]
    assert set(errors) == {"nowhere.jsonl", "aime99", "gpqa_diamond"}
    for error in errors.values():
        assert error in printed.err and f"Not evaluated: {error}" in printed.out
    assert (tmp_path / "out" / "held_out.jsonl").is_file()


@pytest.mark.slow
def test_programs_are_not_run_without_a_sandbox(policy, tmp_path, monkeypatch, held_out):
    data = tmp_path / "data"
    data.mkdir()
    row = {"task_id": 1, "prompt": "Double.", "test_imports": [], "test_list": ["assert double(2) == 4"]}
    (data / "mbpp.jsonl").write_text(json.dumps(row) + "\n")

    def refuse():
        raise sandbox.SandboxError("none here")

    monkeypatch.setattr("repro_trl.evaluation.command.usable_isolation", refuse)
    assert evaluation(policy, f"mbpp,{held_out}", tmp_path / "out", "--data_dir", str(data)) == 1
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["errors"] == {"mbpp": "none here"} and list(results["tasks"]) == ["held_out"]
    # Where there is one, the task goes on.
    monkeypatch.undo()
    assert evaluation(policy, f"mbpp,{held_out}", tmp_path / "out", "--data_dir", str(data)) == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["tasks"]["mbpp"]["majority"] is None and results["tasks"]["mbpp"]["samples"] == 2


@pytest.mark.slow
def test_two_models_are_compared_problem_by_problem(finished, policy, held_out, tmp_path, capsys):
    folder = tmp_path / "out"
    assert evaluation(policy, held_out, folder, "--seed", "1", "--compare_to", str(finished)) == 0
    results = json.loads((folder / "results.json").read_text())
    before, after = (list(read_items(f / "held_out.jsonl", Record)) for f in (finished, folder))
    compared = results["compared_to"]["tasks"]["held_out"]
    tokens = [sum(r.thinking_tokens for r in records) / 20 for records in (before, after)]
    assert compared["thinking_tokens"] == pytest.approx(tokens[1] - tokens[0]) and tokens[0] != tokens[1]
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:5]] == ["model", policy, policy, "difference"]


def test_what_cannot_be_compared(finished, policy, tmp_path, capsys):
    other = tmp_path / "other.jsonl"
    other.write_text('{"problem": "1+1", "answer": "2"}\n')
    assert evaluation(policy, other, tmp_path / "out", "--compare_to", str(finished)) == 1
    assert "has no other.jsonl" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--num_generations", "0"], "--num_generations: '0': give an integer >= 1"),
        (["--temperature", "-1"], "--temperature: '-1': give a number >= 0"),
        (["--dataset_revision", "aime24"], "--dataset_revision 'aime24'"),
        (["--dataset_revision", "aime24=abc"], "--dataset_revision 'aime24=abc'"),
        (["--verify_workers", "0"], "--verify_workers: '0'"),
        (["--compare_to", "nowhere"], "compare_to='nowhere'"),
        (["--backend", "vllm"], "vLLM is not installed"),
        (["--tasks", " ,"], "tasks=' ,' is empty"),
        (["--model", "/nowhere"], "model='/nowhere' cannot be loaded: there is no such folder"),
    ],
)
def test_settings_that_are_refused(policy, held_out, tmp_path, capsys, arguments, message):
    assert evaluation(policy, held_out, tmp_path / "out", *arguments) == 2
    assert message in capsys.readouterr().err


def test_two_tasks_of_one_name(policy, held_out, tmp_path, capsys):
    shutil.copy(held_out, tmp_path / "held_out.jsonl")
    assert evaluation(policy, f"{held_out},{tmp_path / 'held_out.jsonl'}", tmp_path / "out") == 2
    assert "different names" in capsys.readouterr().err


def test_parts_written_twice_count_once(tmp_path):
    sample = Sample("0", 0, "text\u2028\n", 1, 1, 1, 0, False)
    for process in (0, 1):
        with part(tmp_path, "samples", process) as writer:
            writer.append([item_line(sample)])
    with part(tmp_path, "samples", 1) as writer:
        writer.append([item_line(Sample("0", 1, "é", 1, 1, 1, 0, True))])
    assert list(read_parts(tmp_path, "samples", Sample)) == [("0", 0), ("0", 1)]
    assert read_parts(tmp_path, "samples", Sample)["0", 0] == sample
    # A process that goes on behind a line that was cut off removes it first.
    path = tmp_path / "samples-0.jsonl"
    os.truncate(path, path.stat().st_size - 3)
    with part(tmp_path, "samples", 0) as writer:
        writer.append([item_line(Sample("1", 0, "next", 1, 1, 1, 0, False))])
    assert [item.problem for item in read_items(path, Sample)] == ["1"]


def test_a_process_that_was_left_behind_is_waited_for(tmp_path, capsys):
    order = []

    def write(name):
        with part(tmp_path, "samples", 0) as writer:
            order.append(name)
            writer.append([item_line(Sample(name, 0, "text", 1, 1, 1, 0, False))])

    with part(tmp_path, "samples", 0) as writer:
        second = threading.Thread(target=write, args=("second",))
        second.start()
        while "waiting" not in capsys.readouterr().err:
            time.sleep(0.01)
        order.append("first")
        writer.append([item_line(Sample("first", 0, "text", 1, 1, 1, 0, False))])
    second.join()
    assert order == ["first", "second"] == [item.problem for item in read_items(writer.path, Sample)]


@pytest.mark.slow
def test_killed_at_random_and_started_again(finished, policy, held_out, tmp_path):
    """Processes killed outright, at any time after their start, until one gets through."""
    folder, rng = tmp_path / "out", random.Random(5)
    command = [sys.executable, "-m", "repro_trl", *tiny_evaluations.arguments(policy, held_out, folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    started = time.monotonic()
    assert subprocess.run(command, env=environment, capture_output=True).returncode == 0
    whole = time.monotonic() - started
    assert final_files(folder) == final_files(finished)
    for _ in range(3):
        shutil.rmtree(folder)
        kills = 0
        while kills < 3:
            process = subprocess.Popen(
                command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
            )
            # Most of the time goes into imports: it is killed after these.
            try:
                process.wait(whole * rng.uniform(0.6, 1.0))
                break
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                kills += 1
        assert subprocess.run(command, env=environment, capture_output=True).returncode == 0
        assert final_files(folder) == final_files(finished)


def _on_a_rank(policy, held_out, folder):
    from accelerate import PartialState

    status = evaluation(policy, held_out, folder)
    return status, PartialState().num_processes


@pytest.mark.distributed
@pytest.mark.parametrize("world_size", [2, 3])
def test_processes_share_the_work_and_write_the_same_files(finished, policy, held_out, tmp_path, world_size):
    folder = tmp_path / "out"
    results = run_ranks(_on_a_rank, tmp_path, policy, held_out, folder, world_size=world_size)
    assert results == [(0, world_size)] * world_size
    work = folder / "work" / "held_out"
    assert len(list(work.glob("samples-*.jsonl"))) == world_size
    assert final_files(folder) == final_files(finished)
    # What several processes began, one can finish.
    os.truncate(work / "samples-1.jsonl", 100)
    (work / "verdicts-1.jsonl").unlink()
    assert evaluation(policy, held_out, folder) == 0
    assert final_files(folder) == final_files(finished)
