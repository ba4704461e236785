"""Runs a function on several processes of one machine, under DDP, DeepSpeed ZeRO or FSDP2, on the CPU.

Processes are forked from a server that has imported everything once. What runs in them must check that it really runs
under what it names: several settings silently give independent or unsharded processes.
"""

import multiprocessing
import os
import socket
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

TIMEOUT = 240
"""Seconds after which processes are taken for deadlocked, where a test does not say more."""

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["trl.trainer.grpo_trainer", "peft", "deepspeed"])

BACKENDS = ("ddp", "zero1", "zero2", "zero3", "fsdp2")


def backend_settings(backend: str) -> dict[str, Any]:
    """Arguments of a TRL config that select a backend, beside what `run_ranks` sets up."""
    if backend.startswith("zero"):
        stage = int(backend[-1])
        zero: dict[str, Any] = {"stage": stage}
        if stage == 3:
            # With the default thresholds every parameter of a tiny model would stay on every process.
            zero |= {
                "stage3_param_persistence_threshold": 0,
                "stage3_max_live_parameters": 0,
                "stage3_max_reuse_distance": 0,
                "stage3_prefetch_bucket_size": 0,
                "stage3_gather_16bit_weights_on_model_save": True,
            }
        return {
            "deepspeed": {
                "zero_optimization": zero,
                "train_batch_size": "auto",
                "train_micro_batch_size_per_gpu": "auto",
                "gradient_accumulation_steps": "auto",
                "gradient_clipping": "auto",
            }
        }
    if backend == "fsdp2":
        return {"fsdp": True, "fsdp_config": {"version": 2, "auto_wrap_policy": "TRANSFORMER_BASED_WRAP"}}
    return {}


def run_ranks(
    function: Callable[..., Any],
    folder: Path,
    *args: Any,
    world_size: int = 2,
    backend: str = "ddp",
    timeout: float = TIMEOUT,
) -> list[Any]:
    """
    Call `function(*args)` on each of `world_size` processes.

    Args:
        function: of a module, so that processes can import it.
        folder: for messages between the processes.
        backend: one of `BACKENDS`; "none" is a process without a launcher.

    Returns:
        What each process returned, by rank.
    """
    if backend.startswith("zero"):
        pytest.importorskip("deepspeed", reason="deepspeed is not installed")
    port = free_port()
    receivers, processes = [], []
    for rank in range(world_size):
        receiver, sender = _context.Pipe(duplex=False)
        process = _context.Process(target=_run, args=(function, args, rank, world_size, port, backend, folder, sender))
        process.start()
        sender.close()
        receivers.append(receiver)
        processes.append(process)
    try:
        results, errors = [], []
        for rank, receiver in enumerate(receivers):
            if not receiver.poll(1 if errors else timeout):
                errors.append(f"{backend}: rank {rank} of {world_size} gave no answer in {timeout} s: a deadlock?")
                continue
            try:
                error, result = receiver.recv()
            except EOFError:
                error = f"died:\n{(folder / f'rank{rank}.log').read_text()[-4000:]}"
            if error is None:
                results.append(result)
            else:
                errors.append(f"rank {rank} {error}")
        if errors:
            pytest.fail("\n".join(errors))
        return results
    finally:
        for process in processes:
            process.kill()
            process.join()


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


def _run(function, args, rank, world_size, port, backend, folder, sender) -> None:
    log = os.open(folder / f"rank{rank}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ["OMP_NUM_THREADS"] = "1"
    if backend != "none":
        os.environ |= {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(world_size),
            "LOCAL_WORLD_SIZE": str(world_size),
            "MASTER_ADDR": "localhost",
            "MASTER_PORT": str(port),
        }
    try:
        import torch

        torch.set_num_threads(1)
        if backend == "fsdp2":
            os.environ |= {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}
            _allow_fsdp_on_cpu()
        if backend.startswith("zero"):
            os.environ["ACCELERATE_USE_DEEPSPEED"] = "true"
            _start_deepspeed()
        sender.send((None, function(*args)))
    except BaseException:
        sender.send((traceback.format_exc(), None))


def _allow_fsdp_on_cpu() -> None:
    # Accelerate promotes MULTI_GPU to FSDP, but not MULTI_CPU, which it therefore runs as DDP.
    from accelerate.state import DistributedType, PartialState

    original = PartialState.__init__

    def patched(self, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        if self.distributed_type == DistributedType.MULTI_CPU:
            self.distributed_type = DistributedType.MULTI_GPU

    PartialState.__init__ = patched


def _start_deepspeed() -> None:
    import sys

    import deepspeed.comm.torch

    # DeepSpeed compiles a shared-memory operator on first use, which takes minutes and is only faster.
    sys.modules["deepspeed.comm.torch"].build_shm_op = lambda: None
    # On a GPU accelerate does this; ZeRO-3 needs the number of processes as soon as a model is loaded.
    deepspeed.init_distributed(dist_backend="gloo", auto_mpi_discovery=False)
