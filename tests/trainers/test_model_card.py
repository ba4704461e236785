"""The card that goes to the Hub with a model."""

import importlib.util

import pytest
from huggingface_hub import ModelCard, metadata_load
from tiny_policy import save_tiny_policy
from tiny_runs import settings, token_reward

from repro_trl import ReproGRPOConfig, ReproGRPOTrainer, __version__
from repro_trl.demo import task
from repro_trl.method.answer_forms import AnswerForm


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    return save_tiny_policy(tmp_path_factory.mktemp("policy"))


def trained(policy, folder, **overrides):
    args = ReproGRPOConfig(**settings(folder, **overrides))
    trainer = ReproGRPOTrainer(policy, token_reward, args, task.train_dataset(size=8, seed=3))
    trainer.train()
    return trainer


@pytest.fixture(scope="module")
def folder(policy, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    trainer = trained(policy, folder, repro_answer_prefix="a|b\n")
    trainer.create_model_card(model_name="tiny", dataset_name="org/data", tags="extra")
    return folder


def test_metadata_can_be_read_back(folder):
    data = metadata_load(folder / "README.md")
    assert data["library_name"] == "transformers"
    assert data["datasets"] == "org/data"
    assert {"repro", "trl", "grpo", "extra"} <= set(data["tags"])
    assert None not in data.values()
    card = ModelCard.load(folder / "README.md")
    assert card.data.to_dict() == data


def test_method_paper_settings_and_metrics_are_there(folder):
    text = (folder / "README.md").read_text()
    assert "https://huggingface.co/papers/2512.01925" in text and "@article{liu2025rectifying" in text
    assert f"repro_trl](https://pypi.org/project/repro-trl/) {__version__}" in text
    assert "outcome advantage of GRPO" in text
    assert "| `repro_alpha` | `0.5` |" in text and "| `repro_answer_prefix` | `'a\\|b\\n'` |" in text
    assert "`repro/objective_gain` | " in text and "`reward` | " in text
    assert text.index("## RePro") < text.index("### Framework versions") < text.index("## Citations")
    assert "None" not in text.split("## Citations")[0].replace("`None`", "").replace('model="None"', "")


def test_no_prompt_or_completion_reaches_the_card(folder):
    text = (folder / "README.md").read_text()
    for row in task.train_dataset(size=8, seed=3):
        assert row["prompt"][-1]["content"] not in text


@pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="needs matplotlib")
def test_the_picture_lies_beside_the_card(folder):
    assert "(repro_objective.png)" in (folder / "README.md").read_text()
    assert (folder / "repro_objective.png").read_bytes().startswith(b"\x89PNG")


def test_a_card_written_twice_says_everything_once(policy, tmp_path):
    trainer = trained(policy, tmp_path, max_steps=1)
    trainer.create_model_card(model_name="tiny")
    first = (tmp_path / "README.md").read_text()
    trainer.create_model_card(model_name="tiny")
    assert sorted(first.splitlines()) == sorted((tmp_path / "README.md").read_text().splitlines())
    assert first.count("## RePro") == 1


def test_plain_training_has_a_card_too(policy, tmp_path):
    trainer = trained(policy, tmp_path, max_steps=1, repro_alpha=0)
    trainer.create_model_card(model_name="tiny")
    text = (tmp_path / "README.md").read_text()
    assert "| `repro_alpha` | `0` |" in text and "repro_objective.png" not in text


def test_metrics_without_a_number_are_left_out(policy, tmp_path):
    trainer = trained(policy, tmp_path, max_steps=1)
    trainer.state.log_history = [{"accuracy": None, "reward": float("nan")}, {"accuracy": 0.25}, {"accuracy": 0.5}]
    trainer.create_model_card(model_name="tiny")
    text = (tmp_path / "README.md").read_text()
    assert "| accuracy: `accuracy` | 0.25 | 0.5 |" in text
    assert "`reward` |" not in text


def test_the_answer_form_that_was_found_is_said(policy, tmp_path):
    trainer = trained(policy, tmp_path, max_steps=1, repro_answer_prefix="auto")
    trainer.create_model_card(model_name="tiny")
    assert "| `repro_answer_prefix` | `'auto'`, which found nothing |" in (tmp_path / "README.md").read_text()
    trainer._prefix_search.chosen = AnswerForm("</think>", r"\boxed{{{answer}}}")
    trainer.create_model_card(model_name="tiny")
    assert "`'auto'`, which found `'</think>' + \\boxed{…}` |" in (tmp_path / "README.md").read_text()
