"""
Programs that a model wrote, run apart from this machine.

Each program gets a process of its own (`sandbox_child.py`), that is cut off in one of two ways:

- "namespaces": own users, processes, mounts and network; a root folder that holds the system's libraries and the
  interpreter, read-only, and an empty `/tmp`. Nothing of the machine's other files, processes or network is there.
- "filters", where the kernel does not allow namespaces: Landlock against changing files, seccomp against sockets,
  signals and other processes' memory. Such a program can still read what its user may read.

In both, time, memory, processes, file size and output are limited, and whatever a program leaves running is killed. As
root, programs run as a user that owns nothing. docs/evaluation.md says what this does not protect against.
"""

import base64
import functools
import os
import pickle
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from .line_process import LineProcess, NoAnswer
from .sandbox_values import decode

Isolation = Literal["namespaces", "filters"]

_CHILD = Path(__file__).with_name("sandbox_child.py")
_GRACE = 20.0  # seconds beyond a program's own limit until the sandbox itself is taken for stuck


class SandboxError(RuntimeError):
    """The sandbox, not the program in it, did not work."""


@dataclass(frozen=True)
class Limits:
    """
    Attributes:
        memory: bytes of address space of each process.
        processes: at one time, threads and three of the sandbox's own included.
        disk: bytes that may be written, in all ("namespaces") or to each file ("filters").
        output: bytes that may be printed.
    """

    memory: int = 2 << 30
    processes: int = 32
    disk: int = 64 << 20
    output: int = 32 << 20


@dataclass(frozen=True)
class Run:
    """
    One run of a program: "ok", "error" (it raised, or ended early), "time limit", "memory limit" or "output limit";
    what it printed, up to the limit; what the called function returned, a tuple as a list, NumPy's numbers as
    Python's; and the exception, if any.
    """

    status: str
    output: str
    value: Any
    detail: str


class Sandbox:
    """
    A program in its sandbox, a context manager; for any thread, one at a time. A `SandboxError` if it cannot be set
    up.

    Args:
        isolation: by default the stronger way that works here.
        prelude: trusted statements that run in the program's scope before it.
    """

    def __init__(
        self, source: str, limits: Limits | None = None, isolation: Isolation | None = None, prelude: str = ""
    ) -> None:
        self._first = {
            "prelude": prelude,
            "source": source,
            "limits": asdict(limits or Limits()),
            "isolation": isolation or usable_isolation(),
        }

    def __enter__(self) -> "Sandbox":
        self._process = LineProcess([sys.executable, "-I", "-B", str(_CHILD)], _environment())
        answer = self._ask(self._first, _GRACE)
        if answer["status"] != "ready":
            self._process.kill()
            raise SandboxError(answer["detail"])
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.kill()

    def run(
        self,
        kind: Literal["input", "call", "assert"],
        seconds: float,
        input: str = "",
        function: str = "",
        arguments: tuple[Any, ...] = (),
        code: str = "",
    ) -> Run:
        """
        Run the program from its beginning, in a fresh process, for at most `seconds` of wall-clock time. A
        `SandboxError` if no answer comes.

        Args:
            kind: "input": as a script that reads `input`. "call": as a module, of which `function` is called with
                `arguments`. "assert": as a module, after which `code` runs in its scope.
        """
        request = {
            "kind": kind,
            "seconds": seconds,
            "input": input,
            "function": function,
            "arguments": base64.b64encode(pickle.dumps(arguments)).decode(),  # trusted, and integers of any length
            "code": code,
        }
        answer = self._ask(request, seconds + _GRACE)
        try:
            value = decode(answer.get("value"))
        except (ValueError, RecursionError) as error:
            return Run("error", answer["output"], None, f"the result cannot be read: {error}")
        return Run(answer["status"], answer["output"], value, answer["detail"])

    def _ask(self, message: dict[str, Any], seconds: float) -> dict[str, Any]:
        try:
            return self._process.ask(message, seconds)
        except NoAnswer as error:
            raise SandboxError(f"the sandbox did not respond: {error}") from error


def _environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("LD_LIBRARY_PATH", "TZ") if name in os.environ}
    single = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", **single, **kept}


@functools.cache
def usable_isolation() -> Isolation:
    """
    The stronger way of isolation that works here; tried once. A `SandboxError` if neither does: no program is run
    then.
    """
    reasons = []
    for isolation in ("namespaces", "filters"):
        try:
            with Sandbox("print(input())", isolation=isolation) as sandbox:
                run = sandbox.run("input", 30.0, input="works")
            if run.status == "ok" and run.output == "works\n":
                return isolation
            reasons.append(f"{isolation}: {run.status}, {run.detail}")
        except SandboxError as error:
            reasons.append(f"{isolation}: {error}")
    raise SandboxError(
        "A model's programs only run in a sandbox, and none can be set up here ("
        + "; ".join(reasons)
        + (
            "). Namespaces need a kernel that allows users to create them (in containers: a seccomp profile that "
            "allows unshare and mount); filters need Landlock and a Python that other users can read."
        )
    )
