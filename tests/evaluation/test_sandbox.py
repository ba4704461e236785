"""Hostile programs: what they try fails, ends in time, and leaves nothing behind."""

import os
import socket
import threading
import time
import venv

import psutil
import pytest
from sandboxes import ISOLATIONS, SMALL, isolations, run

from repro_trl.evaluation import sandbox
from repro_trl.evaluation.sandbox import Sandbox, SandboxError, usable_isolation

isolation = pytest.fixture(isolations, scope="module", params=ISOLATIONS)


def test_something_works_here():
    assert usable_isolation() in ("namespaces", "filters")


def test_input_and_output(isolation):
    source = "import sys\nn = int(input())\nprint(sum(map(int, sys.stdin.read().split())) * n)"
    result = run(isolation, source, input="2\n1 2 3\n4\n")
    assert (result.status, result.output) == ("ok", "20\n")
    result = run(isolation, "print(open(0).read()[::-1], end='')", input="añ漢🦉")
    assert result.output == "🦉漢ña"


def test_a_function_is_called_with_its_arguments(isolation):
    source = "class Solution:\n    def f(self, a, b):\n        return (a, {'b': b})"
    result = run(isolation, source, kind="call", function="f", arguments=([1, 2.5], "x"))
    assert (result.status, result.value) == ("ok", [[1, 2.5], {"b": "x"}])
    result = run(isolation, "def g(x):\n    return {x}", kind="call", function="g", arguments=(1,))
    assert result.status == "ok" and repr(result.value) == "<set>"
    assert run(isolation, "def g(x): pass", kind="call", function="f", arguments=(1,)).status == "error"


@pytest.mark.parametrize(
    ("source", "status"),
    [
        ("def f(x): return x + 1", "ok"),
        ("def f(x): return x", "error"),
        ("def f(x): return y", "error"),
        ("def f(x) return", "error"),
        ("import sys\nsys.exit(0)", "error"),
        ("import os\nos._exit(0)", "error"),
        ("def f(x):\n    raise SystemExit(0)", "error"),
        ("if __name__ == '__main__':\n    raise ValueError\ndef f(x): return x + 1", "ok"),
    ],
)
def test_assertions(isolation, source, status):
    assert run(isolation, source, kind="assert", code="assert f(1) == 2").status == status


@pytest.mark.parametrize(
    ("source", "status"),
    [
        ("print(1)\nexit()", "ok"),
        ("print(1)\nimport sys\nsys.exit(3)", "error"),
        ("raise KeyboardInterrupt", "error"),
        ("import ctypes\nctypes.string_at(0)", "error"),
        ("import os\nos.abort()", "error"),
        ("def f(): f()\nf()", "error"),
        ("import sys\nsys.stdout.close()", "ok"),
        ("import sys\nsys.exit('wrong input')", "error"),
        ("import os\nos._exit(1)", "error"),
        ("import threading\nthreading.Thread(target=lambda: 1 / 0).start()", "ok"),
        ("print('\\ud800')", "ok"),
    ],
)
def test_how_programs_end(isolation, source, status):
    assert run(isolation, source).status == status


@pytest.mark.parametrize(
    "source",
    [
        "while True: pass",
        "import time\ntime.sleep(1000)",
        "import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, range(1, 32))\nwhile True: pass",
        "import os\nos.closerange(0, 100)\nwhile True: pass",
        "while True:\n    try:\n        while True: pass\n    except BaseException: pass",
    ],
)
def test_endless_loops(isolation, source):
    start = time.monotonic()
    with Sandbox(source, SMALL, isolation) as box:
        assert box.run("input", 0.5).status == "time limit"
    assert time.monotonic() - start < 5


@pytest.mark.parametrize(
    "source", ["x = bytearray(10 * 2**30)", "x = []\nwhile True: x.append(bytes(1 << 20))", "x = 'a' * (10 * 2**30)"]
)
def test_ten_gigabytes(isolation, source):
    assert run(isolation, source, seconds=10.0).status == "memory limit"


def below(box):
    try:
        return psutil.Process(box._process._process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def test_a_fork_bomb(isolation):
    source = "import os\nwhile True:\n    try:\n        if os.fork() == 0: os.setsid()\n    except OSError: pass"
    with Sandbox(source, SMALL, isolation) as box:
        counts, over = [], threading.Event()

        def count():
            while not over.is_set():
                counts.append(len(below(box)))
                time.sleep(0.02)

        thread = threading.Thread(target=count)
        thread.start()
        assert box.run("input", 1.0).status == "time limit"
        over.set()
        thread.join()
        left = len(below(box))
        assert box.run("input", 0.2).status == "time limit"
    # It did fork, to its limit, and nothing of it is left but the sandbox's own process.
    assert 4 < max(counts) <= SMALL.processes + 2
    assert left <= 1 and not below(box)


def test_children_that_go_their_own_way_are_killed(isolation):
    source = (
        "import os, sys, time\n"
        "if os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n        time.sleep(600)\n    os._exit(0)\n"
        "print('done')"
    )
    with Sandbox(source, SMALL, isolation) as box:
        result = box.run("input", 5.0)
        assert (result.status, result.output) == ("ok", "done\n")
        assert len(below(box)) <= 1


def test_floods_of_output(isolation):
    result = run(isolation, "while True: print('x' * 10_000)", seconds=10.0)
    assert result.status == "output limit" and len(result.output) == SMALL.output
    result = run(isolation, "import os\nwhile True: os.write(1, b'\\xff' * 65536)", seconds=10.0)
    assert result.status == "output limit" and len(result.output) <= SMALL.output
    assert run(isolation, "import sys\nwhile True: sys.stderr.write('x' * 10_000)", seconds=0.5).status == "time limit"
    assert run(
        isolation,
        "import os\nfor fd in range(3, 10):\n    try: os.write(fd, b'x' * 10_000_000)\n    except OSError: pass",
    ).status in ("error", "output limit")


def test_files_cannot_be_changed(isolation, tmp_path):
    tmp_path.chmod(0o777)
    (tmp_path / "there").write_text("mine")
    (tmp_path / "there").chmod(0o666)
    source = f"""
import os
for path in {str(tmp_path)!r}, os.path.expanduser('~root'), '/usr', '/etc', '/dev/shm', '/var/tmp', '/':
    for name in 'new', 'there':
        try:
            with open(os.path.join(path, name), 'w') as file: file.write('hostile')
            print('wrote', path)
        except OSError: pass
for act in os.remove, os.rmdir, os.listdir:
    try: act({str(tmp_path / "there")!r})
    except OSError: pass
try: os.chmod({str(tmp_path)!r}, 0)
except OSError: pass
with open('own', 'w') as file: file.write('own')
print('own', os.listdir())
"""
    result = run(isolation, source)
    assert (result.status, result.output) == ("ok", "own ['own']\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["there"]
    assert (tmp_path / "there").read_text() == "mine"


def test_files_cannot_be_read_in_a_namespace(tmp_path):
    (tmp_path / "secret").write_text("secret")
    try:
        with Sandbox(f"print(open({str(tmp_path / 'secret')!r}).read())", SMALL, "namespaces") as box:
            assert box.run("input", 2.0).status == "error"
    except SandboxError as error:
        pytest.skip(f"no namespaces here: {error}")


def test_temporary_files_can_be_written(isolation):
    source = "import os, tempfile\nwith tempfile.NamedTemporaryFile('w') as file: print(len(file.name) > 3)\n"
    source += "open(os.path.join(tempfile.gettempdir(), 'x'), 'w').write('x')"
    result = run(isolation, source)
    assert (result.status, result.output) == ("ok", "True\n")


def test_an_interpreter_among_temporary_files(tmp_path, monkeypatch):
    venv.create(tmp_path / "venv", symlinks=True, with_pip=False)
    monkeypatch.setattr(sandbox.sys, "executable", str(tmp_path / "venv" / "bin" / "python"))
    try:
        with Sandbox("import os, sys, json\nprint(sys.prefix, os.path.isdir(sys.prefix))") as box:
            assert box.run("input", 10.0).output == f"{tmp_path / 'venv'} True\n"
    except SandboxError as error:
        pytest.skip(f"no sandbox for a Python here: {error}")


def test_disks_are_not_filled(isolation):
    result = run(isolation, "with open('big', 'wb') as file:\n    while True: file.write(bytes(65536))", seconds=10.0)
    assert result.status == "error" and "OSError" in result.detail


def test_there_is_no_network(isolation):
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams,
    ):
        datagrams.bind(("127.0.0.1", 0))
        server.settimeout(0.2)
        datagrams.settimeout(0.2)
        source = f"""
import socket
for kind, port in (socket.SOCK_STREAM, {server.getsockname()[1]}), (socket.SOCK_DGRAM, {datagrams.getsockname()[1]}):
    try:
        s = socket.socket(socket.AF_INET, kind)
        s.settimeout(1)
        s.connect(('127.0.0.1', port))
        s.send(b'hostile')
        print('sent')
    except OSError as error: print('no')
try: print(socket.getaddrinfo('localhost', 80))
except OSError: print('no')
"""
        result = run(isolation, source, seconds=5.0)
        assert result.status == "ok" and result.output.startswith("no\nno\n")
        with pytest.raises(TimeoutError):
            server.accept()
        with pytest.raises(TimeoutError):
            datagrams.recv(100)


def test_other_processes_are_out_of_reach(isolation):
    victim = psutil.Popen(["sleep", "60"])
    source = f"""
import ctypes, os, signal
for process in {os.getpid()}, {victim.pid}, os.getppid(), 1, -1, 0:
    try: os.kill(process, signal.SIGKILL)
    except OSError: pass
ctypes.CDLL(None).ptrace(16, {victim.pid}, 0, 0)
"""
    with Sandbox(source, SMALL, isolation) as box:
        for _ in range(2):
            # A program may end itself that way.
            assert box.run("input", 2.0).status in ("ok", "error")
    assert victim.poll() is None and victim.status() != psutil.STATUS_STOPPED
    victim.kill()
    victim.wait()


def test_the_environment_is_empty_of_secrets(isolation, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "secret")
    result = run(isolation, "import os\nprint(sorted(os.environ))")
    assert "HF_TOKEN" not in result.output and "PATH" in result.output


def test_it_works_in_threads():
    outputs = []

    def work(number):
        with Sandbox("print(int(input()) ** 2)") as box:
            outputs.append(box.run("input", 10.0, input=str(number)).output)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outputs) == ["0\n", "1\n", "4\n", "9\n"]


def test_a_dead_sandbox_is_an_error():
    with Sandbox("print(1)") as box:
        box._process._process.kill()
        with pytest.raises(SandboxError):
            box.run("input", 1.0)


def test_no_isolation_no_programs(monkeypatch):
    monkeypatch.setattr(sandbox, "_CHILD", "/nowhere")
    usable_isolation.cache_clear()
    try:
        with pytest.raises(SandboxError, match="only run in a sandbox"):
            usable_isolation()
    finally:
        usable_isolation.cache_clear()
