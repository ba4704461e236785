"""Commands in processes of their own, to be killed, interrupted and kept from writing; files damaged in ten ways."""

import multiprocessing
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

SECONDS = 300
"""After which a command is taken for stuck."""

# Forked from a server that has imported everything once: a kill falls into the command's work, not into imports.
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload([
    "repro_trl.cli",
    "repro_trl.evaluation.command",
    "repro_trl.reporting.command",
    "repro_trl.viewing.inspect_command",
    "repro_trl.viewing.score_command",
])  # fmt: skip


class Command:
    """
    `repro-trl` with these arguments, started.

    Args:
        arguments: of the command line.
        log: gets what it prints.
        file_size: bytes that a file may have; beyond, writing fails as on a full disk.
    """

    def __init__(self, arguments: list[str], log: Path, file_size: int | None = None) -> None:
        self.log = log
        log.unlink(missing_ok=True)
        self._process = _context.Process(target=_run, args=(arguments, log, file_size))
        self._process.start()

    def wait(self, seconds: float = SECONDS) -> int | None:
        """The exit status; `None` if it still runs. Killed: minus the signal's number."""
        self._process.join(seconds)
        return self._process.exitcode

    def begun(self) -> None:
        """Wait until the command itself runs: a signal before that meets the process that is to become it."""
        while not self.log.exists() and self._process.is_alive():
            time.sleep(0.001)

    def send(self, number: int) -> None:
        """Send it a signal."""
        os.kill(self._process.pid, number)

    def finish(self) -> int:
        """Its exit status; the test fails if there is none, or if it printed a traceback."""
        status = self.wait()
        if status is None:
            self.send(signal.SIGKILL)
            self.wait()
            pytest.fail(f"no end after {SECONDS} s:\n{self.printed()}")
        assert "Traceback" not in self.printed(), self.printed()
        return status

    def printed(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""


def _run(arguments: list[str], log: Path, file_size: int | None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    import torch

    from repro_trl.cli import main

    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if file_size is not None:
        # What is printed must still find room.
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, resource.RLIM_INFINITY))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        reader, writer = os.pipe()
        os.dup2(writer, 2)
        status = main(arguments)
        sys.stderr.flush()
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        os.set_blocking(reader, False)
        os.write(output, os.read(reader, 1 << 16))
    else:
        status = main(arguments)
    sys.stdout.flush()
    sys.stderr.flush()
    sys.exit(status)


def stop_at_random(
    arguments: list[str], folder: Path, number: int, times: int, seed: int, finished: Callable[[], None]
) -> int:
    """
    Start a command again and again, and send it a signal at a random moment of its life, `times` times.

    Args:
        arguments: of the command line.
        folder: for its log.
        number: of the signal.
        times: how often it must strike a running command.
        seed: of the moments.
        finished: called when a command got through, to check what it left and to remove it.

    Returns:
        How often the command got through.
    """
    rng = random.Random(seed)
    for _ in range(2):  # the first one waits for the server's imports
        command = Command(arguments, folder / "log")
        command.begun()
        begin = time.monotonic()
        assert command.finish() in (0, 1)
        whole = time.monotonic() - begin
        finished()
    struck = through = 0
    while struck < times:
        command = Command(arguments, folder / "log")
        command.begun()
        status = command.wait(rng.uniform(0, whole))
        if status is None:
            command.send(number)
            status = command.finish()
            struck += 1
        if status in (0, 1):  # a signal may come when the work is done
            finished()
            through += 1
        else:
            assert status == (-number if number == signal.SIGKILL else 130), command.printed()
    assert Command(arguments, folder / "log").finish() in (0, 1)
    finished()
    return through


@contextmanager
def small_disk(folder: Path, kilobytes: int) -> Iterator[Path]:
    """A file system of that size; the test is skipped where none can be mounted."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)]
    if os.getuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("no file system can be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def _middle(data: bytes, replacement: bytes) -> bytes:
    half = len(data) // 2
    return data[:half] + replacement + data[half + len(replacement) :]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "cut in half": lambda data: data[: len(data) // 2],
    "without its last bytes": lambda data: data[:-3],
    "zeros at the end": lambda data: data + bytes(512),
    "zeros in the middle": lambda data: _middle(data, bytes(16)),
    "noise in the middle": lambda data: _middle(data, random.Random(0).randbytes(16)),
    "noise": lambda data: random.Random(1).randbytes(max(64, len(data) // 2)),
    "another format": lambda data: b"<!DOCTYPE html>\n<html><body>404</body></html>\n",
    "JSON of another kind": lambda data: b'["text", null, 1e999]\n',
    "fields of other types": lambda data: (
        b'{"prompt": {"a": []}, "problem": [3], "model": 7, "tasks": [1], "sample": "x"}\n'
    ),
}
"""Way → what becomes of a file's bytes."""
