"""`repro-trl eval` with a real vLLM, on a CPU: on one process and on two, against transformers."""

import json
import os
import sys

import pytest
from vllm_on_cpu import run_command, run_with_vllm

from repro_trl.cli import main
from repro_trl.demo import MODEL_DIR, task

pytestmark = pytest.mark.vllm

SAMPLED = ["--temperature", "1", "--top_p", "1", "--max_completion_length", "48", "--num_generations", "2"]
GREEDY = ["--temperature", "0", "--max_completion_length", "48", "--num_generations", "1"]
ENGINE = ["--backend", "vllm", "--vllm_max_model_length", "256"]


@pytest.fixture(scope="module")
def held_out(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "held_out.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in task.eval_dataset(5)))
    return path


def arguments(tasks, folder, *more):
    return ["eval", "--model", str(MODEL_DIR), "--tasks", str(tasks), "--output_dir", str(folder), *more]


def _evaluate(*args):
    return main(arguments(*args))


def records(folder):
    return (folder / "held_out.jsonl").read_bytes()


@pytest.fixture(scope="module")
def by_two(held_out, tmp_path_factory):
    """The folder of an evaluation on two processes."""
    folder = tmp_path_factory.mktemp("two")
    statuses = run_with_vllm(_evaluate, folder, held_out, folder / "out", *SAMPLED, *ENGINE, world_size=2)
    assert statuses == [0, 0]
    return folder / "out"


def test_the_command_on_one_process_gives_the_same_records_as_on_two(by_two, held_out, tmp_path):
    """As a user runs it: the engine starts processes of its own."""
    command = [sys.executable, "-m", "repro_trl", *arguments(held_out, tmp_path / "out", *SAMPLED, *ENGINE)]
    assert "so vLLM computes in float32" in run_command(command, tmp_path)
    assert records(tmp_path / "out") == records(by_two)
    assert len(records(by_two).splitlines()) == 10


def test_a_run_goes_on_where_one_process_is_done(by_two, held_out, tmp_path):
    before = records(by_two)
    os.truncate(by_two / "work" / "held_out" / "samples-1.jsonl", 30)
    statuses = run_with_vllm(_evaluate, tmp_path, held_out, by_two, *SAMPLED, *ENGINE, world_size=2)
    assert statuses == [0, 0] and records(by_two) == before


@pytest.mark.parametrize("problems", [1, 5])  # with one, one of two processes has nothing to do
def test_greedy_records_are_those_of_transformers(held_out, tmp_path, problems):
    file = tmp_path / "held_out.jsonl"
    file.write_text("".join(held_out.read_text().splitlines(keepends=True)[:problems]))
    statuses = run_with_vllm(_evaluate, tmp_path, file, tmp_path / "vllm", *GREEDY, *ENGINE, world_size=2)
    assert statuses == [0, 0]
    assert _evaluate(file, tmp_path / "transformers", *GREEDY, "--backend", "transformers") == 0
    assert records(tmp_path / "vllm") == records(tmp_path / "transformers")


def test_two_processes_that_share_a_model(by_two, held_out, tmp_path):
    more = [*SAMPLED, *ENGINE, "--vllm_tensor_parallel_size", "2"]
    assert run_with_vllm(_evaluate, tmp_path, held_out, tmp_path / "out", *more, world_size=2) == [0, 0]
    work = tmp_path / "out" / "work" / "held_out"
    assert [path.name for path in work.glob("samples-*.jsonl")] == ["samples-0.jsonl"]
    assert records(tmp_path / "out") == records(by_two)
