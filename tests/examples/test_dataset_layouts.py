"""A first step on the layouts of public datasets: through the example script, and with the trainer itself."""

import json

import grpo_repro
import pytest
from dataset_layouts import LAYOUTS
from datasets import Dataset
from scripts import run_script
from tiny_policy import save_tiny_policy
from tiny_runs import settings, token_reward

from repro_trl import ReproGRPOConfig, ReproGRPOTrainer
from repro_trl.columns import read_column

SHORT = ["--use_cpu", "true", "--disable_tqdm", "true", "--save_strategy", "no", "--report_to", "none"]


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    return save_tiny_policy(tmp_path_factory.mktemp("policy"))


def run(*arguments):
    run_script("grpo", grpo_repro, *arguments, *SHORT)


def run_on(layout, policy, folder, **options):
    (file := folder / "rows.json").write_text(json.dumps(layout.rows))
    run(
        *("--model_name_or_path", policy, "--dataset_name", file, "--output_dir", folder / "out", "--bf16", "false"),
        *("--max_steps", 1, "--per_device_train_batch_size", 4, "--num_generations", 2, "--num_eval_problems", 0),
        *("--max_completion_length", 16, "--gradient_checkpointing", "false"),
        *(part for name, value in options.items() for part in (f"--{name}", value)),
    )


@pytest.mark.parametrize("name", LAYOUTS)
def test_first_step_of_the_example_script(tmp_path, policy, capsys, name):
    layout = LAYOUTS[name]
    run_on(layout, policy, tmp_path, **layout.settings)
    (line,) = (
        line for line in capsys.readouterr().out.splitlines() if line.startswith("Reading the ground truth from")
    )
    assert f"column {layout.column!r}" in line and f"for example {layout.answers[0]!r}." in line


@pytest.mark.parametrize("name", LAYOUTS)
def test_first_step_of_the_trainer(tmp_path, policy, name):
    layout = LAYOUTS[name]
    dataset = Dataset.from_list(layout.rows)
    config = ReproGRPOConfig(
        **settings(tmp_path, max_steps=1),
        repro_answer_column=layout.settings.get("repro_answer_column"),
    )
    if layout.problem != "prompt":
        with pytest.raises(ValueError, match=r"no column 'prompt'.*rename_column"):
            ReproGRPOTrainer(policy, token_reward, config, dataset)
        dataset = dataset.map(lambda row: {"prompt": read_column(row, layout.problem)})
    trainer = ReproGRPOTrainer(policy, token_reward, config, dataset)
    assert [trainer._ground_truth.answer_of(row) for row in dataset] == layout.answers
    trainer.train()
    assert trainer.state.log_history[0]["repro/no_answer_ratio"] <= 0.5


def test_layout_whose_columns_must_be_named_says_which(tmp_path, policy):
    layout = LAYOUTS["ORZ"]
    with pytest.raises(ValueError, match=r"prompt_column=None.*'0\.value'"):
        run_on(layout, policy, tmp_path)
    with pytest.raises(ValueError, match=r"repro_answer_column=None.*'1\.ground_truth\.value' looks like one"):
        run_on(layout, policy, tmp_path, prompt_column="0.value")


def test_rows_without_any_answer_train_on_the_outcome_alone(tmp_path, policy, caplog):
    (file := tmp_path / "rows.jsonl").write_text("".join(json.dumps({"problem": f"{n} + 1"}) + "\n" for n in range(8)))
    run(
        *("--model_name_or_path", policy, "--dataset_name", file, "--output_dir", tmp_path / "out", "--bf16", "false"),
        *("--max_steps", 1, "--per_device_train_batch_size", 4, "--num_generations", 2, "--num_eval_problems", 2),
        *("--per_device_eval_batch_size", 4, "--max_completion_length", 16, "--gradient_checkpointing", "false"),
    )
    assert "no column with a ground truth" in caplog.text
    assert (tmp_path / "out" / "before_after.json").is_file()
