"""Fixtures of several test files: a tiny policy, and problems for it."""

import pytest
from tiny_policy import save_tiny_policy

from repro_trl.demo import task


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    return save_tiny_policy(tmp_path_factory.mktemp("policy"))


@pytest.fixture(scope="module")
def dataset():
    return task.train_dataset(size=16, seed=3)
