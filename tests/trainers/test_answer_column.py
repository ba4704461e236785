"""Where the trainers find the ground truth: a column by its name, a function, or none."""

from contextlib import nullcontext

import datasets
import pytest
import torch
from pocket_runs import POCKET, settings, train, weights
from tiny_runs import losses
from trl import GRPOConfig, GRPOTrainer

from repro_trl import ReproGRPOConfig, ReproGRPOTrainer
from repro_trl.demo import task
from repro_trl.rewards import answer_reward


@pytest.fixture(scope="module")
def dataset():
    return task.train_dataset(size=32, seed=3)


def test_column_without_any_answer_is_named_before_training(tmp_path, dataset):
    none = dataset.map(lambda row: {"solution": "  "})
    with pytest.raises(ValueError, match="repro_answer_column='solution': found no answer in the 32 rows"):
        ReproGRPOTrainer(POCKET, answer_reward, ReproGRPOConfig(**settings(tmp_path)), none)


def test_answer_fn_replaces_the_column(tmp_path, dataset):
    renamed = dataset.rename_column("solution", "truth")

    def reward(completions, truth, **kwargs):
        return answer_reward(completions, solution=truth)

    def answer_fn(row):
        return row["truth"].removeprefix("\\boxed{").removesuffix("}")

    by_function = train(
        ReproGRPOTrainer, ReproGRPOConfig(**settings(tmp_path / "a")), renamed, reward=reward, answer_fn=answer_fn
    )
    by_column = train(ReproGRPOTrainer, ReproGRPOConfig(**settings(tmp_path / "b")), dataset)
    assert losses(by_function) == losses(by_column)


def test_missing_answer_column_is_named_before_training(tmp_path, dataset):
    with pytest.raises(ValueError, match="repro_answer_column='truth'"):
        ReproGRPOTrainer(
            POCKET, answer_reward, ReproGRPOConfig(**settings(tmp_path), repro_answer_column="truth"), dataset
        )


def test_dataset_without_prompts_is_named_before_training(tmp_path, dataset):
    with pytest.raises(ValueError, match="no column 'prompt'"):
        ReproGRPOTrainer(
            POCKET,
            answer_reward,
            ReproGRPOConfig(**settings(tmp_path)),
            dataset.rename_column("prompt", "question"),
        )


@pytest.mark.parametrize("column", ["answer", "ground_truth", "Solution"])
def test_column_of_a_usual_name_is_found_and_said(tmp_path, dataset, column, capsys):
    config = ReproGRPOConfig(**settings(tmp_path, max_steps=1))
    trainer = train(
        ReproGRPOTrainer,
        config,
        dataset.rename_column("solution", column),
        reward=lambda completions, **kwargs: [0.0] * len(completions),
    )
    assert capsys.readouterr().out.count(f"Reading the ground truth from column '{column}', for example") == 1
    assert trainer.state.log_history[0]["repro/no_answer_ratio"] == 0


@pytest.mark.parametrize("column", ["gt", "truth"])
def test_column_of_another_name_is_named_before_training(tmp_path, dataset, column):
    with pytest.raises(ValueError, match=rf"repro_answer_column=None.*'{column}'"):
        ReproGRPOTrainer(
            POCKET, answer_reward, ReproGRPOConfig(**settings(tmp_path)), dataset.rename_column("solution", column)
        )


@pytest.mark.parametrize("level", ["token", "sequence"])
def test_data_without_any_ground_truth_train_plain_grpo(tmp_path, dataset, caplog, level):
    plain, repro = (
        train(
            trainer_class,
            config_class(**settings(tmp_path / trainer_class.__name__), importance_sampling_level=level),
            dataset.select_columns(["prompt"]),
            reward=lambda completions, **kwargs: [float(len(completion)) for completion in completions],
        )
        for trainer_class, config_class in ((GRPOTrainer, GRPOConfig), (ReproGRPOTrainer, ReproGRPOConfig))
    )
    assert losses(plain) == losses(repro)
    assert torch.equal(weights(plain), weights(repro))
    assert caplog.text.count("The dataset has no column with a ground truth") == 1


@pytest.mark.parametrize(("column", "outcome"), [("truth", "fails"), ("other", "plain"), ("answer", "scored")])
def test_streamed_rows_of_unknown_columns(tmp_path, dataset, column, outcome):
    def rows():
        for row in dataset:
            yield {"prompt": row["prompt"], column: row["solution"]}

    stream = datasets.IterableDataset.from_generator(rows)
    assert stream.column_names is None
    with pytest.raises(ValueError, match="repro_answer_column=None") if outcome == "fails" else nullcontext():
        trainer = train(
            ReproGRPOTrainer,
            ReproGRPOConfig(**settings(tmp_path)),
            stream,
            reward=lambda completions, **kwargs: [0.0] * len(completions),
        )
        assert ("repro/no_answer_ratio" in trainer.state.log_history[0]) == (outcome == "scored")


def test_answer_fn_sees_columns_that_would_be_removed(tmp_path, dataset):
    renamed = dataset.rename_column("solution", "gt")
    trainer = train(
        ReproGRPOTrainer,
        ReproGRPOConfig(**settings(tmp_path, max_steps=1, remove_unused_columns=True)),
        renamed,
        reward=lambda completions, **kwargs: [0.0] * len(completions),
        answer_fn=lambda row: row["gt"],
    )
    assert trainer.state.log_history[0]["repro/no_answer_ratio"] == 0
