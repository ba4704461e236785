"""Settings by name on the command line and in YAML files."""

from pathlib import Path

import pytest
import yaml

from repro_trl.training.names import (
    check_names,
    check_values,
    is_true,
    nearest,
    option_name,
    option_value,
    read_config,
    split_options,
    with_config,
)

DEFAULT = Path("default.yaml")


def test_options_and_their_values():
    groups = split_options(["--a", "1", "-2.5", "--b", "--c=x", "--d", "- with a space", "-"])
    assert groups == [["--a", "1", "-2.5"], ["--b"], ["--c=x"], ["--d", "- with a space", "-"]]
    assert [option_value(groups, name) for name in "abcde"] == ["1 -2.5", "", "x", "- with a space -", None]
    assert option_value([["--a", "1"], ["--a", "2"]], "a") == "2"
    with pytest.raises(ValueError, match="'100': give settings by name"):
        split_options(["100", "--max_steps"])


@pytest.mark.parametrize("token", ["--max_steps", "--max-steps", "--max_steps=3", "--max-steps=a-b"])
def test_one_setting_in_all_its_spellings(token):
    assert option_name(token) == "max_steps"


def test_the_bundled_model_where_no_model_and_no_config_is_named():
    assert with_config([], DEFAULT) == ["--config", "default.yaml"]
    assert with_config(["--max_steps", "2"], DEFAULT) == ["--max_steps", "2", "--config", "default.yaml"]
    assert with_config(["--config=a.yaml", "--b", "1"], DEFAULT) == ["--b", "1", "--config", "a.yaml"]
    for spelling in (["--model_name_or_path", "m"], ["--model-name-or-path=m"]):
        assert with_config(spelling, DEFAULT) == spelling


@pytest.mark.parametrize(
    "tokens", [["--config"], ["--config", "a", "--config", "b"], ["--config", "--max_steps", "2"]]
)
def test_a_config_without_its_file(tokens):
    with pytest.raises(ValueError, match="config: give one YAML file"):
        with_config(tokens, DEFAULT)


@pytest.mark.parametrize(
    ("text", "message"),
    [(None, "there is no such file"), ("a: [", "not YAML"), ("- a", "must be a mapping"), ("", "must be a mapping")],
)
def test_files_that_hold_no_settings(tmp_path, text, message):
    file = tmp_path / "run.yaml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ValueError, match=rf"config='.*run\.yaml': .*{message}"):
        read_config(str(file))


def test_the_nearest_name_is_named():
    known = ["repro_alpha", "repro_top_k", "learning_rate"]
    check_names(["repro_alpha"], known)
    with pytest.raises(ValueError, match="no setting 'repro_alhpa'; the nearest is 'repro_alpha'"):
        check_names(["repro_alhpa"], known)
    with pytest.raises(ValueError, match=r"run\.yaml: there is no setting 'lr'; the nearest is 'learning_rate'"):
        check_names(["lr"], known, "run.yaml")
    with pytest.raises(ValueError, match="no setting 7; the nearest is"):
        check_names([7], known)


def test_a_name_within_the_given_one_is_nearer_than_one_that_only_looks_like_it():
    known = ["dtype", "torch_compile", "beta", "adam_beta1"]
    assert nearest("torch_dtype", known) == "dtype"
    assert nearest("adam_beta", known) == "adam_beta1"
    assert nearest("torch_compil", known) == "torch_compile"


TYPES = {
    "steps": "int",
    "rate": "float",
    "name": "str | None",
    "folder": "str",
    "switch": "bool",
    "strategy": "SaveStrategy | str",
    "names": "list[str] | None",
    "weights": "list[float] | None",
    "kwargs": "dict[str, Any] | str | None",
    "size": "int | str | None",
    "made": "ParallelismConfig | None",
}


@pytest.mark.parametrize(
    "text",
    [
        "steps: 3",
        "steps: '3'",
        "rate: 3",
        "rate: 1.0e-6",
        "rate: 1e-6",  # text for YAML, and a number for the parser
        "name: null",
        "name: ~",
        "name: a",
        "switch: yes",
        "switch: 'false'",
        "switch: 1",
        "strategy: steps",
        "strategy: 'no'",
        "names: [a, b]",
        "names: a",
        "names: null",
        "weights: [1, 0.5]",
        "kwargs: {a: {b: [1]}}",
        "kwargs: '{\"a\": 1}'",
        "size: 8",
        "size: all",
        "made: {a: 1}",
        "unknown: [1]",
    ],
)
def test_values_that_a_setting_takes(text):
    check_values(yaml.safe_load(text), TYPES, "run.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("steps: null", "steps=None: give an integer"),
        ("steps: 3.5", "steps=3.5: give an integer"),
        ("steps: true", r"steps=True: give an integer \(YAML reads"),
        ("rate: [1.0]", r"rate=\[1.0\]: give a number"),
        ("rate: {a: 1}", "give a number"),
        ("name: 12", r"name=12: give text or null \(put it in quotes\)"),
        ("name: 2026-01-01", r"give text or null \(put it in quotes\)"),
        ("folder: null", "folder=None: give text$"),
        ("folder: [a]", r"folder=\['a'\]: give text$"),
        ("switch: null", "switch=None: give true or false"),
        ("switch: 2", "switch=2: give true or false"),
        ("strategy: no", "strategy=False: give text .YAML reads a bare `no`"),
        ("names: {a: 1}", "give a list or null"),
        ("weights: 1.0", "weights=1.0: give a list or null"),
        ("weights: '1.0'", "weights='1.0': give a list or null"),
        ("kwargs: [1]", "give text or a mapping or null"),
    ],
)
def test_values_of_another_kind(text, message):
    with pytest.raises(ValueError, match=f"^run.yaml: .*{message}"):
        check_values(yaml.safe_load(text), TYPES, "run.yaml")


def test_switches():
    assert [is_true(value, "a") for value in (True, "Yes", 1, None, False, "no", 0)] == [True] * 3 + [False] * 4
    for value in ("perhaps", 2, ["true"]):
        with pytest.raises(ValueError, match="give true or false"):
            is_true(value, "a")
