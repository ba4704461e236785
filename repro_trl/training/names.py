"""Names of settings on the command line and in YAML files, and the error for one that nobody knows."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

OWN_NAMES = ("accelerate_config", "compare_plain", "html")
"""Settings of the training commands themselves, which neither the script nor `accelerate launch` takes."""


def split_options(tokens: Sequence[str]) -> list[list[str]]:
    """
    Command-line arguments in groups: each option with the values that follow it.

    Raises:
        ValueError: a value stands where no option takes it.
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
    """
    The settings of a YAML file.

    Raises:
        ValueError: there is no such file, or it is not a YAML mapping.
    """
    if not Path(path).is_file():
        raise ValueError(f"config={path!r}: there is no such file")
    try:
        config = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"config={path!r}: the file is not YAML ({error})") from error
    if not isinstance(config, dict):
        raise ValueError(f"config={path!r}: must be a mapping, one `setting: value` per line")
    return config


def with_config(tokens: Sequence[str], default_config: Path) -> list[str]:
    """
    The arguments with `--config FILE` in two tokens, as TRL's parser reads it; with the config of the bundled model
    added where they name no model and no config.

    Raises:
        ValueError: `--config` stands without a file.
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
    """The known name that looks most like `name`."""
    return difflib.get_close_matches(name, sorted(known), n=1, cutoff=0)[0]


def check_names(given: Iterable[Any], known: Mapping[str, Any] | Iterable[str], source: str | None = None) -> None:
    """
    Raises:
        ValueError: the first name given that is not known, with the nearest one that is.
    """
    known = set(known)
    for name in given:
        if name not in known:
            where = f"{source}: " if source else ""
            raise ValueError(f"{where}there is no setting {name!r}; the nearest is {nearest(str(name), known)!r}")


def _is_number(token: str) -> bool:
    try:
        float(token)
    except ValueError:
        return False
    return True
