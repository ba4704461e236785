"""The settings read from the source are those of the parser, and the help page lists them all."""

import dataclasses
import importlib
import re
import subprocess
import sys

import pytest
from trl import TrlParser

from repro_trl.training.algorithms import ALGORITHMS
from repro_trl.training.help import OWN_HELP, help_text
from repro_trl.training.settings_source import read_dataclass, read_settings

NAMES = list(ALGORITHMS)


def script_of(name):
    return importlib.import_module(ALGORITHMS[name].script)


@pytest.mark.parametrize("name", NAMES)
def test_names_help_and_defaults_are_those_of_the_dataclasses(name):
    settings = read_settings(ALGORITHMS[name].script)
    fields = [field for cls in script_of(name).ARGUMENTS for field in dataclasses.fields(cls) if field.init]
    assert [setting.name for setting in settings] == [field.name for field in fields]
    assert [setting.help for setting in settings] == [field.metadata.get("help", "") for field in fields]
    for setting, field in zip(settings, fields, strict=True):
        if setting.default in ("None", "True", "False") or re.fullmatch(r"-?[\d.e-]+|'.*'", setting.default or ""):
            assert eval(setting.default) == field.default, setting.name


@pytest.mark.parametrize("name", NAMES)
def test_the_help_page_lists_exactly_what_the_parser_takes(name):
    listed = re.findall(r"^  --(\w+)", help_text(name, width=80), re.MULTILINE)
    own = [re.match(r"--(\w+)", option)[1] for option in OWN_HELP]
    parser = TrlParser(script_of(name).ARGUMENTS)
    taken = {action.dest for action in parser._actions} - {"help"}
    assert len(listed) == len(set(listed))
    assert listed[: len(own)] == own
    assert set(listed[len(own) :]) == taken
    assert {"repro_alpha", "model_name_or_path", "num_generations", "datasets", "reward_funcs"} <= taken


def test_the_help_page_fits_its_width_but_for_long_names():
    lines = help_text("grpo", width=70).splitlines()
    assert all(len(line) <= 70 for line in lines if not line.startswith(("  --", "usage")))
    assert "      Weight of the process advantage: total = outcome + alpha *" in lines
    text = " ".join(" ".join(lines).split())
    assert "(default: '\\n\\n')" in text and "gives `\\boxed{42}`. (default: '\\\\boxed{{{answer}}}')" in text
    assert "default_optim" not in text and "(default: list)" not in text


def test_help_imports_no_model_library():
    program = (
        "import sys; from repro_trl.cli import main; assert main(['reinforce-pp', '--help']) == 0; "
        "assert not {'torch', 'transformers', 'trl', 'accelerate', 'datasets'} & set(sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "--use_group_baseline bool" in result.stdout and "--gamma float" in result.stdout


def test_a_field_that_a_subclass_overrides_has_its_default_there(tmp_path, monkeypatch):
    package = tmp_path / "settings_package"
    package.mkdir()
    (package / "__init__.py").write_text("if TYPE_CHECKING:\n    from .base import Base as Root\n")
    (package / "base.py").write_text(
        "@dataclass\nclass Base:\n"
        "    first: int = field(default=1, metadata={'help': 'a' 'b'})\n"
        "    hidden: int = field(init=False, default=3)\n"
        "    shared: ClassVar[int] = 0\n"
        "    second: list[str] = field(default_factory=list)\n"
    )
    (package / "leaf.py").write_text(
        "from settings_package import Root\n\n@dataclass\nclass Leaf(Root):\n"
        "    third: str | None = None\n    first: int = 2\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    settings = read_dataclass("settings_package.leaf", "Leaf")
    assert [(s.name, s.type, s.default, s.help, s.owner) for s in settings] == [
        ("first", "int", "2", "", "Leaf"),
        ("second", "list[str]", "list", "", "Base"),
        ("third", "str | None", "None", "", "Leaf"),
    ]
