"""The help page of a training command, from the source of its settings."""

import shutil
import textwrap
from itertools import groupby

from .algorithms import ALGORITHMS
from .settings_source import Setting, read_settings

OWN_HELP = {
    "--config FILE": "YAML file with any of the settings below. The command line overrides it. Without a file and "
    "without a model, the command trains the bundled model.",
    "--accelerate_config NAME|FILE": "How to distribute the work over processes: a config file of `accelerate "
    "launch`, or the name of one that ships with this package ({configs}) or with TRL.",
    "--num_processes N, …": "Any option of `accelerate launch`; `accelerate launch --help` lists them.",
    "--compare_plain": "Train again without RePro (`repro_alpha` 0), from the same seed, into the folder "
    "OUTPUT_DIR-plain, and print both results side by side.",
    "--html [FILE]": "Write the report page after training. Default: report.html in the output folder.",
}


def help_text(name: str, width: int | None = None) -> str:
    """The page of a command, `width` columns wide, with the settings by the class that defines them, RePro's first."""
    from .launch import accelerate_configs

    width = width or min(shutil.get_terminal_size((100, 24)).columns, 119)
    configs = ", ".join(sorted(accelerate_configs()))
    lines = [
        f"usage: repro-trl {name} [--config FILE] [--SETTING VALUE …]",
        "",
        *textwrap.wrap(
            f"Train with {ALGORITHMS[name].title} and RePro. Without arguments, train the bundled model, in "
            "minutes on a CPU. The README has the recommended settings, which differ from the defaults.",
            width,
        ),
        "",
        "The command:",
    ]
    for option, text in OWN_HELP.items():
        lines += _entry(option, text.format(configs=configs), width)
    settings = sorted(read_settings(ALGORITHMS[name].script), key=lambda setting: setting.owner != "ReproConfigMixin")
    for owner, group in groupby(settings, key=lambda setting: setting.owner):
        lines += ["", f"{owner}:"]
        for setting in group:
            lines += _entry(f"--{setting.name} {_kind(setting)}", _described(setting), width)
    return "\n".join(lines)


def _entry(option: str, text: str, width: int) -> list[str]:
    indent = " " * 6
    return [f"  {option}", *textwrap.wrap(text, width, initial_indent=indent, subsequent_indent=indent)]


def _kind(setting: Setting) -> str:
    return setting.type.removesuffix(" | None").removeprefix("None | ")


def _described(setting: Setting) -> str:
    # argparse doubles percent signs, and puts the default in by itself.
    text = " ".join(setting.help.replace("%%", "%").split())
    # A name that is still one stands for what other code makes, such as a list of its own for every run.
    known = setting.default in ("None", "True", "False") or not (setting.default or "name").isidentifier()
    default = f"(default: {setting.default})" if known else ""
    return " ".join(part for part in (text, default) if part)
