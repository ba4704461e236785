"""Loads the model and the tokenizer that a command line names; what cannot be loaded is said in one sentence."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
_Loaded = TypeVar("_Loaded")


def load_tokenizer(
    name_or_path: str, revision: str = "main", trust_remote_code: bool = False
) -> PreTrainedTokenizerBase:
    """
    The tokenizer of a model by the model's name on the Hub, or folder.

    Raises:
        ValueError: there is no such model, or it cannot be loaded.
    """
    return _load(AutoTokenizer.from_pretrained, name_or_path, revision=revision, trust_remote_code=trust_remote_code)


def load_model(
    name_or_path: str,
    revision: str = "main",
    dtype: str = "auto",
    attn_implementation: str | None = None,
    trust_remote_code: bool = False,
    device: str | torch.device | None = None,
) -> PreTrainedModel:
    """
    A causal language model by its name on the Hub, or folder, in evaluation mode.

    Args:
        device: default: the accelerator, or else the CPU.

    Raises:
        ValueError: there is no such model or device, or it cannot be loaded.
    """
    model = _load(
        AutoModelForCausalLM.from_pretrained,
        name_or_path,
        revision=revision,
        dtype=dtype,
        attn_implementation=attn_implementation,
        trust_remote_code=trust_remote_code,
    )
    return model.to(_device(device)).eval()


def _load(load: Callable[..., _Loaded], name_or_path: str, **options: Any) -> _Loaded:
    path = Path(name_or_path)
    place = f"--model_name_or_path {name_or_path}"
    if path.is_dir():
        if not any(path.glob("*config.json")):  # an adapter's folder has adapter_config.json only
            raise ValueError(f"{place}: no model is in this folder, for it holds no config.json.")
    elif path.exists():
        raise ValueError(f"{place}: this is a file. Give the folder of a model, or its name on the Hub.")
    elif not _HUB_NAME.fullmatch(name_or_path):
        raise ValueError(f"{place}: there is no such folder.")
    try:
        return load(name_or_path, **options)
    except torch.OutOfMemoryError:
        raise
    # A folder may be broken in any way, and what its files say may name any part of the libraries.
    except Exception as error:
        where = "cannot be loaded" if path.is_dir() else "there is no such folder, and the Hub gives no such model"
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
        raise ValueError(f"{place}: {where} ({type(error).__name__}: {reason})") from error


def _device(name: str | torch.device | None) -> torch.device:
    if name is None:
        return torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # torch built without it asserts
        reason = str(error).partition("\n")[0]
        raise ValueError(f"--device {name}: torch cannot use it here ({reason}).") from error
    return device
