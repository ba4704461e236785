"""The example scripts end to end, in seconds: the bundled default, real text with a small local model, bad input."""

import json
from pathlib import Path

import grpo_repro
import pytest
from scripts import run_script
from tiny_models import tiny_model
from tiny_tokenizers import byte_level_tokenizer
from transformers import AutoModelForCausalLM

from repro_trl.training.arguments import parse_arguments

CONFIGS = Path(__file__).parents[2] / "examples" / "configs"
DATA = Path(__file__).parents[3] / "shared" / "data"
SHORT = ["--use_cpu", "true", "--disable_tqdm", "true", "--save_strategy", "no", "--report_to", "none"]


def run(*arguments):
    run_script("grpo", grpo_repro, *arguments, *SHORT)


@pytest.fixture(scope="module")
def small_model(tmp_path_factory):
    """A random Qwen3 with a byte-level tokenizer and a chat template, saved to a folder."""
    path = tmp_path_factory.mktemp("model")
    tokenizer = byte_level_tokenizer()
    tiny_model("qwen3", vocab_size=len(tokenizer)).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def test_bundled_default(tmp_path, capsys):
    run(
        *("--output_dir", tmp_path, "--max_steps", 2, "--per_device_train_batch_size", 16),
        *("--num_eval_problems", 16, "--per_device_eval_batch_size", 16, "--logging_steps", 1),
    )
    printed = capsys.readouterr().out
    assert printed.count("training:") == 2 and printed.count("held out:") == 2
    rows = json.loads((tmp_path / "before_after.json").read_text())
    for name in ("before", "after"):
        (line,) = (line for line in printed.splitlines() if line.startswith(name))
        assert line.split()[1:] == [f"{value:.3f}" for value in rows[name].values()]
        assert 0 <= rows[name]["accuracy"] <= 1 and rows[name]["thinking tokens"] > 1
    assert AutoModelForCausalLM.from_pretrained(tmp_path).num_parameters() > 0
    assert "2512.01925" in (tmp_path / "README.md").read_text()


@pytest.mark.skipif(not DATA.is_dir(), reason="needs the folder of real problems beside the repository")
@pytest.mark.parametrize("file", ["gsm8k_train.jsonl", "aime24.jsonl", "math_cot_100.jsonl"])
def test_real_text_with_a_small_local_model(tmp_path, small_model, file):
    run(
        *("--model_name_or_path", small_model, "--dataset_name", DATA / file, "--output_dir", tmp_path),
        *("--max_steps", 1, "--per_device_train_batch_size", 4, "--num_generations", 2, "--bf16", "false"),
        *("--max_completion_length", 24, "--num_eval_problems", 2, "--per_device_eval_batch_size", 8),
        *("--logging_steps", 1),
    )
    assert json.loads((tmp_path / "before_after.json").read_text())["after"]["accuracy"] == 0


def test_dataset_without_a_problem_column(tmp_path, small_model):
    file = tmp_path / "rows.jsonl"
    file.write_text('{"text": "1+1", "answer": "2"}\n' * 8)
    with pytest.raises(ValueError, match=r"prompt_column=None.*'text'"):
        run("--model_name_or_path", small_model, "--dataset_name", file, "--output_dir", tmp_path, "--bf16", "false")


def test_dataset_without_an_answer_column(tmp_path, small_model):
    file = tmp_path / "rows.jsonl"
    file.write_text('{"problem": "1+1", "truth": "2"}\n' * 8)
    with pytest.raises(ValueError, match=r"repro_answer_column=None.*'truth'"):
        run("--model_name_or_path", small_model, "--dataset_name", file, "--output_dir", tmp_path, "--bf16", "false")


def test_missing_file_is_named(tmp_path, small_model):
    with pytest.raises(ValueError, match=r"dataset_name='nowhere\.jsonl'"):
        run(
            "--model_name_or_path",
            small_model,
            "--dataset_name",
            "nowhere.jsonl",
            "--output_dir",
            tmp_path,
            "--bf16",
            "false",
        )


@pytest.mark.parametrize("config", sorted(CONFIGS.glob("*_grpo.yaml")), ids=lambda path: path.stem)
def test_every_config_is_read_whole(tmp_path, config):
    overrides = ["--output_dir", str(tmp_path), "--use_cpu", "true", "--use_vllm", "false", "--bf16", "false"]
    script_args, training_args, model_args, _ = parse_arguments(
        "grpo", grpo_repro.ARGUMENTS, ["--config", str(config), *overrides]
    )
    assert script_args.dataset_name and model_args.model_name_or_path
    assert training_args.repro_alpha > 0
