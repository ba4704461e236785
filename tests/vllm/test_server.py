"""
Rollouts from `vllm serve`, on a CPU, as far as TRL's client goes there: it generates. New weights travel by NCCL,
which needs GPUs, so that here the policy stays as it is, and the sending is left out.
"""

import time

import pytest
import requests
from ranks import free_port
from trl.scripts.vllm_serve import ScriptArguments, build_command
from vllm_on_cpu import TIMEOUT, run_with_vllm, started
from vllm_runs import train

from repro_trl.demo import MODEL_DIR

pytestmark = pytest.mark.vllm


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Address of a server with the settings that TRL asks for, in float32."""
    folder = tmp_path_factory.mktemp("server")
    port = free_port()
    settings = ScriptArguments(str(MODEL_DIR), host="127.0.0.1", port=port, dtype="float32", max_model_len=256)
    address = f"http://127.0.0.1:{port}"
    with started(build_command(settings), folder, VLLM_SERVER_DEV_MODE="1") as process:
        wait_for(address, process, folder / "log")
        yield address


def wait_for(address, process, log):
    for _ in range(TIMEOUT):
        assert process.poll() is None, log.read_text()[-4000:]
        try:
            if requests.get(f"{address}/health", timeout=5).ok:
                return
        except requests.RequestException:
            time.sleep(1)
    pytest.fail(f"the server did not start in time:\n{log.read_text()[-4000:]}")


def _train(folder, address):
    from trl.generation.vllm_client import VLLMClient

    VLLMClient.init_communicator = lambda self, device: None
    VLLMClient.update_named_params = lambda self, metadata, params: None
    return train("grpo", folder, vllm_mode="server", vllm_server_base_url=address, learning_rate=0.0)


@pytest.mark.parametrize("world_size", [1, 2])
def test_rollouts_from_a_server(server, tmp_path, world_size):
    results = run_with_vllm(_train, tmp_path, tmp_path / "run", server, world_size=world_size)
    for result in results:
        assert result["forwards"] == [4, 4] and result["read_on_trls_pass"] == 2 and all(result["per_token"])
        assert all(entry["repro/segments"] > 2 for entry in result["logged"])
        assert max(result["differences"]) < 1e-5
    assert len({str(result["completions"]) for result in results}) == world_size
