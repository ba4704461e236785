"""The command line as a whole: light until there is work, one vocabulary, one way to end."""

import argparse
import importlib
import json
import signal
import subprocess
import sys

import pytest

from repro_trl.cli import COMMANDS, main
from repro_trl.evaluation.arguments import PAPER_TASKS
from repro_trl.evaluation.tasks import HUB_TASKS

HEAVY = ("accelerate", "datasets", "matplotlib", "numpy", "pandas", "pyarrow", "torch", "transformers", "trl")


def parser_of(command):
    parser = argparse.ArgumentParser(prog=f"repro-trl {command}", description="")
    importlib.import_module(COMMANDS[command][0]).add_arguments(parser)
    return parser


@pytest.mark.parametrize("command", [None, *COMMANDS])
def test_help_loads_no_model_library(command):
    arguments = ["--help"] if command is None else [command, "--help"]
    code = (
        "import json, sys\n"
        "from repro_trl.cli import main\n"
        f"assert main({arguments!r}) == 0\n"
        "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})), file=sys.stderr)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(HEAVY) & set(json.loads(result.stderr)) and "usage: repro-trl" in result.stdout


# Arguments of each command, however it is called with.
REQUIRED = {"eval": ["--model", "m"], "score": ["in.jsonl", "out.jsonl"], "inspect": [], "report": []}


@pytest.mark.parametrize(
    ("command", "former", "value", "name", "parsed"),
    [
        ("eval", "--num_samples", "3", "num_generations", 3),
        ("eval", "--max_new_tokens", "7", "max_completion_length", 7),
        ("eval", "--revision", "aime24=abc", "dataset_revision", ["aime24=abc"]),
        ("eval", "--think_end", "<x>", "repro_think_end", "<x>"),
        ("score", "--revision", "abc", "model_revision", "abc"),
        ("inspect", "--revision", "abc", "model_revision", "abc"),
        ("inspect", "--num_samples", "3", "num_generations", 3),
        ("inspect", "--max_new_tokens", "7", "max_completion_length", 7),
    ],
)
def test_former_names_are_taken_with_a_notice(capsys, monkeypatch, command, former, value, name, parsed):
    parser = parser_of(command)
    assert vars(parser.parse_args([*REQUIRED[command], former, value]))[name] == parsed
    assert capsys.readouterr().err == f"repro-trl {command}: {former} is now --{name}.\n"
    parser.parse_args([*REQUIRED[command], f"--{name}", value])
    assert capsys.readouterr().err == ""
    assert former not in parser.format_help().replace("--dataset_revision", "").replace("--model_revision", "")
    monkeypatch.setenv("RANK", "1")  # another process of a launcher
    parser.parse_args([*REQUIRED[command], former, value])
    assert capsys.readouterr().err == ""


def test_one_word_means_one_thing():
    """Arguments that several commands have differ in nothing but default and help."""
    seen = {}
    for command in COMMANDS:
        for action in parser_of(command)._actions:
            for name in action.option_strings:
                seen.setdefault(name, []).append((command, action))
    shared = {name: uses for name, uses in seen.items() if len(uses) > 1}
    assert {"--model_name_or_path", "--dtype", "--num_generations", "--batch_size", "--repro_think_end"} <= set(shared)
    former = {"--revision"}  # of the model in two commands, of a dataset in the third
    for name, uses in shared.items():
        if name not in former:
            assert len({action.dest for _, action in uses}) == 1, name


def test_the_paper_s_tasks_are_those_that_can_be_loaded():
    assert tuple(HUB_TASKS) == PAPER_TASKS


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["eval", "--model", "m", "--temperature", "-0.1"], "--temperature: '-0.1': give a number >= 0"),
        (["score", "a", "b", "--temperature", "0"], "--temperature: '0': give a number > 0, because scores come from"),
        (["inspect", "--temperature", "0"], "--temperature: '0': give a number > 0, because scores come from"),
        (["inspect", "--temperature", "nan"], "--temperature: 'nan': give a number > 0"),
        (["eval", "--model", "m", "--top_p", "1.5"], "--top_p: '1.5': give a number in (0, 1]"),
        (["inspect", "--num_generations", "2.5"], "--num_generations: '2.5': give an integer >= 1"),
        (["score", "a", "b", "--batch_size", "0"], "--batch_size"),
        (["score", "a", "b", "--dtype", "float3"], "--dtype: invalid choice: 'float3'"),
        (["eval", "--model", "m", "--dtype", "int8"], "--dtype: invalid choice: 'int8'"),
        (["eval"], "--model_name_or_path"),
        (["score", "a"], "output"),
        (["report", "--nothing"], "--nothing"),
        (["nothing"], "nothing"),
        ([], "COMMAND"),
    ],
)
def test_what_is_called_wrongly_ends_in_one_sentence(capsys, arguments, sentence):
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert sentence in printed.err and printed.err.count("\n") == 1 and not printed.out


def test_ctrl_c_while_libraries_load(monkeypatch, capsys):
    def interrupted(arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("repro_trl.reporting.command.run", interrupted)
    assert main(["report", "x"]) == 130
    assert capsys.readouterr().err == "repro-trl report: interrupted.\n"


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.1, 1, 2, 4])
def test_ctrl_c_at_any_time(tmp_path, seconds):
    command = [sys.executable, "-m", "repro_trl", "inspect", "--html", str(tmp_path / "page.html"), "--limit", "500"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode in (0, 130) and "Traceback" not in errors, errors
