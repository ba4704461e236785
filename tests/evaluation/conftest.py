"""A small policy, problems, and an evaluation that was never interrupted."""

import pytest
from tiny_evaluations import evaluation, write_problems
from tiny_policy import save_tiny_policy


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    return save_tiny_policy(tmp_path_factory.mktemp("policy"))


@pytest.fixture(scope="module")
def held_out(tmp_path_factory):
    """Problems of the pocket task, as a file of one's own."""
    return write_problems(tmp_path_factory.mktemp("data") / "held_out.jsonl", 10)


@pytest.fixture(scope="module")
def finished(policy, held_out, tmp_path_factory):
    """An evaluation that was never interrupted."""
    folder = tmp_path_factory.mktemp("finished") / "out"
    assert evaluation(policy, held_out, folder) == 0
    return folder
