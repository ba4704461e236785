"""
Names of settings on the command line and in YAML files, and the errors for a name that nobody knows and for a value
in a file of a kind that the setting does not take.
"""

import ast
import difflib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

OWN_NAMES = ("accelerate_config", "compare_plain", "html")
"""Settings of the training commands themselves, which neither the script nor `accelerate launch` takes."""

FALSE = ("false", "no", "0", "")


def split_options(tokens: Sequence[str]) -> list[list[str]]:
    """
    Arguments in groups, each option with the values that follow it; a `ValueError` for a value before any option.
    """
    groups: list[list[str]] = []
    for token in tokens:
        # As argparse has it: what holds a space, or is a number, is a value.
        if token.startswith("-") and len(token) > 1 and " " not in token.partition("=")[0] and not _is_number(token):
            groups.append([token])
        elif groups:
            groups[-1].append(token)
        else:
            raise ValueError(f"{token!r}: give settings by name, such as `--max_steps 100`")
    return groups


def option_name(token: str) -> str:
    """The setting that an option names: `max_steps` for `--max_steps`, `--max-steps` and `--max_steps=3`."""
    return token.lstrip("-").partition("=")[0].replace("-", "_")


def option_value(groups: Iterable[Sequence[str]], name: str) -> str | None:
    """The value of the last option of that name; `""` where it stands without one; `None` where it is not given."""
    value = None
    for option, *values in groups:
        if option_name(option) == name:
            value = option.partition("=")[2] if "=" in option else " ".join(values)
    return value


def read_config(path: str) -> dict[str, Any]:
    """The settings of a YAML file; a `ValueError` where there is no such file, or it is not a YAML mapping."""
    if not Path(path).is_file():
        raise ValueError(f"config={path!r}: there is no such file")
    try:
        config = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"config={path!r}: the file is not YAML ({' '.join(str(error).split())})") from error
    if not isinstance(config, dict):
        raise ValueError(f"config={path!r}: must be a mapping, one `setting: value` per line")
    return config


def with_config(tokens: Sequence[str], default_config: Path) -> list[str]:
    """
    The arguments with `--config FILE` in two tokens, as TRL's parser reads it; with the config of the bundled model
    added where they name no model and no config. A `ValueError` where `--config` stands without a file.
    """
    groups = split_options(tokens)
    given = [group for group in groups if option_name(group[0]) == "config"]
    others = [token for group in groups if option_name(group[0]) != "config" for token in group]
    path = option_value(given, "config")
    if path == "" or len(given) > 1:
        raise ValueError("config: give one YAML file, as in `--config run.yaml`")
    if path is None and option_value(groups, "model_name_or_path") is None:
        path = str(default_config)
    return others if path is None else [*others, "--config", path]


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name that looks most like `name`; else one that `name` contains, as `torch_dtype` contains `dtype`."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.8)
    contained = sorted((other for other in known if f"_{other}_" in f"_{name}_"), key=len, reverse=True)
    return (close or contained or difflib.get_close_matches(name, known, n=1, cutoff=0))[0]


def check_names(given: Iterable[Any], known: Mapping[str, Any] | Iterable[str], source: str | None = None) -> None:
    """Raise a `ValueError` for the first name given that is not known, with the nearest one that is."""
    known = set(known)
    for name in given:
        if name not in known:
            where = f"{source}: " if source else ""
            raise ValueError(f"{where}there is no setting {name!r}; the nearest is {nearest(str(name), known)!r}")


def is_true(value: Any, name: str) -> bool:
    """
    What a switch is set to, on the command line or in a file.

    Raises:
        ValueError: neither true nor false.
    """
    if str(value).lower() in ("true", "yes", "1"):
        return True
    if value is None or str(value).lower() in FALSE:
        return False
    raise ValueError(f"{name}={value!r}: give true or false")


def check_values(config: Mapping[str, Any], types: Mapping[str, str], source: str | None) -> None:
    """
    Compare the values of a YAML file with the types of the settings. Texts are the parser's: it converts them.

    Args:
        config: the file.
        types: annotations of settings, as written. Other settings are left out.
        source: path of the file.

    Raises:
        ValueError: the first value of a kind that its setting does not take.
    """
    for name, value in config.items():
        if name in types and not _takes(types[name], value):
            hint = ""
            if isinstance(value, bool):
                hint = " (YAML reads a bare `no` or `off` as false, and `yes` or `on` as true: put text in quotes)"
            elif "str" in _alternatives(types[name]) and value is not None and not isinstance(value, list | dict):
                hint = " (put it in quotes)"
            raise ValueError(f"{source}: {name}={value!r}: give {_expected(types[name])}{hint}")


_EXPECTED = {
    "bool": "true or false",
    "int": "an integer",
    "float": "a number",
    "str": "text",
    "list": "a list",
    "dict": "a mapping",
    "None": "null",
}


def _takes(kind: str, value: Any) -> bool:
    names = _alternatives(kind)
    # An object that no file can hold: its class says what it makes of the value.
    if not (names - {"None"}) & _EXPECTED.keys():
        return True
    if value is None:
        return "None" in names
    if isinstance(value, bool):
        return bool(names & {"bool", "Literal"})
    if isinstance(value, int):
        return bool(names & {"int", "float"}) or ("bool" in names and value in (0, 1))
    if isinstance(value, str):
        # One text stands for a list of one, as in `lora_target_modules: all-linear`.
        return names - {"list", "None"} != set() or "list[str]" in kind
    return type(value).__name__ in names


def _alternatives(kind: str) -> set[str]:
    """The types that a union holds, without their parameters: `list` and `None` for `list[str] | None`."""

    def split(node: ast.expr) -> set[str]:
        if isinstance(node, ast.BinOp):
            return split(node.left) | split(node.right)
        return {ast.unparse(node.value if isinstance(node, ast.Subscript) else node)}

    return split(ast.parse(kind, mode="eval").body)


def _expected(kind: str) -> str:
    names = _alternatives(kind)
    return " or ".join(text for name, text in _EXPECTED.items() if name in names)


def _is_number(token: str) -> bool:
    try:
        float(token)
    except ValueError:
        return False
    return True
