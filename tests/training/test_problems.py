"""From files, folders and splits as people have them to prompts, answers and held-out problems."""

import bz2
import gzip
import json
import lzma
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pyarrow.ipc
import pytest
from datasets import Dataset, DatasetDict
from tiny_tokenizers import byte_level_tokenizer

from repro_trl.row_files import COMPRESSIONS, SUFFIXES, is_row_file, read_rows
from repro_trl.training.arguments import ReproScriptArguments
from repro_trl.training.files import load_splits
from repro_trl.training.problems import load_problems


@pytest.fixture(scope="module")
def tokenizer():
    return byte_level_tokenizer()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


def load(tokenizer, name, answer_column=None, count=2, **options):
    script_args = ReproScriptArguments(dataset_name=str(name), num_eval_problems=count, **options)
    training_args = SimpleNamespace(repro_answer_column=answer_column, seed=0)
    train, held_out = load_problems(script_args, training_args, tokenizer)
    return train, held_out, training_args.repro_answer_column


def write(path, rows):
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def rows(count, first=0):
    return [{"problem": f"{i} + 1", "answer": str(i + 1)} for i in range(first, first + count)]


def problems(dataset):
    return [message[0]["content"].partition("\n")[0] for message in dataset["prompt"]]


# ------------------------------------------------------------------------------------------------------------ files


COMPRESS = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}


def write_compressed(path):
    with COMPRESS[path.suffix](path, "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows(8))


def write_zip(path):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a.jsonl", "".join(json.dumps(row) + "\n" for row in rows(8)))


def write_arrow(path):
    table = Dataset.from_list(rows(8)).data.table
    with pyarrow.ipc.new_stream(path, table.schema) as file:
        file.write_table(table)


WRITERS = {
    "a.jsonl": lambda path: write(path, rows(8)),
    "A.JSONL": lambda path: write(path, rows(8)),
    "a.json": lambda path: path.write_text(json.dumps(rows(8))),
    "a.ndjson": lambda path: write(path, rows(8)),
    "a.jsonl.gz": write_compressed,
    "a.jsonl.bz2": write_compressed,
    "a.jsonl.xz": write_compressed,
    "a.jsonl.zip": write_zip,
    "a.arrow": write_arrow,
    "a.csv": lambda path: Dataset.from_list(rows(8)).to_csv(path),
    "a.tsv": lambda path: Dataset.from_list(rows(8)).to_csv(path, sep="\t"),
    "a.parquet": lambda path: Dataset.from_list(rows(8)).to_parquet(path),
    "saved": lambda path: Dataset.from_list(rows(8)).save_to_disk(path),
    "saved splits": lambda path: DatasetDict({"train": Dataset.from_list(rows(8))}).save_to_disk(path),
    "folder": lambda path: write(path / "train.jsonl", rows(8)),
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_kind_of_file_and_folder_is_read(tmp_path, tokenizer, name):
    WRITERS[name](tmp_path / name)
    train, held_out, answer_column = load(tokenizer, tmp_path / name)
    assert (len(train), len(held_out), answer_column) == (6, 2, "answer")
    assert sorted(problems(train) + problems(held_out)) == [row["problem"] for row in rows(8)]
    assert {str(answer) for answer in (*train["answer"], *held_out["answer"])} == {row["answer"] for row in rows(8)}


def test_training_reads_every_format_and_compression_that_the_other_commands_read(tmp_path):
    assert {Path(name).suffix.lower() for name in WRITERS} > {*SUFFIXES, *COMPRESSIONS}
    for name in [name for name in WRITERS if is_row_file(Path(name))]:
        WRITERS[name](tmp_path / name)
        read = [{column: str(value) for column, value in row.record.items()} for row in read_rows(tmp_path / name)]
        assert read == rows(8), name


def test_several_files_are_read_by_a_pattern(tmp_path, tokenizer):
    for part in range(2):
        write(tmp_path / f"part-{part}.jsonl", rows(4, first=4 * part))
    train, held_out, _ = load(tokenizer, tmp_path / "part-*.jsonl")
    assert (len(train), len(held_out)) == (6, 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dataset_config": "main"}, "dataset_config='main'"),
        ({"count": -1}, "num_eval_problems=-1"),
        ({"prompt_column": ["problem"]}, r"prompt_column=\['problem'\]"),
        ({"prompt_column": "None"}, "prompt_column='None'"),
    ],
)
def test_bad_settings_are_named(tmp_path, tokenizer, options, message):
    with pytest.raises(ValueError, match=message):
        load(tokenizer, write(tmp_path / "a.jsonl", rows(4)), **options)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("nowhere.jsonl", None, "no such file"),
        ("a.jsonl", "", "cannot be read"),
        ("a.jsonl", '{"problem": ', "cannot be read"),
        ("a.docx", "text", r"ends in none of \.jsonl"),
        ("a.parquet.gz", "text", r"ends in none of \.jsonl"),
    ],
)
def test_unreadable_file_is_named(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=rf"dataset_name='.*{name}'.*{message}"):
        load_splits(str(tmp_path / name))


# ----------------------------------------------------------------------------------------------------------- splits


def folder(path, **splits):
    for name, content in splits.items():
        write(path / f"{name}.jsonl", content)
    return path


def test_file_trained_on_as_its_test_split_holds_problems_out(tmp_path, tokenizer):
    train, held_out, _ = load(tokenizer, write(tmp_path / "a.jsonl", rows(8)), dataset_train_split="test")
    assert len(held_out) == 2 and not set(problems(train)) & set(problems(held_out))


def test_only_split_of_a_folder_is_shared_between_training_and_evaluation(tmp_path, tokenizer):
    train, held_out, _ = load(tokenizer, folder(tmp_path / "d", test=rows(8)), dataset_train_split="test")
    assert len(train) == 6 and len(held_out) == 2 and not set(problems(train)) & set(problems(held_out))


@pytest.mark.parametrize("split", ["train", "test"])
def test_one_split_named_for_both_is_shared(tmp_path, tokenizer, split):
    data = folder(tmp_path / "d", train=rows(8), test=rows(8, first=20))
    train, held_out, _ = load(tokenizer, data, dataset_train_split=split, dataset_test_split=split)
    assert len(train) == 6 and len(held_out) == 2 and not set(problems(train)) & set(problems(held_out))


def test_repeated_problems_are_held_out_with_all_their_repetitions(tmp_path, tokenizer):
    train, held_out, _ = load(tokenizer, write(tmp_path / "a.jsonl", rows(6) * 5))
    assert len(set(problems(held_out))) == len(held_out) == 2
    assert len(train) == 20 and not set(problems(train)) & set(problems(held_out))


def test_training_problems_that_are_in_the_test_split_are_left_out(tmp_path, tokenizer, capsys):
    train, held_out, _ = load(tokenizer, folder(tmp_path / "d", train=rows(8), test=rows(3, first=6)), count=3)
    assert problems(train) == [f"{i} + 1" for i in range(6)] and len(held_out) == 3
    assert "2 training problems are also held out" in capsys.readouterr().out


def test_test_split_that_is_the_training_split_is_refused(tmp_path, tokenizer):
    with pytest.raises(ValueError, match=r"dataset_test_split='test' contains every problem of 'train'"):
        load(tokenizer, folder(tmp_path / "d", train=rows(2), test=rows(2)))


def test_missing_splits_are_answered_with_those_there_are(tmp_path, tokenizer):
    skywork = folder(tmp_path / "d", validation=rows(8), test=rows(4))
    with pytest.raises(ValueError, match=r"dataset_train_split='train': the dataset has the splits 'vali.*', 'test'"):
        load(tokenizer, skywork)
    with pytest.raises(ValueError, match=r"dataset_test_split='dev': the dataset has the splits"):
        load(tokenizer, skywork, dataset_train_split="validation", dataset_test_split="dev")
    with pytest.raises(ValueError, match=r"dataset_train_split='train': the dataset has the split 'test'. Name it"):
        load(tokenizer, folder(tmp_path / "e", test=rows(4)))
    with pytest.raises(ValueError, match=r"dataset_streaming=True"):
        load(tokenizer, skywork, dataset_streaming=True)


@pytest.mark.parametrize("repetitions", [1, 4])
def test_one_problem_is_trained_on_and_none_held_out(tmp_path, tokenizer, capsys, repetitions):
    train, held_out, _ = load(tokenizer, write(tmp_path / "a.jsonl", rows(1) * repetitions))
    assert len(train) == repetitions and held_out is None
    assert "one problem, so none is held out" in capsys.readouterr().out


# -------------------------------------------------------------------------------------------------------- problems

USER = [{"role": "user", "content": "1 + 1"}]


@pytest.mark.parametrize("value", [USER, USER[0], json.dumps(USER), str(USER), json.dumps(USER[0])])
def test_messages_in_every_form_are_messages(tmp_path, tokenizer, value):
    train, _, _ = load(tokenizer, write(tmp_path / "a.jsonl", [{"prompt": value, "answer": "2"}] * 2), count=0)
    assert train["prompt"][0] == USER


@pytest.mark.parametrize("value", ["[1, 2] has how many entries?", "[1, 2]", "{1, 2}", '{"a": 1}'])
def test_text_in_brackets_is_text(tmp_path, tokenizer, value):
    train, _, _ = load(tokenizer, write(tmp_path / "a.jsonl", [{"problem": value, "answer": "2"}] * 2), count=0)
    assert train["prompt"][0][0]["content"].startswith(f"{value}\n\nPlease reason")


def test_rows_without_a_problem_are_left_out_and_counted(tmp_path, tokenizer, capsys):
    blank = [{"problem": value, "answer": "2"} for value in (None, "", "  ")]
    train, _, _ = load(tokenizer, write(tmp_path / "a.jsonl", blank + rows(3)), count=0)
    assert problems(train) == ["0 + 1", "1 + 1", "2 + 1"]
    assert "3 rows without a problem are skipped" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"prompt_column='problem' has no problem in any row"):
        load(tokenizer, write(tmp_path / "b.jsonl", blank))


def test_dict_that_is_no_message_is_answered_with_its_fields(tmp_path, tokenizer):
    file = write(tmp_path / "a.jsonl", [{"problem": {"text": "1 + 1", "id": 3}, "answer": "2"}] * 2)
    with pytest.raises(ValueError, match=r"prompt_column='problem'.*'problem\.text', 'problem\.id'"):
        load(tokenizer, file)
    train, _, _ = load(tokenizer, file, count=0, prompt_column="problem.text")
    assert problems(train) == ["1 + 1"] * 2


def test_nested_ground_truth_gets_a_column_of_its_dotted_name(tmp_path, tokenizer):
    verl = [{"prompt": USER, "reward_model": {"ground_truth": "2", "style": "rule"}}] * 2
    train, _, column = load(tokenizer, write(tmp_path / "a.jsonl", verl), count=0)
    assert column == "reward_model.ground_truth" and list(train[column]) == ["2", "2"]


def test_held_out_rows_without_the_column_have_no_answer(tmp_path, tokenizer):
    bare = [{"problem": "9 + 9"}] * 2
    _, held_out, column = load(tokenizer, folder(tmp_path / "d", train=rows(4), test=bare))
    assert column == "answer" and list(held_out[column]) == [None, None]


def test_column_that_was_named_is_kept(tmp_path, tokenizer):
    both = [{"problem": f"{i}", "solution": rf"\boxed{{{i}}}", "answer": str(i)} for i in range(4)]
    assert load(tokenizer, write(tmp_path / "a.jsonl", both))[2] == "answer"
    assert load(tokenizer, tmp_path / "a.jsonl", answer_column="solution")[2] == "solution"
    assert load(tokenizer, write(tmp_path / "b.jsonl", [{"problem": "1"}] * 2), count=0)[2] is None


@pytest.mark.parametrize("name", ["pocket", None])
def test_bundled_task_has_its_ground_truth(tokenizer, name):
    script_args = ReproScriptArguments(dataset_name=name, num_eval_problems=2)
    training_args = SimpleNamespace(repro_answer_column=None, seed=0)
    train, held_out = load_problems(script_args, training_args, tokenizer)
    assert training_args.repro_answer_column == "solution" in train.column_names and len(held_out) == 2
