"""A helper process that answers each JSON line with a JSON line, and is killed when an answer takes too long."""

import json
import os
import selectors
import signal
import subprocess
import time
from contextlib import suppress
from typing import Any

from ..row_files import whole_number


def read_json(text: str | bytes) -> Any:
    """`json.loads` for integers of any length: Python's limit on digits is meant for `int` of a text."""
    return json.loads(text, parse_int=whole_number)


class NoAnswer(RuntimeError):
    """The process ended, or what it wrote is no answer."""


class TimeLimit(NoAnswer):
    """No answer came in time."""


class LineProcess:
    """
    A process that sees no other environment variables than the given ones. Used by one thread at a time, of any kind:
    no signals, no fork of this process's memory, no import of its main module. After an error it is dead.
    """

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env=environment,
            start_new_session=True,
            bufsize=0,
        )
        os.set_blocking(self._process.stdin.fileno(), False)
        self._received = bytearray()

    def ask(self, message: dict[str, Any], seconds: float) -> dict[str, Any]:
        """
        Send a message and wait for the answer: `TimeLimit` after `seconds`, `NoAnswer` if the process ended.
        """
        try:
            return read_json(self._exchange(json.dumps(message).encode() + b"\n", time.monotonic() + seconds))
        except TimeLimit:
            self.kill()
            raise
        except (NoAnswer, OSError, ValueError, RecursionError) as error:
            self.kill()
            raise NoAnswer(f"{error} (exit code {self._process.returncode})") from error

    def answer(self, seconds: float) -> dict[str, Any]:
        """Wait for a line that is no answer to a message, such as a greeting. Raises what `ask` does."""
        try:
            return read_json(self._exchange(b"", time.monotonic() + seconds))
        except (NoAnswer, OSError, ValueError, RecursionError) as error:
            self.kill()
            raise NoAnswer(f"{error} (exit code {self._process.returncode})") from error

    def _exchange(self, message: bytes, deadline: float) -> bytes:
        to_send = memoryview(message)
        stdin, stdout = self._process.stdin, self._process.stdout
        with selectors.DefaultSelector() as selector:
            selector.register(stdout, selectors.EVENT_READ)
            if to_send:
                selector.register(stdin, selectors.EVENT_WRITE)
            while (end := self._received.find(b"\n")) < 0:
                ready = selector.select(max(0.0, deadline - time.monotonic()))
                if not ready:
                    raise TimeLimit("no answer in time")
                for key, _ in ready:
                    if key.fileobj is stdin:
                        to_send = to_send[os.write(stdin.fileno(), to_send) :]
                        if not to_send:
                            selector.unregister(stdin)
                        continue
                    data = os.read(stdout.fileno(), 1 << 20)
                    if not data:
                        raise NoAnswer("it ended")
                    self._received += data
        line = bytes(self._received[:end])
        del self._received[: end + 1]
        return line

    def kill(self) -> None:
        """End the process, its session and all that depends on it; may be called again."""
        if self._process.returncode is None:
            with suppress(ProcessLookupError):  # it has just ended
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            pipe.close()
