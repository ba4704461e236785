"""How every command ends: with an exit status and, where something went wrong, one sentence and no traceback."""

import errno
import os
import signal
import sys
import threading
from collections.abc import Callable

DONE, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130
"""Exit statuses: all was done; work failed; the command was called wrongly or its input is bad; Ctrl-C."""

# A path that was given cannot be used. Other errors of the system, such as a full disk, are failed work.
_WRONG_PATH = {
    *(errno.EACCES, errno.EEXIST, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENOENT, errno.ENOTDIR),
    *(errno.EPERM, errno.EROFS),
}


class FailedWork(Exception):
    """The command was called correctly, and its work failed; the message says how, in one sentence."""


def run_command(name: str, body: Callable[[], int], kept: str = "") -> int:
    """
    Run the body of a command and turn what it raises into a message and an exit status: 2 for a `ValueError` or a path
    that cannot be used; 1 for `FailedWork`, other errors of the system and too little memory; 130 for Ctrl-C. `kept`
    is a sentence on what is kept and how to go on, for work that failed or was interrupted.
    """
    hook, sys.unraisablehook = sys.unraisablehook, _keep_interrupts
    try:
        return body()
    except KeyboardInterrupt:
        message, status = "interrupted.", INTERRUPTED
    except BrokenPipeError:
        # The reader of the output, such as `head`, has what it wants. Python would complain once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except (ValueError, OSError, FailedWork, MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not _is_out_of_memory(error):
            raise
        message, status = _sentence(error), exit_status(error)
    finally:
        sys.unraisablehook = hook
    if kept and status != USAGE:
        message = f"{message} {kept}"
    print(f"repro-trl {name}: {message}", file=sys.stderr)
    return status


def _keep_interrupts(unraisable: "sys.UnraisableHookArgs") -> None:
    """A Ctrl-C that meets a finaliser, where Python would print and drop it, comes once more right after."""
    if issubclass(unraisable.exc_type, KeyboardInterrupt):
        # Inside this hook, Python would drop it again. A signal, because nothing else ends a wait.
        again = threading.Timer(0.02, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT))
        again.daemon = True
        again.start()
    else:
        sys.__unraisablehook__(unraisable)


def exit_status(error: Exception) -> int:
    """The status with which a command ends that raised `error`."""
    if isinstance(error, OSError):
        # Libraries raise it without a number for names that they do not find.
        return USAGE if error.errno is None or error.errno in _WRONG_PATH else FAILED
    return USAGE if isinstance(error, ValueError) else FAILED


def first_line(error: Exception) -> str:
    """Of its message; the name of its type where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        text = error.strerror if error.filename is None else f"{os.fsdecode(error.filename)}: {error.strerror}"
    elif isinstance(error, (MemoryError, RuntimeError)):
        text = f"out of memory ({str(error) or 'no details'})"
    else:
        text = str(error) or type(error).__name__
    text = " ".join(text.split())
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _is_out_of_memory(error: RuntimeError) -> bool:
    import torch  # here, for most commands start without it

    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
