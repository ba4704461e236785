"""The trainers of this package with a real vLLM, on a CPU, in colocate mode."""

import json
import math
import sys

import pyarrow.parquet as pq
import pytest
from peft import LoraConfig
from ranks import free_port
from vllm_on_cpu import ROOT, run_command, run_with_vllm
from vllm_runs import train

pytestmark = pytest.mark.vllm


def run(folder, *args, world_size=1, **overrides):
    results = run_with_vllm(_train, folder, folder / "run", args, overrides, world_size=world_size)
    return results if world_size > 1 else results[0]


def _train(folder, args, overrides):
    return train(*args, folder, **overrides)


def check(run):
    assert run["moved"] and all(map(math.isfinite, run["losses"]))
    assert all(run["per_token"]), "no process advantage"
    for entry in run["logged"]:
        assert entry["repro/segments"] > 2 and entry["repro/advantage_share"] > 0


def assert_same_completions(run):
    """Greedy ones, of the weights after training."""
    of_vllm, of_transformers = run["greedy"]
    assert of_vllm == of_transformers


@pytest.mark.parametrize("algorithm", ["grpo", "reinforce++", "ppo"])
def test_answers_are_read_on_trls_pass_and_new_weights_arrive(tmp_path, algorithm):
    result = run(tmp_path, algorithm, eval_strategy="steps", eval_steps=2, per_device_eval_batch_size=16)
    check(result)
    # Two micro-batches: TRL's pass over each, and the answers on top; then one batch of evaluation.
    assert result["forwards"] == [4, 4, 2] and result["read_on_trls_pass"] == 3
    assert result["corrected"] == [True] * 3 and len(result["evaluated"]) == 1
    # In the second step, too, when the weights are no longer those on disk.
    assert max(result["differences"]) < 1e-5
    assert_same_completions(result)


def test_without_repro_there_is_trls_pass_alone(tmp_path):
    result = run(tmp_path, "grpo", repro_alpha=0.0)
    assert result["forwards"] == [2, 2] and result["read_on_trls_pass"] == 0 and not any(result["per_token"])


@pytest.mark.parametrize("mode", [None, "token_truncate", "token_mask", "sequence_truncate"])
def test_importance_sampling_correction(tmp_path, mode):
    overrides = (
        {"vllm_importance_sampling_correction": False} if mode is None else {"vllm_importance_sampling_mode": mode}
    )
    result = run(tmp_path, "grpo", **overrides)
    check(result)
    assert result["corrected"] == [mode is not None] * 2
    # Without the correction TRL has no pass of its own. RePro's takes its place.
    assert result["forwards"] == [4, 4] and result["read_on_trls_pass"] == (0 if mode is None else 2)
    if mode is None:
        assert not any("sampling" in key for entry in result["logged"] for key in entry)
    else:
        ratios = [entry["sampling/importance_sampling_ratio/mean"] for entry in result["logged"]]
        assert ratios == pytest.approx([1.0, 1.0], abs=1e-3)


def test_adapters(tmp_path):
    lora = LoraConfig(task_type="CAUSAL_LM", r=4, target_modules="all-linear")
    result = run(tmp_path, "grpo", peft_config=lora, beta=0.1, learning_rate=1e-2)
    check(result)
    assert result["read_on_trls_pass"] == 2 and max(result["differences"]) < 1e-5
    assert_same_completions(result)


def test_where_the_policy_answers_is_found(tmp_path):
    result = run(tmp_path, "grpo", repro_answer_prefix="auto", per_device_train_batch_size=16, max_steps=3)
    check(result)
    assert result["form"].startswith("</think>\n\n")
    # Once the form is chosen, answers are read on TRL's pass.
    assert result["read_on_trls_pass"] >= 1 and result["forwards"][-1] == 4


@pytest.mark.parametrize("algorithm", ["grpo", "ppo"])
def test_two_processes(tmp_path, algorithm):
    results = run(tmp_path, algorithm, world_size=2)
    for result in results:
        check(result)
        assert result["processes"] == 2 and result["forwards"] == [4, 4] and result["read_on_trls_pass"] == 2
        assert max(result["differences"]) < 1e-5
        assert_same_completions(result)
    one, other = results
    assert one["losses"] == other["losses"] and one["completions"] != other["completions"]


def test_a_resumed_run_goes_on_with_its_rollouts(tmp_path):
    overrides = {"num_iterations": 2, "save_strategy": "steps", "save_steps": 1}
    whole = run(tmp_path, "grpo", **overrides)
    (tmp_path / "resumed").mkdir()
    checkpoint = str(tmp_path / "run" / "checkpoint-1")
    resumed = run(tmp_path / "resumed", "grpo", resume=checkpoint, **overrides)
    assert whole["forwards"] == [4] and resumed["forwards"] == []
    assert resumed["losses"] == pytest.approx(whole["losses"], abs=1e-6)
    assert_same_completions(resumed)


def test_as_configured_vllm_computes_in_16_bits(tmp_path):
    """TRL names no dtype: weights saved in float32 become bfloat16 in colocate mode, as docs/howto/vllm.md says."""
    result = run(tmp_path, "grpo", float32=False)
    check(result)
    assert 1e-4 < max(result["differences"]) < 0.3


def test_the_command_under_accelerate_launch(tmp_path):
    """As a user runs it, with nothing set from within."""
    arguments = (
        "--use_vllm true --vllm_mode colocate --vllm_max_model_length 256 --max_steps 1 --logging_steps 1 "
        "--per_device_train_batch_size 8 --num_eval_problems 0 --use_cpu true"
    )
    config = str(ROOT / "accelerate_configs" / "multi_cpu.yaml")
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", config, "--num_processes", "2"]
    command += ["--main_process_port", str(free_port()), str(ROOT / "examples" / "grpo_repro.py")]
    command += [*arguments.split(), "--output_dir", str(tmp_path / "run")]
    run_command(command, tmp_path)
    history = json.loads((tmp_path / "run" / "trainer_state.json").read_text())["log_history"]
    (step,) = [entry for entry in history if "loss" in entry]
    assert step["repro/segments"] > 2 and 0 < step["sampling/sampling_logp_difference/max"] < 0.3
    (completions,) = (tmp_path / "run" / "completions").glob("*.parquet")
    assert pq.read_metadata(completions).num_rows == 16  # of both processes
    assert (tmp_path / "run" / "model.safetensors").exists()
