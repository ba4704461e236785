"""`repro-trl grpo`, `ppo` and `reinforce-pp`: train from the command line, as `trl grpo` does."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..command_line import DONE
from ..output_files import atomic_path, check_output
from ..thinking import BACKTRACK_PHRASES
from .algorithms import ALGORITHMS
from .launch import launch, launcher_options, launcher_tokens, resolve_accelerate_config
from .names import (
    FALSE,
    OWN_NAMES,
    check_names,
    check_values,
    is_true,
    option_name,
    option_value,
    read_config,
    split_options,
    with_config,
)
from .settings_source import read_dataclass, read_settings, types_of
from .tables import BEFORE_AFTER_FILE, RUN_FILE, compare_runs


@dataclass(frozen=True)
class Request:
    """
    What a command line and its YAML file ask for.

    Attributes:
        script: arguments of the training script, `--config` among them.
        launcher: arguments of `accelerate launch`.
        options: those of `script`, in groups.
        config: the YAML file.
        environment: variables that the file sets.
        compare_plain: whether to train without RePro as well.
        html: file for the report page; `""`: the one in the output folder; `None`: no page.
    """

    script: list[str]
    launcher: list[str]
    options: list[list[str]]
    config: dict[str, Any]
    environment: dict[str, str] = field(default_factory=dict)
    compare_plain: bool = False
    html: str | None = None

    def value(self, name: str, default: Any = None) -> Any:
        """What a setting is set to, on the command line or else in the file."""
        given = option_value(self.options, name)
        return self.config.get(name, default) if given is None else given


def run(name: str, argv: Sequence[str]) -> int:
    """
    Run the training command `name`, a key of `ALGORITHMS`, with its arguments; returns the exit status.

    Raises:
        ValueError: a setting that nobody knows, or a value that cannot be.
    """
    if {"-h", "--help"} & set(argv):
        from .help import help_text

        print(help_text(name))
        return DONE
    request = read_request(name, argv)
    os.environ.update(request.environment)
    output_dir = str(request.value("output_dir", "trainer_output"))
    plain_dir = f"{output_dir.rstrip('/')}-plain"
    page = None if request.html is None else Path(request.html or Path(output_dir, "report.html"))
    if page is not None:
        check_output(page)
    if request.compare_plain:
        _validate_comparison(request)
        for folder in (output_dir, plain_dir):  # of an earlier run
            Path(folder, BEFORE_AFTER_FILE).unlink(missing_ok=True)
    if status := launch(request.launcher, [name, *request.script]):
        return status
    runs = [output_dir]
    if request.compare_plain:
        title = ALGORITHMS[name].title
        print(f"\nThe same without RePro: {title} into {plain_dir}\n", flush=True)
        if status := launch(request.launcher, [name, *request.script, *_plain_settings(request, plain_dir)]):
            return status
        runs = [plain_dir, output_dir]
    # Of several machines, the first one writes.
    if not Path(output_dir, "trainer_state.json").is_file():
        return DONE
    if request.compare_plain:
        print(f"\nSide by side, from the same model and seed:\n\n{compare_runs(plain_dir, output_dir, title)}")
    if page is not None:
        _write_page(runs, page)
    return DONE


def read_request(name: str, argv: Sequence[str]) -> Request:
    """
    The arguments and the YAML file, sorted into what the script, `accelerate launch` and the command itself take. A
    `ValueError` names a setting that none of them knows, and the nearest one that is known.
    """
    settings = {setting.name: setting for setting in read_settings(ALGORITHMS[name].script)}
    negations = {f"no_{setting.name}" for setting in settings.values() if setting.default == "True"}
    for_script = {*settings, *negations, "config"}
    groups = split_options(with_config(argv, ALGORITHMS[name].default_config))
    path = option_value(groups, "config")
    config = {} if path is None else read_config(path)
    environment = config.pop("env", {})
    if not isinstance(environment, dict):
        raise ValueError(f"{path}: env={environment!r}: give a mapping of variables and their values")

    launcher = launcher_options()
    known = {*for_script, *launcher, *OWN_NAMES}
    check_names((option_name(group[0]) for group in groups), known)
    check_names(config, {*settings, *launcher, *OWN_NAMES, "env"}, path)
    check_values(config, types_of(settings.values()), path)
    _check_datasets(config.get("datasets", []), path)

    script = [group for group in groups if option_name(group[0]) in for_script]
    own = [group for group in groups if option_name(group[0]) in OWN_NAMES]
    launched = [group for group in groups if group not in script and group not in own]
    launcher_config = {key: value for key, value in config.items() if key in launcher and key not in settings}
    accelerate_config, html = (_own_value(own, config, name) for name in ("accelerate_config", "html"))
    if accelerate_config in (True, ""):
        raise ValueError("accelerate_config: give the name of a config, or a file")
    return Request(
        script=[token for group in script for token in group],
        launcher=[
            *(["--config_file", resolve_accelerate_config(str(accelerate_config))] if accelerate_config else []),
            *launcher_tokens(launcher_config, launcher),
            *(token for group in launched for token in group),
        ],
        options=script,
        config=config,
        environment={key: str(value) for key, value in environment.items()},
        compare_plain=is_true(_own_value(own, config, "compare_plain"), "compare_plain"),
        html=_html(html),
    )


def _check_datasets(datasets: Any, path: str | None) -> None:
    fields = [setting.name for setting in read_dataclass("trl.scripts.utils", "DatasetConfig")]
    for dataset in datasets:
        if not isinstance(dataset, dict) or "path" not in dataset:
            raise ValueError(f"{path}: datasets: each one must be a mapping with a `path`, not {dataset!r}")
        check_names(dataset, fields, f"{path}: datasets")


def _own_value(options: Sequence[Sequence[str]], config: Mapping[str, Any], name: str) -> Any:
    given = option_value(options, name)
    return config.get(name) if given is None else given or True


def _html(value: Any) -> str | None:
    if value is None or value is False:
        return None
    if value is True:
        return ""
    if not isinstance(value, str):
        raise ValueError(f"html={value!r}: give a file, or true for the one in the output folder")
    return value


def _validate_comparison(request: Request) -> None:
    if float(request.value("repro_alpha", 1)) == 0:
        raise ValueError("compare_plain=True with repro_alpha=0: this already is the plain algorithm")
    if int(request.value("num_eval_problems", 1)) == 0:
        raise ValueError("compare_plain=True with num_eval_problems=0: there are no held-out problems to compare on")


def _plain_settings(request: Request, output_dir: str) -> list[str]:
    """What sets the second training apart: no process reward, a folder and a name of its own, nothing pushed."""
    settings = ["--repro_alpha", "0", "--output_dir", output_dir, "--push_to_hub", "false"]
    if run_name := request.value("run_name"):
        settings += ["--run_name", f"{run_name}-plain"]
    if str(request.value("resume_from_checkpoint")).lower() not in ("none", *FALSE):
        resumable = any(Path(output_dir).glob("checkpoint-*"))
        settings += ["--resume_from_checkpoint", "true" if resumable else "false"]
    return settings


def _write_page(folders: Sequence[str], file: Path) -> None:
    from ..reporting import compare, group_runs, read_run, render_page

    # Which of several rewards judges answers, the run itself says.
    names = json.loads(Path(folders[0], RUN_FILE).read_text(encoding="utf-8"))
    runs = [read_run(folder, names["accuracy_reward"]) for folder in folders]
    page = render_page(compare(group_runs(runs)), BACKTRACK_PHRASES)
    with atomic_path(file) as whole:
        whole.write_text(page, encoding="utf-8")
    print(f"\n{'Page':13}{file}")
