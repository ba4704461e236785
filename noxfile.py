"""The tests at both ends of the supported range of TRL: `nox` runs all, `nox -s contract` what a release may break."""

import nox

TRL_VERSIONS = ["1.14.*", "1.16.*"]

nox.options.sessions = ["tests"]


def install(session: nox.Session, trl: str) -> None:
    session.install("-c", "constraints.txt", "-e", ".[test]")
    session.install("--no-deps", f"trl=={trl}")  # the constraints pin the newest


@nox.session
@nox.parametrize("trl", TRL_VERSIONS)
def tests(session: nox.Session, trl: str) -> None:
    install(session, trl)
    session.run("pytest", *session.posargs, env={"OMP_NUM_THREADS": "1"})


@nox.session
@nox.parametrize("trl", TRL_VERSIONS)
def contract(session: nox.Session, trl: str) -> None:
    install(session, trl)
    session.run("pytest", "tests/trainers/test_trl_contract.py", "tests/trainers/test_features.py", *session.posargs)
