"""Several processes, of which some have little to do: all of them come to every meeting, and all of them end."""

import os
import sys
import types

import pytest
from ranks import backend_settings, run_ranks
from tiny_evaluations import evaluation, write_problems
from tiny_runs import token_reward, trl_settings
from vllm_stand_in import engine_core, vllm_modules

from repro_trl.demo import task as pocket_task
from repro_trl.evaluation.records import Sample, Verdict, read_items
from repro_trl.evaluation.rows import MathTarget, Problem
from repro_trl.evaluation.sampling import work_units


@pytest.fixture(scope="module")
def held_out(tmp_path_factory):
    return write_problems(tmp_path_factory.mktemp("data") / "held_out.jsonl", 5)


def test_units_are_smaller_where_there_are_more_workers_than_batches():
    problems = [Problem(str(i), "text", MathTarget("5")) for i in range(5)]
    assert [len(unit) for unit in work_units(problems, 2, 1024, workers=4)] == [3, 3, 3, 1]
    assert [len(unit) for unit in work_units(problems, 2, 2, workers=4)] == [2] * 5
    assert [len(unit) for unit in work_units(problems, 1, 1024, workers=8)] == [1] * 5


# ------------------------------------------------------------------------------------------- an engine that meets

loads: list[dict] = []
sampled: list[int] = []


class MeetingLLM:
    """As vLLM's engine under a launcher: all processes load it together."""

    def __init__(self, **settings):
        import torch.distributed

        loads.append(settings)
        self.llm_engine = engine_core(settings)
        if settings.get("distributed_executor_backend") == "external_launcher":
            torch.distributed.barrier()

    def generate(self, prompts, params, use_tqdm):
        sampled.append(len(prompts))
        return [
            types.SimpleNamespace(
                outputs=[types.SimpleNamespace(token_ids=[10 + p.seed % 50, 3], finish_reason="stop")]
            )
            for p in params
        ]


def put_engine():
    sys.modules |= vllm_modules(MeetingLLM)
    loads.clear()
    sampled.clear()


def on_a_rank(policy, tasks, folder, *more):
    """Exit status, engines that were loaded, prompts that were sampled."""
    put_engine()
    status = evaluation(policy, tasks, folder, "--backend", "vllm", *more, length=12, batch_size=None)
    return status, list(loads), sum(sampled)


def final(folder):
    return (folder / "held_out.jsonl").read_bytes()


@pytest.mark.distributed
def test_every_process_has_work_and_loads_the_engine(policy, held_out, tmp_path):
    """Ten completions are far less than the 1024 of a batch."""
    ranks = run_ranks(on_a_rank, tmp_path, policy, held_out, tmp_path / "two")
    assert [(status, len(loads), sampled) for status, loads, sampled in ranks] == [(0, 1, 5)] * 2
    assert all(settings["dtype"] == "float32" for _, (settings,), _ in ranks)  # as the weights were saved
    with pytest.MonkeyPatch.context() as patch:
        for name in vllm_modules(MeetingLLM):  # put back afterwards
            patch.setitem(sys.modules, name, None)
        assert on_a_rank(policy, held_out, tmp_path / "one")[0] == 0
    assert final(tmp_path / "one") == final(tmp_path / "two")


@pytest.mark.distributed
def test_more_processes_than_completions(policy, held_out, tmp_path):
    file = tmp_path / "held_out.jsonl"
    file.write_text(held_out.read_text().splitlines(keepends=True)[0])
    ranks = run_ranks(on_a_rank, tmp_path, policy, file, tmp_path / "out", "--num_generations", "1")
    assert [(status, len(loads), sampled) for status, loads, sampled in ranks] == [(0, 1, 1), (0, 1, 0)]


@pytest.mark.distributed
@pytest.mark.parametrize("kind", ["samples", "verdicts"])
def test_a_run_goes_on_where_one_process_is_done(policy, held_out, tmp_path, kind):
    folder = tmp_path / "out"
    run_ranks(on_a_rank, tmp_path, policy, held_out, folder)
    before = final(folder)
    os.truncate(folder / "work" / "held_out" / f"{kind}-1.jsonl", 30)
    ranks = run_ranks(on_a_rank, tmp_path, policy, held_out, folder)
    # Both load what one of them needs; nobody loads where only verdicts are missing.
    assert [(status, len(loads)) for status, loads, _ in ranks] == [(0, int(kind == "samples"))] * 2
    assert final(folder) == before
    assert [status for status, *_ in run_ranks(on_a_rank, tmp_path, policy, held_out, folder)] == [0, 0]


@pytest.mark.distributed
def test_processes_that_share_a_model_sample_alike_and_one_writes(policy, held_out, tmp_path):
    folder = tmp_path / "out"
    more = [
        "--vllm_tensor_parallel_size",
        "2",
        "--vllm_max_model_length",
        "64",
        "--vllm_gpu_memory_utilization",
        "0.5",
    ]
    ranks = run_ranks(on_a_rank, tmp_path, policy, held_out, folder, *more)
    assert [(status, sampled) for status, _, sampled in ranks] == [(0, 10)] * 2
    for _, (settings,), _ in ranks:
        assert settings["tensor_parallel_size"] == 2 and settings["seed"] == 0
        assert settings["max_model_len"] == 64 and settings["gpu_memory_utilization"] == 0.5
    work = folder / "work" / "held_out"
    assert [path.name for path in work.glob("samples-*.jsonl")] == ["samples-0.jsonl"]
    assert len(list(read_items(work / "samples-0.jsonl", Sample))) == 10
    assert {len(list(read_items(path, Verdict))) for path in work.glob("verdicts-*.jsonl")} == {5}


# --------------------------------------------------------------------------------------------------------- errors


@pytest.mark.distributed
@pytest.mark.parametrize("kind", ["samples", "verdicts"])
def test_an_error_of_one_process_ends_all(policy, held_out, tmp_path, kind):
    folder = tmp_path / "out"
    (folder / "work" / "held_out" / f"{kind}-1.jsonl").mkdir(parents=True)
    ranks = run_ranks(on_a_rank, tmp_path, policy, held_out, folder)
    assert [status for status, *_ in ranks] == [2, 2]
    logs = [(tmp_path / f"rank{rank}.log").read_text() for rank in (0, 1)]
    assert "repro-trl eval" not in logs[0] and f"{kind}-1.jsonl: Is a directory" in logs[1]


@pytest.mark.distributed
@pytest.mark.parametrize(
    ("more", "status", "message"),
    [
        (["--temperature", "-1"], 2, "--temperature: '-1'"),
        (["--tasks", "nowhere.jsonl"], 2, "nowhere.jsonl"),
        (["--model", "/nowhere"], 2, "there is no such folder"),
        (["--vllm_tensor_parallel_size", "3"], 2, "vllm_tensor_parallel_size=3 does not divide"),
    ],
)
def test_what_all_processes_refuse_is_said_once(policy, held_out, tmp_path, more, status, message):
    ranks = run_ranks(on_a_rank, tmp_path, policy, held_out, tmp_path / "out", *more)
    assert [rank[0] for rank in ranks] == [status] * 2 and not (tmp_path / "out").exists()
    logs = [(tmp_path / f"rank{rank}.log").read_text() for rank in (0, 1)]
    assert message in logs[0] and "repro-trl eval" not in logs[1]


# ------------------------------------------------------------------------------------------------------- callback


def logged(policy, folder, backend, num_problems, batch_size):
    """What is logged of one evaluation before training, and processes and kind of the wrapped model."""
    from trl import GRPOConfig, GRPOTrainer

    from repro_trl.evaluation import EvaluationCallback, Sampling, task_from_rows

    args = GRPOConfig(
        **trl_settings(
            folder,
            per_device_train_batch_size=4,
            num_generations=2,
            eval_strategy="steps",
            eval_steps=1,
            per_device_eval_batch_size=2,
            num_generations_eval=1,
            max_completion_length=4,
            max_steps=1,
            **backend_settings(backend),
        )
    )
    trainer = GRPOTrainer(
        policy, token_reward, args, pocket_task.train_dataset(8), eval_dataset=pocket_task.eval_dataset(2)
    )
    sampling = Sampling(temperature=1.0, top_p=1.0, max_new_tokens=24, batch_size=batch_size)
    task = task_from_rows("pocket", pocket_task.eval_dataset(num_problems))
    trainer.add_callback(EvaluationCallback(trainer, [task], sampling, num_samples=1))
    trainer.train()
    (entry,) = (entry for entry in trainer.state.log_history if "eval_pocket/accuracy" in entry)
    return entry, trainer.accelerator.num_processes


@pytest.mark.distributed
@pytest.mark.parametrize("backend", ["ddp", "zero3", "fsdp2"])
@pytest.mark.parametrize(("num_problems", "batch_size"), [(1, 64), (7, 1)])
def test_the_callback_with_an_idle_process_and_completions_of_unequal_length(
    policy, tmp_path, backend, num_problems, batch_size
):
    """One completion for two processes; and single ones, of which one process is done before the other."""
    ranks = run_ranks(logged, tmp_path, policy, tmp_path / "run", backend, num_problems, batch_size, backend=backend)
    assert [processes for _, processes in ranks] == [2, 2]
    for entry, _ in ranks:
        assert entry["eval_pocket/problems"] == num_problems
    assert ranks[0][0]["eval_pocket/completion_tokens"] == ranks[1][0]["eval_pocket/completion_tokens"]
