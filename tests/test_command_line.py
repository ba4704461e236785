"""How commands end: exit status and one sentence."""

import errno
import signal
import subprocess
import sys
import time

import pytest
import torch

from repro_trl.command_line import FailedWork, run_command


def raising(error):
    def body():
        raise error

    return body


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (ValueError("top_p=2: give\n  less"), 2, "top_p=2: give less."),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "a/b"), 2, "a/b: No such file or directory."),
        (PermissionError(errno.EACCES, "Permission denied", b"a/b"), 2, "a/b: Permission denied."),
        (OSError("there is no model x"), 2, "there is no model x."),
        (OSError(errno.ENOSPC, "No space left on device"), 1, "No space left on device. Go on."),
        (FailedWork("the engine did not start."), 1, "the engine did not start. Go on."),
        (MemoryError(), 1, "out of memory (no details). Go on."),
        (torch.OutOfMemoryError("CUDA out of memory"), 1, "out of memory (CUDA out of memory). Go on."),
        (KeyboardInterrupt(), 130, "interrupted. Go on."),
    ],
)
def test_what_is_raised_becomes_a_sentence_and_a_status(error, status, message, capsys):
    assert run_command("score", raising(error), kept="Go on.") == status
    assert capsys.readouterr().err == f"repro-trl score: {message}\n"


def test_the_status_of_the_body_is_returned(capsys):
    assert [run_command("eval", lambda status=status: status) for status in (0, 1)] == [0, 1]
    assert capsys.readouterr().err == ""


def test_faults_of_the_program_keep_their_traceback():
    for error in (RuntimeError("a tensor of another shape"), KeyError("name"), AssertionError()):
        with pytest.raises(type(error)):
            run_command("eval", raising(error))


def test_a_reader_that_leaves_early():
    program = (
        "from repro_trl.command_line import run_command\n"
        "def body():\n"
        "    for number in range(100_000):\n"
        "        print(number)\n"
        "    return 0\n"
        "raise SystemExit(run_command('report', body))"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b"" and process.wait() == 1


@pytest.fixture
def ctrl_c():
    """SIGINT raises `KeyboardInterrupt`, even where the tests were started in the background, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_that_meets_a_finaliser_is_not_lost(ctrl_c, capsys):
    class Finalised:
        def __del__(self):
            raise KeyboardInterrupt

    def body():
        Finalised()
        time.sleep(30)  # ends as soon as the interrupt comes
        return 0

    assert run_command("score", body) == 130
    assert capsys.readouterr().err == "repro-trl score: interrupted.\n"
