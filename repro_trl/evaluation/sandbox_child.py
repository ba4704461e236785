"""
The inner side of the sandbox: run as a script by `sandbox.py`, with the standard library alone.

It reads a first line with the program and its limits, cuts itself off from the machine (sandbox_isolation.py), and
then runs the program once for every further line, each time in a fork of its own, and answers each with a line. It
never learns which output would be right. What a run leaves behind is killed before the next one starts.
"""

import base64
import decimal
import errno
import fractions
import json
import os
import pickle
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
import types
from contextlib import suppress

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import sandbox_isolation as isolation

del sys.path[0]  # the program finds none of this

MAX_DIGITS = 50000  # of integers as text: LiveCodeBench's runner sets the same


def run_once(request):
    """Run the program in a fork of its own. Returns the answer: status, output, value, detail."""
    folder = make_folder(request.get("input", ""))
    output, output_end = os.pipe()
    report, report_end = os.pipe()
    deadline = time.monotonic() + request["seconds"]
    child = os.fork()
    if child == 0:
        os.close(output)
        os.close(report)
        run_program(request, folder, output_end, report_end)
        sys.exit()  # a script that came to its end
    os.close(output_end)
    os.close(report_end)
    received = {output: bytearray(), report: bytearray()}
    open_ends = set(received)
    status = exit_code = None
    while status is None:
        ready, _, _ = select.select(list(open_ends), [], [], min(0.02, max(0, deadline - time.monotonic())))
        for end in ready:
            data = os.read(end, 65536)
            received[end] += data
            if not data:
                open_ends.discard(end)
            if len(received[end]) > LIMITS["output"]:
                status = "output limit"
        if status is None and not ready and exit_code is None:
            exit_code = poll(child)
        # The program has ended and what it wrote has been read; its own children are not waited for.
        if status is None and exit_code is not None and not ready:
            status = "ended"
        elif status is None and not open_ends:
            exit_code = wait(child, deadline) if exit_code is None else exit_code
            status = "ended" if exit_code is not None else "time limit"
        if status is None and time.monotonic() > deadline:
            status = "time limit"
    end_all(child)
    for end in received:
        os.close(end)
    if ISOLATION != "namespaces":
        shutil.rmtree(folder, ignore_errors=True)
    printed = received[output][: LIMITS["output"]].decode("utf-8", "replace")
    answer = {"status": status, "output": printed, "detail": ""}
    if status == "ended":
        answer |= read_report(received[report], exit_code, request["kind"])
    return answer


def read_report(data, exit_code, kind):
    if exit_code == 0 and kind == "input":
        return {"status": "ok"}
    try:
        report = json.loads(data)
        return {"status": str(report["status"]), "value": report.get("value"), "detail": str(report["detail"])[:500]}
    except (ValueError, KeyError, TypeError, RecursionError):
        if exit_code == -signal.SIGXCPU:
            return {"status": "time limit"}
        return {"status": "error", "detail": f"ended with exit code {exit_code}"}


def poll(child):
    process, status = os.waitpid(child, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if process else None


def wait(child, deadline):
    while time.monotonic() < deadline:
        code = poll(child)
        if code is not None:
            return code
        time.sleep(0.001)
    return None


def end_all(child):
    """Kill the program and whatever it started."""
    if os.getpid() == 1:
        with suppress(ProcessLookupError):
            os.kill(-1, signal.SIGKILL)  # everything in this process namespace, but not its first process
        reap()
        return
    # Orphans come to this process. New ones can appear while it kills, until the limit of processes stops them.
    while True:
        for process in descendants():
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        reap(os.WNOHANG)
        if not descendants():
            return


def reap(flags=0):
    with suppress(ChildProcessError):
        while os.waitpid(-1, flags)[0]:
            pass


def descendants():
    parents = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat") as file:
                    parents[int(name)] = int(file.read().rpartition(")")[2].split()[1])
            except (OSError, ValueError):
                continue  # it has just ended
    found = {os.getpid()}
    while True:
        more = {process for process, parent in parents.items() if parent in found} - found
        if not more:
            return found - {os.getpid()}
        found |= more


def make_folder(text):
    """An empty folder for one run. In namespaces the input lies beside it."""
    if ISOLATION == "namespaces":
        isolation.fresh_folder(isolation.SCRATCH, f"size={LIMITS['disk']},mode=777")
        isolation.fresh_folder(isolation.INPUT, "mode=755")
        path = f"{isolation.INPUT}/stdin"
        isolation.write(path, text)
        os.chmod(path, 0o444)
        isolation.set_read_only(isolation.INPUT)
        return isolation.SCRATCH
    return tempfile.mkdtemp(prefix="program-")


def run_program(request, folder, output_end, report_end):
    """
    In the fork: run the program, and end this process.

    A script ends as it would by itself: the call returns or raises `SystemExit`, and the interpreter waits for
    threads, runs what `atexit` holds and flushes. Its exit code says how it went. Everything else is reported.
    """
    report = {"status": "error", "detail": "", "value": None}
    try:
        report_end = enter(request, folder, output_end, report_end)
        value = execute(request)
        if request["kind"] == "input":
            return
        report["value"] = encode(list(value) if isinstance(value, tuple) else value)
        report["status"] = "ok"
    except SystemExit as error:
        # Scripts may end themselves, but not programs that are still to be tested.
        if request["kind"] == "input":
            raise
        report["detail"] = f"exit({error.code!r})"
    except MemoryError:
        report["status"] = "memory limit"
    except BaseException as error:
        report["detail"] = "".join(traceback.format_exception_only(error)).strip()[-400:]
    write_report(report, report_end)
    os._exit(1)


def write_report(report, report_end):
    try:
        data = json.dumps(report)
    except BaseException as error:
        data = json.dumps({"status": "error", "detail": f"the result cannot be read: {error}"[:400], "value": None})
    data = data.encode()
    with suppress(BaseException):  # the program closed or replaced it; what it is reported for stands
        sys.stdout.flush()
    while data:
        data = data[os.write(report_end, data) :]


def enter(request, folder, output_end, report_end):
    """Take the program's place: its folder, streams, limits and rights. Returns where the report is written."""
    os.setsid()
    os.umask(0o077)
    os.chdir(folder)
    os.environ["HOME"] = os.environ["TMPDIR"] = folder
    tempfile.tempdir = None  # asked for before
    os.dup2(standard_input(request, folder), 0)
    for end in (1, 2):
        os.dup2(output_end if end == 1 else os.open(os.devnull, os.O_WRONLY), end)
    report_end = os.dup2(report_end, 3)
    os.closerange(4, 65536)
    sys.stdin = sys.__stdin__ = stream(0, "r", "<stdin>")
    sys.stdout = sys.__stdout__ = stream(1, "w", "<stdout>")
    sys.stderr = sys.__stderr__ = stream(2, "w", "<stderr>")
    sys.argv = ["program.py"]
    sys.setrecursionlimit(50000)
    flush_at_exit()
    isolation.set_limits(LIMITS, request["seconds"])
    if ISOLATION == "namespaces":
        isolation.drop_root(SANDBOX)
        isolation.drop_capabilities()
        isolation.check(isolation.libc.prctl(isolation.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    else:
        isolation.protect_files(folder)
        isolation.filter_system_calls()
    return report_end


def standard_input(request, folder):
    text = request.get("input", "").encode("utf-8", "replace")
    if ISOLATION == "namespaces":
        return os.open(f"{isolation.INPUT}/stdin", os.O_RDONLY)  # a path, which /dev/stdin leads to
    file = tempfile.TemporaryFile(dir=folder)
    file.write(text)
    file.seek(0)
    return os.dup(file.fileno())


def stream(descriptor, mode, name):
    """A standard stream with what the interpreter's own have: buffer, mode, name, fileno."""
    text = open(descriptor, mode, encoding="utf-8", errors="replace", closefd=False)
    text.buffer.raw.name = name
    return text


def flush_at_exit():
    """Let `os._exit` lose nothing that this process printed before; in its forks it stays as it is."""
    leave, program = os._exit, os.getpid()

    def leave_flushed(status):
        if os.getpid() == program:
            with suppress(BaseException):  # closed or replaced by the program, which wants to leave
                sys.stdout.flush()
        leave(status)

    os._exit = leave_flushed


def execute(request):
    """What the called function returned, for a call."""
    kind = request["kind"]
    # A module that is known by its name: classes and functions in it can be pickled, and dataclasses find their types.
    module = types.ModuleType("__main__" if kind == "input" else "program")
    module.__file__ = "program.py"
    sys.modules[module.__name__] = module
    scope = module.__dict__
    exec(PRELUDE, scope)
    exec(compile(SOURCE, "program.py", "exec"), scope)
    if kind == "assert":
        exec(compile(request["code"], "tests.py", "exec"), scope)
    if kind == "call":
        owner = scope.get("Solution")
        function = getattr(owner(), request["function"]) if owner is not None else scope[request["function"]]
        return function(*pickle.loads(base64.b64decode(request["arguments"])))
    return None


def encode(value):
    """A result in JSON with its types, for `sandbox_values.decode`; what equals no JSON value becomes its type."""
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        if isinstance(value, numpy.ndarray):
            if value.size != 1:
                raise TypeError(f"an array of {value.size} elements is neither equal to a list nor different from it")
            return ["array", encode(value.item())]
        if isinstance(value, numpy.generic) and not isinstance(value, (float, str, bytes)):
            value = value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return ["list" if isinstance(value, list) else "tuple", [encode(item) for item in value]]
    if isinstance(value, dict):
        return ["dict", [[encode(key), encode(item)] for key, item in value.items()]]
    if isinstance(value, (decimal.Decimal, fractions.Fraction)):
        with suppress(ValueError, OverflowError):  # infinite, or no number: equal to nothing
            return ["ratio", list(value.as_integer_ratio())]
    return ["other", type(value).__name__]


def main():
    """Read the program and its limits, isolate, answer requests until there are no more."""
    global LIMITS, SOURCE, PRELUDE, ISOLATION, SANDBOX
    SANDBOX = os.getpid()
    sys.set_int_max_str_digits(MAX_DIGITS)
    os.umask(0o022)  # other users must be able to walk through the new root folder
    requests = sys.stdin.buffer
    first = json.loads(requests.readline())
    LIMITS, SOURCE, ISOLATION = first["limits"], first["source"], first["isolation"]
    if ISOLATION == "namespaces":
        isolation.enter_namespaces()
    else:
        isolation.drop_root(SANDBOX)
        if not os.access(os.__file__, os.R_OK):
            raise OSError(errno.EACCES, "other users cannot read the Python installation", sys.base_prefix)
        isolation.check(isolation.libc.prctl(isolation.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))
    PRELUDE = compile(first["prelude"], "prelude.py", "exec")
    exec(PRELUDE, {})  # so that its modules are imported once, and not in every run
    answer({"status": "ready"})
    isolation.check(
        isolation.libc.prctl(isolation.PR_SET_DUMPABLE, 0, 0, 0, 0)
    )  # programs cannot look into this process
    for line in requests:
        answer(run_once(json.loads(line)))


def answer(message):
    sys.stdout.buffer.write(json.dumps(message).encode() + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    try:
        main()
    except Exception as error:
        answer({"status": "unusable", "detail": f"{type(error).__name__}: {error}"})
        sys.exit(1)
