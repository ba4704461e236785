"""Programs run as an interpreter would run them: standard input in every form, threads, exits, long integers."""

import pytest
from sandboxes import ISOLATIONS, isolations, run

isolation = pytest.fixture(isolations, scope="module", params=ISOLATIONS)


FAST_INPUT = """
from io import BytesIO, IOBase
import os, sys

class FastIO(IOBase):
    def __init__(self, file):
        self.fd = file.fileno()
        self.buffer = BytesIO()
        self.writable = "x" in file.mode or "r" not in file.mode

    def read(self):
        return os.read(self.fd, 1 << 16)

assert FastIO(sys.stdout).writable
print(sum(map(int, FastIO(sys.stdin).read().split())))
"""


@pytest.mark.parametrize(
    ("source", "output"),
    [
        (
            "import threading, time\ndef f():\n    time.sleep(0.2)\n    print(input())\n"
            "threading.Thread(target=f).start()",
            "7\n",
        ),
        (
            "import threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()\nprint(1)",
            "1\n",
        ),
        (
            "import sys, threading\nsys.setrecursionlimit(10**6)\nthreading.stack_size(1 << 27)\n"
            "def f(n): return n and 1 + f(n - 1)\nthreading.Thread(target=lambda: print(f(10000))).start()",
            "10000\n",
        ),
        ("import atexit\natexit.register(print, 'last')\nprint('first')", "first\nlast\n"),
        ("class A:\n    def __del__(self): print('deleted')\na = A()\nprint(1)", "1\ndeleted\n"),
        ("import os\nprint(1)\nos._exit(0)", "1\n"),
        ("import os\nprint(1)\nif os.fork() == 0: os._exit(0)\nos.wait()", "1\n"),
        ("import sys\nprint(1)\nsys.exit()", "1\n"),
        ("print(1)\nquit()", "1\n"),
        ("print(1)\nraise SystemExit(0)", "1\n"),
        ("def main():\n    print(__name__)\nif __name__ == '__main__':\n    main()", "__main__\n"),
    ],
)
def test_scripts_end_as_in_an_interpreter(isolation, source, output):
    result = run(isolation, source, input="7\n")
    assert (result.status, result.output) == ("ok", output)


@pytest.mark.parametrize(
    "source",
    [
        "import sys\ninput = sys.stdin.readline\nprint(int(input()) + int(input()))",
        "import sys\nprint(sum(map(int, sys.stdin)))",
        "import sys\nprint(sum(map(int, sys.stdin.buffer.read().split())))",
        "import sys\nprint(sum(map(int, sys.stdin.buffer.readlines())))",
        "print(sum(map(int, open(0))))",
        "print(sum(map(int, open('/dev/stdin'))))",
        "with open('/dev/stdin', 'rb') as file: print(sum(map(int, file)))",
        "import os\nprint(sum(map(int, os.read(0, os.fstat(0).st_size).split())))",
        "import fileinput\nprint(sum(map(int, fileinput.input())))",
        "import io, os\ninput = io.BytesIO(os.read(0, os.fstat(0).st_size)).readline\n"
        "print(int(input()) + int(input()))",
        "import sys\nsys.stdin = open(sys.stdin.fileno(), sys.stdin.mode)\nprint(sum(map(int, sys.stdin)))",
        "import sys\nsys.stdout = open(sys.stdout.fileno(), sys.stdout.mode)\nprint(int(input()) + int(input()))",
        "import sys\nsys.__stdout__.write(str(sum(map(int, sys.__stdin__))) + '\\n')",
        FAST_INPUT,
    ],
)
def test_every_way_to_read_standard_input(isolation, source):
    result = run(isolation, source, input="3\n4\n")
    assert (result.status, result.output, result.detail) == ("ok", "7\n", "")


def test_integers_of_many_digits(isolation):
    result = run(isolation, "print(len(str(int(input()) * 10)))", input="1" * 20000)
    assert (result.status, result.output) == ("ok", "20001\n")


def test_classes_are_found_by_the_name_of_their_module(isolation):
    source = (
        "from __future__ import annotations\nfrom dataclasses import dataclass\nimport pickle\n"
        "@dataclass\nclass Pair:\n    x: int\n    y: int\n"
        "def f(): return pickle.loads(pickle.dumps(Pair(1, 2))).y\n"
    )
    assert run(isolation, source, kind="call", function="f").value == 2
    assert run(isolation, source + "print(f())").output == "2\n"


def test_what_a_program_reports_by_itself_is_read_with_care(isolation):
    for report in ('{"status": "ok", "detail": "", "value": ' + "[" * 50_000, "no JSON", "[" * 500 + "]" * 500):
        source = f"import os\ndef f():\n    os.write(3, {report.encode()!r})\n    os._exit(0)"
        assert run(isolation, source, kind="call", function="f").status == "error"
    forged = '{"status": "ok", "detail": "", "value": ["dict", [1]]}'
    source = f"import os\ndef f():\n    os.write(3, {forged.encode()!r})\n    os._exit(0)"
    assert run(isolation, source, kind="call", function="f").status == "error"
