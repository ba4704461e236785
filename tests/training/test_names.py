"""Settings by name on the command line and in YAML files."""

from pathlib import Path

import pytest

from repro_trl.training.names import check_names, option_name, option_value, read_config, split_options, with_config

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
