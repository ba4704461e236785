"""The example scripts of PPO and REINFORCE++, with a tiny policy in place of the bundled one, and their configs."""

import json
from pathlib import Path

import ppo_repro
import pytest
import reinforce_pp_repro
from peft import PeftModel
from scripts import run_script
from tiny_policy import save_tiny_policy
from transformers import AutoModelForCausalLM, AutoModelForTokenClassification

from repro_trl.training.arguments import parse_arguments

CONFIGS = Path(__file__).parents[2] / "examples" / "configs"
SCRIPTS = {"ppo": ppo_repro, "reinforce_pp": reinforce_pp_repro}


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    return save_tiny_policy(tmp_path_factory.mktemp("policy"))


def run(name, policy, output_dir, *arguments):
    run_script(
        name.replace("_", "-"),
        SCRIPTS[name],
        *("--config", CONFIGS / f"pocket_{name}.yaml", "--model_name_or_path", policy, "--output_dir", output_dir),
        *("--use_cpu", "true", "--disable_tqdm", "true", "--max_steps", 2, "--per_device_train_batch_size", 8),
        *("--num_eval_problems", 4, "--per_device_eval_batch_size", 4, "--max_completion_length", 24),
        *arguments,
    )


@pytest.mark.parametrize("name", SCRIPTS)
def test_script_measures_trains_and_saves(tmp_path, capsys, policy, name):
    run(name, policy, tmp_path)
    assert "held out" in capsys.readouterr().out
    rows = json.loads((tmp_path / "before_after.json").read_text())
    assert all(0 <= rows[row]["accuracy"] <= 1 for row in ("before", "after"))
    assert AutoModelForCausalLM.from_pretrained(tmp_path).num_parameters() > 0
    assert (tmp_path / "critic").is_dir() == (name == "ppo")
    if name == "ppo":
        assert AutoModelForTokenClassification.from_pretrained(tmp_path / "critic").config.num_labels == 1


def test_baseline_variant(tmp_path, policy):
    run("reinforce_pp", policy, tmp_path, "--use_group_baseline", "true", "--beta", "0.01")
    assert (tmp_path / "before_after.json").is_file()


def test_adapter_for_the_policy_and_for_the_critic(tmp_path, policy):
    run(
        "ppo",
        policy,
        tmp_path,
        "--use_peft",
        "true",
        "--critic_use_peft",
        "true",
        "--lora_target_modules",
        "all-linear",
    )
    base = AutoModelForCausalLM.from_pretrained(policy)
    assert PeftModel.from_pretrained(base, tmp_path).active_adapters == ["default"]
    assert (tmp_path / "critic" / "adapter" / "adapter_config.json").is_file()


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_config_is_read_whole(tmp_path, name):
    configs = sorted(CONFIGS.glob(f"*_{name}.yaml"))
    assert len(configs) >= 2
    for config in configs:
        overrides = ["--output_dir", str(tmp_path), "--use_cpu", "true", "--use_vllm", "false", "--bf16", "false"]
        script_args, training_args, model_args, _ = parse_arguments(
            name.replace("_", "-"), SCRIPTS[name].ARGUMENTS, ["--config", str(config), *overrides]
        )
        assert script_args.dataset_name and model_args.model_name_or_path
        assert training_args.repro_alpha > 0
