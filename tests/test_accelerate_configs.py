"""Every file in accelerate_configs/ is read by `accelerate launch` as what its name says."""

import re
from pathlib import Path

import pytest
from accelerate.commands import launch
from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env, prepare_simple_launcher_cmd_env

CONFIGS = sorted((Path(__file__).parents[1] / "accelerate_configs").glob("*.yaml"))


def launch_arguments(monkeypatch, config, *more):
    """What `accelerate launch --config_file …` would start with."""
    started = []
    for launcher in ("simple_launcher", "multi_gpu_launcher", "deepspeed_launcher"):
        monkeypatch.setattr(launch, launcher, started.append)
    launch.launch_command(launch.launch_command_parser().parse_args(["--config_file", str(config), *more, "train.py"]))
    (arguments,) = started
    return arguments


def test_there_is_a_config_for_every_backend():
    assert {
        "cpu",
        "multi_cpu",
        "single_gpu",
        "multi_gpu",
        "fsdp2",
        "deepspeed_zero1",
        "deepspeed_zero2",
        "deepspeed_zero3",
    } <= {config.stem for config in CONFIGS}


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.stem)
def test_config_is_what_its_name_says(monkeypatch, config):
    name = config.stem
    nodes = 2 if name.startswith("multi_node") else 1
    several = name not in ("cpu", "single_gpu")
    node_arguments = ["--machine_rank", "1", "--main_process_ip", "node0", "--main_process_port", "29501"]
    arguments = launch_arguments(monkeypatch, config, *(node_arguments if nodes > 1 else []))

    assert arguments.num_machines == nodes
    assert arguments.num_processes == (2 if name == "multi_cpu" else 8 * nodes if several else 1)
    assert arguments.use_cpu == (name == "cpu")
    assert arguments.mixed_precision == ("no" if name.endswith("cpu") else "bf16")
    assert arguments.multi_gpu == name.endswith(("multi_gpu", "multi_cpu"))
    assert arguments.use_deepspeed == ("deepspeed" in name)
    assert arguments.use_fsdp == ("fsdp" in name)

    if arguments.use_deepspeed:
        stage = int(re.search(r"zero(\d)", name).group(1))
        offload = "cpu" if name.endswith("offload") else "none"
        _, environment = prepare_deepspeed_cmd_env(arguments)
        assert environment["ACCELERATE_DEEPSPEED_ZERO_STAGE"] == str(stage)
        assert environment["ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE"] == offload
        if stage == 3:
            assert environment["ACCELERATE_DEEPSPEED_OFFLOAD_PARAM_DEVICE"] == offload
            assert environment["ACCELERATE_DEEPSPEED_ZERO3_SAVE_16BIT_MODEL"] == "true"
    elif several:
        environment = prepare_multi_gpu_env(arguments)
    else:
        _, environment = prepare_simple_launcher_cmd_env(arguments)
    if arguments.use_fsdp:
        assert environment["FSDP_VERSION"] == "2"
        assert environment["FSDP_RESHARD_AFTER_FORWARD"] == "true"
    if nodes > 1:
        assert arguments.main_process_ip == "node0" and arguments.machine_rank == 1
