"""Arguments that `score` and `inspect` share: columns of a file, the model, and RePro's settings as in training."""

import argparse
import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from ..config import ReproConfigMixin
from ..demo import MODEL_DIR
from ..shared_arguments import add_batch_size, add_former_name, add_model_arguments, positive_number

if TYPE_CHECKING:
    from .scorer import CompletionScorer

# RePro's settings without those that mean nothing without a training run.
_TRAINING_SETTINGS = {"repro_alpha", "repro_answer_column", "repro_trace_steps"}
_SETTINGS = [setting for setting in dataclasses.fields(ReproConfigMixin) if setting.name not in _TRAINING_SETTINGS]


def add_row_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments that say what the columns of a file are."""
    rows = parser.add_argument_group("columns")
    rows.add_argument(
        "--prompt_column",
        metavar="NAME",
        help="Column with the prompt: text or messages. Default: prompt, problem or question.",
    )
    rows.add_argument(
        "--completion_column",
        metavar="NAME",
        help="Column with the completion: text, one message, or a list of either. Default: completion, "
        "completions, response or responses.",
    )
    rows.add_argument(
        "--answer_column",
        "--repro_answer_column",
        metavar="NAME",
        help="Column with the ground truth: an answer, or a solution with it; a dot selects a field of a nested "
        "column. Default: as in training, the first of the usual names that has answers.",
    )
    rows.add_argument(
        "--as_user_message",
        action="store_true",
        help="Put prompts that are text into the chat template, as a user message. By default, they are left as "
        "they are.",
    )


def add_scoring_arguments(
    parser: argparse.ArgumentParser, defaults: Mapping[str, object] = MappingProxyType({})
) -> None:
    """
    Arguments that name the model, and RePro's settings with the names and texts that they have in training; `defaults`
    are those that differ from training's.
    """
    model = add_model_arguments(parser, "Name on the Hub, or local folder. Default: the bundled model.")
    add_former_name(parser, "--revision", "--model_revision")
    model.add_argument("--device", metavar="NAME", help="Default: the accelerator if there is one, else the CPU.")
    model.add_argument(
        "--temperature",
        type=_scoring_temperature,
        default=1.0,
        help="Sampling temperature, as in training; above 0. Default: %(default)s.",
    )
    add_batch_size(model, "Completions of one prompt per forward pass. Default: %(default)s.", default=8)
    repro = parser.add_argument_group("RePro's settings, as in training")
    for setting in _SETTINGS:
        default = defaults.get(setting.name, setting.default)
        repro.add_argument(
            f"--{setting.name}",
            type=_type(setting),
            nargs="+" if setting.type == list[str] | None else None,
            default=default,
            choices=setting.metadata.get("choices"),
            help=f"{setting.metadata['help']} Default: {default!r}.".replace("%", "%%"),
        )


def _type(setting: dataclasses.Field) -> type:
    """Of a setting's value when it is given: one that may be left out is a number or a text then."""
    if isinstance(setting.type, type):
        return setting.type
    return float if setting.type == float | None else str


def _scoring_temperature(text: str) -> float:
    try:
        return positive_number(text)
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(
            f"{error}, because scores come from the distribution that is sampled from, and greedy decoding has none"
        ) from None


def scorer_from_arguments(arguments: argparse.Namespace) -> "CompletionScorer":
    """The scorer that the arguments of `add_scoring_arguments` ask for; a `ValueError` names one that cannot work."""
    import torch

    from ..models import load_model, load_tokenizer
    from .scorer import CompletionScorer, ScoringSettings

    settings = ScoringSettings(**{setting.name: getattr(arguments, setting.name) for setting in _SETTINGS})
    name, revision = arguments.model_name_or_path or str(MODEL_DIR), arguments.model_revision
    trusted = arguments.trust_remote_code
    tokenizer = load_tokenizer(name, revision, trusted)
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else "cpu"
    device = arguments.device or accelerator
    model = load_model(name, revision, arguments.dtype, device, trusted, arguments.attn_implementation)
    return CompletionScorer(model, tokenizer, settings, arguments.temperature, arguments.batch_size)
