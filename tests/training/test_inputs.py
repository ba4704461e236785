"""What a trainer is made of: rewards by name and their weights, the checkpoint, and settings that cannot work."""

import dataclasses
from types import SimpleNamespace

import pytest
from trl import DatasetMixtureConfig, ModelConfig
from trl.rewards import accuracy_reward, think_format_reward

from repro_trl.columns import PROBLEM_COLUMNS
from repro_trl.training.arguments import ReproScriptArguments
from repro_trl.training.inputs import find_checkpoint, load_inputs
from repro_trl.training.problems import load_problems
from repro_trl.training.reward_funcs import load_reward_funcs, reward_weights


def test_functions_by_name_and_by_import_path(tmp_path, monkeypatch):
    (tmp_path / "my_brevity.py").write_text("def brevity(completions, **kwargs): return [0.0] * len(completions)\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    names = ["think_format_reward", "my_brevity.brevity", "accuracy_reward", "get_soft_overlong_punishment"]
    model, think_format, own, verdict, punishment = load_reward_funcs(names, "a-reward-model")
    assert model == "a-reward-model" and think_format is think_format_reward and verdict is accuracy_reward
    assert own(completions=["a"]) == [0.0]
    assert punishment(completion_ids=[[0] * 1280]) == [-1.0]
    assert load_reward_funcs(None, None) == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("think_format", r"the nearest is 'think_format_reward'\)\. For your own function"),
        ("nowhere.reward", "'nowhere.reward' cannot be imported"),
        ("math.nothing", "'math.nothing' cannot be imported"),
        ("math.pi", "'math.pi' is not a function"),
    ],
)
def test_functions_that_are_not_there(name, message):
    with pytest.raises(ValueError, match=f"reward_funcs: .*{message}"):
        load_reward_funcs([name], None)


@pytest.mark.parametrize(
    ("given", "names", "others", "weights"),
    [
        (None, None, 0, None),
        ([2.0], None, 0, [2.0]),
        (None, ["think_format_reward"], 1, [1.0, 1.0]),
        ([0.5], ["think_format_reward"], 1, [1.0, 0.5]),
        ([0.0, 0.5], ["think_format_reward"], 1, [0.0, 0.5]),
        (None, ["accuracy_reward", "think_format_reward"], 2, [0.0, 1.0, 1.0]),
        ([1.0, 0.1], ["reasoning_accuracy_reward", "a.b"], 2, [0.0, 1.0, 0.1]),
        (None, None, 1, [1.0, 1.0]),
    ],
)
def test_weights(given, names, others, weights):
    assert reward_weights(given, names, others) == weights


@pytest.mark.parametrize(("given", "others"), [([1.0], 2), ([1.0] * 4, 2), ([], 2), ([1.0, 1.0], 0)])
def test_another_number_of_weights(given, others):
    with pytest.raises(ValueError, match=rf"reward_weights=.*give {others + 1} weights"):
        reward_weights(given, ["a.b"] * others, others)


def test_the_checkpoint_to_resume_from(tmp_path):
    def checkpoint(value):
        return find_checkpoint(SimpleNamespace(resume_from_checkpoint=value, output_dir=str(tmp_path / "out")))

    assert [checkpoint(value) for value in (None, False, "false", "")] == [None] * 4
    for value in (True, "true"):
        with pytest.raises(ValueError, match=r"resume_from_checkpoint=.*there is no checkpoint in"):
            checkpoint(value)
    for step in (2, 10):
        (tmp_path / "out" / f"checkpoint-{step}").mkdir(parents=True)
    assert checkpoint(True) == checkpoint("True") == str(tmp_path / "out" / "checkpoint-10")
    assert checkpoint(str(tmp_path)) == str(tmp_path)
    with pytest.raises(ValueError, match="resume_from_checkpoint='nowhere': there is no such folder"):
        checkpoint("nowhere")


@pytest.mark.parametrize(
    ("script", "model", "mixture", "message"),
    [
        ({"dataset_name": "pocket"}, None, {}, "model_name_or_path=None"),
        ({}, "my/model", {}, "dataset_name=None"),
        ({"dataset_name": "a.jsonl"}, "pocket", {}, r"model_name_or_path='pocket' with other problems \(a.jsonl\)"),
        ({}, "pocket", {"datasets": [{"path": "a"}]}, r"with other problems \(datasets\)"),
        ({}, "my/model", {"datasets": [{"path": "a"}], "streaming": True}, "streaming=True"),
    ],
)
def test_settings_that_cannot_work(script, model, mixture, message):
    with pytest.raises(ValueError, match=message):
        load_inputs(
            ReproScriptArguments(**script),
            None,
            ModelConfig(model_name_or_path=model),
            DatasetMixtureConfig(**mixture),
        )


def test_the_help_names_the_columns_that_are_looked_for():
    (field,) = (field for field in dataclasses.fields(ReproScriptArguments) if field.name == "prompt_column")
    assert ", ".join(PROBLEM_COLUMNS) in field.metadata["help"]


def test_the_answers_of_the_bundled_problems_are_found():
    training_args = SimpleNamespace(repro_answer_column=None)
    script_args = ReproScriptArguments(dataset_name="pocket", num_eval_problems=2)
    train, held_out = load_problems(script_args, training_args, tokenizer=None)
    assert training_args.repro_answer_column == "solution"
    assert "solution" in train.column_names and len(held_out) == 2
