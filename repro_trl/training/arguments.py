"""Arguments of a training script, from the command line and a YAML file."""

import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from accelerate.commands.launch import launch_command_parser
from trl import ScriptArguments, TrlParser

from .algorithms import ALGORITHMS
from .names import (
    OWN_NAMES,
    check_names,
    check_values,
    option_name,
    option_value,
    read_config,
    split_options,
    with_config,
)
from .quiet import quiet_upstream
from .settings_source import read_settings, types_of


@dataclass
class ReproScriptArguments(ScriptArguments):
    """`trl.ScriptArguments`, where `dataset_name` may also be a local file or folder, and what else it takes to read a
    math dataset and to reward answers."""

    prompt_column: str | None = field(
        default=None,
        metadata={
            "help": "Column with the problem; use dots for a nested one. Default: the first of prompt, problem, "
            "question."
        },
    )
    instruction: str = field(
        default="Please reason step by step, and put your final answer within \\boxed{}.",
        metadata={"help": "Text appended to each problem. Prompts that are lists of messages are left as they are."},
    )
    num_eval_problems: int = field(
        default=256,
        metadata={
            "help": "Number of held-out problems to evaluate on before and after training. They come from the "
            "dataset's test split, or else from its train split. 0: no evaluation."
        },
    )
    reward_funcs: list[str] | None = field(
        default=None,
        metadata={
            "help": "Reward functions in addition to the answer reward: `think_format_reward`, `accuracy_reward`, "
            "`reasoning_accuracy_reward`, `get_soft_overlong_punishment` (with TRL's values), or the import "
            "path of your own, such as `my_lib.rewards.brevity`. With one of TRL's two answer rewards "
            "(`…accuracy_reward`), the package's own answer reward is logged with weight 0."
        },
    )
    reward_model_name_or_path: str | None = field(
        default=None,
        metadata={"help": "Reward model in addition to the answer reward: a name on the Hub, or a local folder."},
    )

    def __post_init__(self) -> None:
        if isinstance(self.reward_funcs, str):  # one line of a YAML file
            self.reward_funcs = [self.reward_funcs]


def parse_arguments(
    name: str, classes: Sequence[type], tokens: Sequence[str] | None = None, launched: bool = False
) -> tuple[Any, ...]:
    """
    Instances of a script's dataclasses.

    Args:
        name: of the algorithm's command; its config for the bundled model is read where the arguments name no model
            and no config.
        classes: the dataclasses, one parser for all.
        tokens: the command line. Default: that of this process.
        launched: whether a training command has read what the YAML file says to it and to `accelerate launch`.

    Raises:
        ValueError: a setting that nobody knows, with the nearest known one; a bad value; no such file.
    """
    quiet_upstream()
    tokens = with_config(sys.argv[1:] if tokens is None else tokens, ALGORITHMS[name].default_config)
    path = option_value(split_options(tokens), "config")
    if path is not None:
        check_values(read_config(path), types_of(read_settings(ALGORITHMS[name].script)), path)
    parser = TrlParser(
        classes,
        prog=f"repro-trl {name}",
        usage=f"repro-trl {name} [--config FILE] [--SETTING VALUE …]",
        allow_abbrev=False,
    )
    *parsed, from_file, from_command_line = parser.parse_args_and_config(
        tokens, return_remaining_strings=True, separate_remaining_strings=True
    )
    known = {action.dest for action in parser._actions}
    check_names((option_name(group[0]) for group in split_options(from_command_line)), known)
    for_launcher = [option_name(key) for key in from_file[::2]]
    launcher = {option_name(option) for option in launch_command_parser()._option_string_actions}
    check_names(for_launcher, known | launcher | set(OWN_NAMES), path if for_launcher else None)
    if for_launcher and not launched:
        warnings.warn(
            f"In the config file, {', '.join(for_launcher)} only works with `repro-trl {name}` and is ignored: "
            "this script was started without it.",
            stacklevel=2,
        )
    return tuple(parsed)
