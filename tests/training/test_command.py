"""`repro-trl grpo` and its like: what goes to the script, what to accelerate, and what comes of it."""

import importlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tiny_policy import save_tiny_policy
from trl_recipes import RECIPE, TRL_ACCELERATE, TRL_MIXTURE, TRL_PLAIN, TRL_PROCESSES

from repro_trl.cli import main
from repro_trl.demo import task
from repro_trl.training import command, launch
from repro_trl.training.algorithms import ALGORITHMS
from repro_trl.training.arguments import parse_arguments
from repro_trl.training.command import read_request
from repro_trl.training.tables import write_rows

SHORT = (
    *("--max_steps", "1", "--per_device_train_batch_size", "4", "--num_generations", "2", "--logging_steps", "1"),
    *("--num_eval_problems", "4", "--per_device_eval_batch_size", "4", "--max_completion_length", "16"),
    *("--use_cpu", "true", "--bf16", "false", "--report_to", "none", "--save_strategy", "no"),
)


@pytest.fixture
def launched(monkeypatch):
    """The arguments of each launch, in place of the launches."""
    calls = []

    def record(launcher, script):
        calls.append((list(launcher), list(script)))
        return 0

    monkeypatch.setattr(command, "launch", record)
    return calls


def write(folder: Path, text: str) -> str:
    file = folder / "run.yaml"
    file.write_text(text)
    return str(file)


@pytest.mark.parametrize(
    ("text", "launcher"),
    [
        (TRL_PLAIN, []),
        (TRL_PROCESSES, ["--num_processes", "4"]),
        (TRL_MIXTURE, []),
        (TRL_ACCELERATE, ["--config_file", "zero2.yaml"]),
    ],
)
def test_trls_own_examples_with_repro_lines(tmp_path, text, launcher):
    file = write(tmp_path, f'{text}repro_alpha: 0.1\nrepro_answer_prefix: "</think>\\n\\n"\n')
    request = read_request("grpo", ["--config", file])
    assert [Path(token).name for token in request.launcher] == [Path(token).name for token in launcher]
    assert all(Path(token).is_file() for token in request.launcher[1:] if token.endswith(".yaml"))
    assert request.script == ["--config", file]
    script = importlib.import_module(ALGORITHMS["grpo"].script)
    tokens = [*request.script, "--use_cpu", "true", "--bf16", "false", "--output_dir", str(tmp_path)]
    script_args, training_args, model_args, dataset_args = parse_arguments("grpo", script.ARGUMENTS, tokens, True)
    assert training_args.repro_alpha == 0.1 and training_args.repro_answer_prefix == "</think>\n\n"
    assert script_args.reward_funcs == ["accuracy_reward"]
    assert model_args.model_name_or_path == "Qwen/Qwen2.5-0.5B"
    paths = [dataset.path for dataset in dataset_args.datasets]
    assert paths == [dataset["path"] for dataset in yaml.safe_load(text).get("datasets", [])]


@pytest.mark.parametrize("name", list(ALGORITHMS))
def test_what_recipes_set(tmp_path, name):
    file = write(tmp_path, f"env:\n  SOME_VARIABLE: 1\n{RECIPE}repro_alpha: 0.1\nrepro_top_k: null\n")
    request = read_request(name, ["--config", file])
    assert request.launcher == [] and request.environment == {"SOME_VARIABLE": "1"}
    script = importlib.import_module(ALGORITHMS[name].script)
    tokens = [*request.script, "--use_cpu", "true", "--bf16", "false", "--output_dir", str(tmp_path)]
    script_args, training_args, model_args, *_ = parse_arguments(name, script.ARGUMENTS, tokens, True)
    assert script_args.reward_funcs == ["accuracy_reward"] and script_args.dataset_config == "default"
    assert training_args.reward_weights == [1.0] and training_args.repro_alpha == 0.1
    assert training_args.learning_rate == 1e-6 and training_args.log_completions and not training_args.do_eval
    assert training_args.generation_kwargs == {"top_k": 50} and training_args.repro_top_k is None
    assert training_args.gradient_checkpointing_kwargs == {"use_reentrant": False}
    assert training_args.lr_scheduler_kwargs == {"min_lr_rate": 0.1} and training_args.save_strategy == "no"
    assert model_args.lora_target_modules == "all-linear" and model_args.dtype == "bfloat16"


def test_arguments_go_where_they_belong():
    request = read_request(
        "ppo",
        [
            *(
                "--max-steps",
                "3",
                "--num_processes",
                "2",
                "--reward_funcs",
                "a.b",
                "c.d",
                "--debug",
                "underflow_overflow",
            ),
            *(
                "--no_shuffle_dataset",
                "--multi_gpu",
                "--main-process-port=29501",
                "--html",
                "--compare_plain",
                "false",
            ),
        ],
    )
    config = str(ALGORITHMS["ppo"].default_config)
    assert request.launcher == ["--num_processes", "2", "--multi_gpu", "--main-process-port=29501"]
    assert request.html == "" and not request.compare_plain
    # `debug` is a setting of both: the script's goes first, as in TRL.
    assert request.script == [
        *("--max-steps", "3", "--reward_funcs", "a.b", "c.d", "--debug", "underflow_overflow"),
        *("--no_shuffle_dataset", "--config", config),
    ]


def test_settings_of_the_launcher_and_of_the_command_in_the_file(tmp_path):
    file = write(
        tmp_path,
        "model_name_or_path: m\noutput_dir: a\nenv: {A_VARIABLE: 3}\naccelerate_config: multi_cpu\nmulti_gpu: true\n"
        "same_network: 'false'\nnum_machines: null\nmain_process_port: 29501\ncompare_plain: true\nhtml: page.html\n",
    )
    request = read_request("grpo", ["--config", file, "--output_dir", "b", "--accelerate_config", file])
    assert request.launcher == ["--config_file", file, "--multi_gpu", "--main_process_port", "29501"]
    assert request.compare_plain and request.html == "page.html"
    assert request.environment == {"A_VARIABLE": "3"}
    assert request.value("output_dir") == "b" and request.value("model_name_or_path") == "m"


@pytest.mark.parametrize(
    ("arguments", "config", "message"),
    [
        (["--repro_alhpa", "1"], None, "there is no setting 'repro_alhpa'; the nearest is 'repro_alpha'."),
        (["--num-process", "2"], None, "there is no setting 'num_process'; the nearest is 'num_processes'."),
        (["--learning", "1"], None, "there is no setting 'learning'; the nearest is"),
        ([], "learning-rate: 1.0e-6\n", "there is no setting 'learning-rate'; the nearest is 'learning_rate'."),
        ([], "acelerate_config: cpu\n", "there is no setting 'acelerate_config'; the nearest is 'accelerate_config'."),
        ([], "datasets:\n  - path: a\n    colums: [b]\n", "there is no setting 'colums'; the nearest is 'columns'."),
        ([], "datasets: [a]\n", "each one must be a mapping with a `path`, not 'a'."),
        ([], "datasets: {path: a}\n", "datasets={'path': 'a'}: give a list."),
        ([], "datasets: null\n", "datasets=None: give a list."),
        ([], "env: a\n", "env='a': give a mapping"),
        ([], "torch_dtype: bfloat16\n", "there is no setting 'torch_dtype'; the nearest is 'dtype'."),
        ([], "help: true\n", "there is no setting 'help'"),
        ([], "max_steps: null\n", "max_steps=None: give an integer."),
        ([], "save_strategy: no\n", "save_strategy=False: give text (YAML reads"),
        ([], "reward_weights: 1.0\n", "reward_weights=1.0: give a list or null."),
        ([], "max_steps: 1\n\tseed: 2\n", "the file is not YAML (while scanning"),
        ([], "html: [a]\n", "html=['a']: give a file"),
        ([], "multi_gpu: perhaps\n", "multi_gpu='perhaps': give true or false."),
        ([], "num_processes: [2]\n", "num_processes=[2]: give one value."),
        (["--accelerate_config", "zero9"], None, "accelerate_config='zero9': this is neither a file nor one of"),
        (["--accelerate_config"], None, "accelerate_config: give the name"),
        (["--compare_plain", "perhaps"], None, "compare_plain='perhaps': give true or false."),
        (["--compare_plain", "--repro_alpha", "0"], None, "repro_alpha=0: this already is the plain algorithm."),
        (["--compare_plain", "--num_eval_problems=0"], None, "num_eval_problems=0: there are no held-out problems"),
        (["fast"], None, "'fast': give settings by name"),
    ],
)
def test_one_sentence_for_what_nobody_knows(tmp_path, capsys, launched, arguments, config, message):
    if config is not None:
        arguments = ["--config", write(tmp_path, config)]
    assert main(["grpo", *arguments]) == 2
    printed = capsys.readouterr().err
    assert message in printed and printed.startswith("repro-trl grpo: ") and printed.count("\n") == 1
    assert not launched


def test_names_of_accelerate_configs():
    for name in ("cpu", "deepspeed_zero2", "multi_cpu.yaml"):
        file = Path(launch.resolve_accelerate_config(name))
        assert file.is_file() and not file.is_symlink() and file.parent.name == "accelerate_configs"
        assert file.parent.parent.name == "repro_trl"
    # Both packages have one: this package's goes first.
    assert "repro_trl" in launch.resolve_accelerate_config("fsdp2")
    assert "trl/accelerate_configs" in launch.resolve_accelerate_config("fsdp1")


def test_accelerate_gets_its_arguments(monkeypatch):
    import accelerate.commands.launch as accelerate_launch

    seen = []
    monkeypatch.setattr(
        accelerate_launch, "launch_command", lambda arguments: seen.append((arguments, dict(os.environ)))
    )
    assert launch.launch(["--num_processes", "2"], ["grpo", "--max_steps", "1"]) == 0
    ((arguments, environment),) = seen
    assert arguments.module and arguments.training_script == "repro_trl.training" and arguments.num_processes == 2
    assert arguments.training_script_args == ["grpo", "--max_steps", "1"]
    assert environment[launch.PROCESSES_VARIABLE] == "2" and launch.PROCESSES_VARIABLE not in os.environ
    with pytest.raises(ValueError, match="'stray': give settings by name"):
        launch.launch(["--multi_gpu", "stray"], ["grpo"])


@pytest.mark.parametrize(("code", "status"), [(3, 3), (-signal.SIGKILL, 137)])
def test_the_exit_status_is_that_of_the_training(monkeypatch, code, status):
    import accelerate.commands.launch as accelerate_launch

    def fail(arguments):
        raise subprocess.CalledProcessError(code, "python")

    monkeypatch.setattr(accelerate_launch, "launch_command", fail)
    assert launch.launch([], ["grpo"]) == status


def test_fewer_processes_than_asked_for(monkeypatch):
    from repro_trl.training.__main__ import check_processes

    monkeypatch.setenv(launch.PROCESSES_VARIABLE, "2")
    check_processes(2)
    with pytest.raises(ValueError, match="num_processes=2: accelerate uses 1 here"):
        check_processes(1)


def test_the_plain_training_differs_in_alpha_and_folders_alone(tmp_path, launched, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    file = write(tmp_path, "model_name_or_path: m\noutput_dir: out/\nrun_name: first\nresume_from_checkpoint: true\n")
    (tmp_path / "out").mkdir()
    write_rows({"before": {}, "after": {}}, "out")  # of an earlier run
    assert main(["grpo", "--config", file, "--compare_plain", "--num_processes", "1"]) == 0
    (first_launcher, first), (second_launcher, second) = launched
    assert first_launcher == second_launcher == ["--num_processes", "1"]
    assert first == ["grpo", "--config", file]
    assert second == [
        *first,
        *("--repro_alpha", "0", "--output_dir", "out-plain", "--push_to_hub", "false"),
        *("--run_name", "first-plain", "--resume_from_checkpoint", "false"),
    ]
    assert not Path("out", "before_after.json").exists()


def test_the_plain_training_is_left_out_where_the_first_failed(launched, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "launch", lambda launcher, script: launched.append(script) or 7)
    assert main(["grpo", "--compare_plain", "--html"]) == 7
    assert len(launched) == 1


def test_a_page_that_cannot_be_written_is_said_before_any_work(launched, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["grpo", "--html", str(tmp_path)]) == 2
    assert "Is a directory" in capsys.readouterr().err and not launched


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    return save_tiny_policy(tmp_path_factory.mktemp("policy"))


def repro_trl(folder, *arguments, **options):
    return subprocess.Popen(
        [sys.executable, "-m", "repro_trl", *map(str, arguments)],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def test_trls_yaml_trained_with_and_without_repro(tmp_path, policy):
    """A mixture, TRL's reward and one of the user's own, side by side with the plain algorithm, with the page."""
    rows = task.train_dataset(24).to_list()
    for number, part in enumerate((rows[:12], rows[12:])):
        (tmp_path / f"{number}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    (tmp_path / "my_rewards.py").write_text(
        "def brevity(completions, **kwargs):\n    return [-len(c[0]['content']) / 1000 for c in completions]\n"
    )
    settings = yaml.safe_load(TRL_MIXTURE) | {
        "model_name_or_path": policy,
        "datasets": [{"path": "json", "data_files": f"{number}.jsonl"} for number in (0, 1)],
        "reward_funcs": ["accuracy_reward", "my_rewards.brevity"],
        "reward_weights": [1.0, 0.5],
        "repro_alpha": 0.1,
        "accelerate_config": "cpu",
        "output_dir": "out",
    }
    file = write(tmp_path, yaml.safe_dump(settings))
    process = repro_trl(tmp_path, "grpo", "--config", file, *SHORT, "--compare_plain", "--html", "page.html")
    printed, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    for noise in ("Warning", "it/s", "values were not passed"):
        assert noise not in printed + errors
    assert printed.count("step    1/1  training:") == 2 and printed.count("held out:") == 4
    table = printed[printed.index("Side by side") :].splitlines()
    assert [line.split("  ")[0] for line in table[2:6]] == [
        "held out",
        "before",
        "after GRPO",
        "after GRPO with RePro",
    ]
    assert table[-1].split() == ["Page", "page.html"]
    assert "<html" in (tmp_path / "page.html").read_text()
    assert json.loads((tmp_path / "out" / "run.json").read_text())["accuracy_reward"] == "accuracy"

    for folder, alpha in (("out", 0.1), ("out-plain", 0)):
        history = json.loads((tmp_path / folder / "trainer_state.json").read_text())["log_history"]
        logged = next(entry for entry in history if "reward" in entry)
        own, theirs, brevity = (logged[f"rewards/{name}/mean"] for name in ("accuracy", "accuracy_reward", "brevity"))
        assert own == theirs == 0 and brevity < 0
        # The verdict on the answer is measured, and its weight is 0 beside TRL's.
        assert logged["reward"] == pytest.approx(theirs + 0.5 * brevity, abs=1e-5)
        assert ("repro/objective_gain" in logged) == (alpha > 0)


def test_ctrl_c_ends_the_training_in_one_sentence(tmp_path, policy):
    arguments = ("--model_name_or_path", policy, "--dataset_name", "pocket", "--output_dir", "out", *SHORT)
    process = repro_trl(tmp_path, "grpo", *arguments, "--max_steps", "1000", start_new_session=True)
    for line in process.stdout:
        if "training:" in line:
            break
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert errors.strip().splitlines()[-1] == "repro-trl grpo: interrupted." and "Traceback" not in errors


def test_bad_values_end_in_one_sentence(tmp_path, policy):
    arguments = ("--model_name_or_path", policy, "--dataset_name", "nowhere.jsonl", *SHORT)
    process = repro_trl(tmp_path, "reinforce-pp", *arguments, "--num_generations", "1")
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 2
    assert errors.strip() == "repro-trl reinforce-pp: dataset_name='nowhere.jsonl': there is no such file."


@pytest.mark.distributed
def test_two_processes_on_a_cpu(tmp_path, policy):
    arguments = ("--model_name_or_path", policy, "--dataset_name", "pocket", "--output_dir", "out", *SHORT)
    launcher = ("--accelerate_config", "multi_cpu", "--num_processes", "2", "--main_process_port", "29653")
    process = repro_trl(tmp_path, "grpo", *arguments, *launcher)
    printed, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    assert printed.count("step    1/1  training:") == 1 and printed.count("before ") == 1
    # Half as many steps an epoch, and twice the tokens a step: both processes train one model.
    state = json.loads((tmp_path / "out" / "trainer_state.json").read_text())
    settings = importlib.import_module("torch").load(tmp_path / "out" / "training_args.bin", weights_only=False)
    assert settings.world_size == 2 and settings.distributed_state.num_processes == 2
    assert state["global_step"] == 1


def test_several_processes_that_accelerate_would_not_start(tmp_path, policy):
    arguments = ("--model_name_or_path", policy, "--dataset_name", "pocket", "--output_dir", "out", *SHORT)
    process = repro_trl(tmp_path, "grpo", *arguments, "--accelerate_config", "cpu", "--num_processes", "2")
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 2 and "num_processes=2: accelerate uses 1 here" in errors
