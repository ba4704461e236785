"""Models and tokenizers by name or folder: loaded, or refused in a sentence; and digests of what they are."""

import hashlib
import json
from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

# Of a folder's files those that decide what the model says: weights, configurations, adapters, tokenizers and chat
# templates. What a trainer leaves beside them does not.
_SUFFIXES = {".safetensors", ".bin", ".pt", ".pth", ".json", ".model", ".txt", ".tiktoken", ".jinja", ".spm", ".vocab"}
_OF_A_TRAINER = set(
    "all_results.json eval_results.json train_results.json trainer_state.json training_args.bin optimizer.bin "
    "optimizer.pt scheduler.pt scaler.pt requirements.txt".split()
)


def load_tokenizer(
    model: str, revision: str | None = None, trust_remote_code: bool = False
) -> PreTrainedTokenizerBase:
    """The tokenizer of a model; a `ValueError` says why it cannot be loaded."""
    _check_folder(model)
    try:
        return AutoTokenizer.from_pretrained(model, revision=revision, trust_remote_code=trust_remote_code)
    except Exception as error:  # `tokenizers` raises nothing narrower for a damaged file
        raise _load_error(model, "tokenizer", error) from error


def load_model(
    model: str,
    revision: str | None = None,
    dtype: str = "auto",
    device: torch.device | str = "cpu",
    trust_remote_code: bool = False,
    attn_implementation: str | None = None,
) -> PreTrainedModel:
    """
    A causal language model, by its folder or name on the Hub, in evaluation mode. The dtype "auto" keeps
    its weights as they were saved; `attn_implementation` is such as "sdpa", or `None` for the model's own.

    Raises:
        ValueError: an unknown dtype, a model that cannot be loaded or whose weights are not all there.
        MemoryError, torch.OutOfMemoryError: it does not fit.
    """
    check_dtype(dtype)
    _check_folder(model)
    try:
        loaded, report = AutoModelForCausalLM.from_pretrained(
            model,
            revision=revision,
            dtype=dtype,
            trust_remote_code=trust_remote_code,
            attn_implementation=attn_implementation,
            output_loading_info=True,
        )
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # a damaged folder ends in errors of many libraries: safetensors, pickle, json
        raise _load_error(model, "model", error) from error
    if report["missing_keys"]:
        names = ", ".join(sorted(report["missing_keys"])[:3])
        raise ValueError(
            f"model={model!r}: {len(report['missing_keys'])} weights are not in its files, such as {names}. They "
            "would be random. Is the folder complete?"
        )
    try:
        return loaded.to(device).eval()
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        raise ValueError(f"device={str(device)!r}: {_first_line(error)}") from error


def check_dtype(dtype: str) -> None:
    """Raise a `ValueError` for what names no floating-point type of torch and is not "auto"."""
    known = getattr(torch, dtype, None)
    if dtype != "auto" and not (isinstance(known, torch.dtype) and known.is_floating_point and known.itemsize > 1):
        raise ValueError(f"dtype={dtype!r}: give auto, float32, bfloat16, float16 or float64.")


def resolve_revision(model: str, revision: str | None) -> str | None:
    """
    The commit on the Hub that a branch, a tag or no revision stands for; without network the one that was downloaded
    last. `None` for a folder. A `ValueError` if there is neither such a folder nor such a model.
    """
    if Path(model).is_dir():
        return None
    _check_folder(model)
    try:
        # The folder of a snapshot has the name of its commit.
        return Path(snapshot_download(model, revision=revision, allow_patterns=["*config.json"])).name
    except (OSError, ValueError) as error:
        raise _load_error(model, "model", error) from error


def model_files(model: str, revision: str | None = None) -> dict[str, str]:
    """
    SHA-256 digests, by file, of all that decides what a model says: weights, configurations, tokenizer, chat
    templates, code, adapters and, as "base/…", the model beneath an adapter. Of a model on the Hub its "commit". A
    `ValueError` if there is no such model.
    """
    commit = resolve_revision(model, revision)
    if commit is not None:
        return {"commit": commit}
    folder = Path(model)
    paths = [path for path in folder.iterdir() if path.suffix in _SUFFIXES and path.name not in _OF_A_TRAINER]
    paths = [path for path in paths if not path.name.startswith("rng_state")]
    paths += [*folder.rglob("*.py"), *folder.glob("additional_chat_templates/*.jinja")]
    digests = {str(path.relative_to(folder)): _sha256(path) for path in sorted(paths) if path.is_file()}
    adapter = folder / "adapter_config.json"
    if adapter.is_file():
        try:
            settings = json.loads(adapter.read_bytes())
            base = settings["base_model_name_or_path"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"model={model!r}: {adapter} names no base model ({error}).") from error
        if base is not None and str(base) != model:
            digests |= {f"base/{name}": digest for name, digest in model_files(base, settings.get("revision")).items()}
    return digests


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_folder(model: str) -> None:
    path = Path(model).expanduser()
    if path.is_dir():
        return
    if path.exists():
        raise ValueError(f"model={model!r} is a file; give the folder with the model, or a name on the Hub.")
    # Names on the Hub are NAME or OWNER/NAME.
    if path.is_absolute() or model.startswith(".") or len(path.parts) != model.count("/") + 1 or len(path.parts) > 2:
        raise ValueError(f"model={model!r} cannot be loaded: there is no such folder.")


def _load_error(model: str, what: str, error: Exception) -> ValueError:
    if Path(model).is_dir():
        return ValueError(f"model={model!r}: its {what} cannot be loaded ({_first_line(error)}).")
    return ValueError(
        f"model={model!r} cannot be loaded: there is no such folder, and loading it from the Hub failed "
        f"({_first_line(error)})."
    )


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0].rstrip('.')}" if text else type(error).__name__
