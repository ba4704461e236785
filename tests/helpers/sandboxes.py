"""A program in a sandbox of its own, for the tests of sandboxes."""

import os
import shutil

import pytest

from repro_trl.evaluation import sandbox
from repro_trl.evaluation.sandbox import Limits, Sandbox, SandboxError, usable_isolation

# Programs that start children or use threads of their own are judged with these.
SMALL = Limits(memory=1 << 30, processes=16, disk=1 << 20, output=100_000)


ISOLATIONS = ["usable", pytest.param("filters", marks=pytest.mark.slow)]


def isolations(request):
    """What is used on this machine; and what would be used where namespaces are not allowed."""
    patch = pytest.MonkeyPatch()
    name = usable_isolation() if request.param == "usable" else request.param
    if name == "filters" and os.geteuid() == 0:
        # A Python in root's own folder cannot be used by the user that programs then run as; the system's can.
        patch.setattr(sandbox.sys, "executable", shutil.which("python3", path="/usr/bin:/bin") or "python3")
    try:
        with Sandbox("", isolation=name):
            pass
    except (SandboxError, OSError) as error:
        patch.undo()
        pytest.skip(f"no {name} here: {error}")
    yield name
    patch.undo()


def run(isolation, source, seconds=10.0, limits=SMALL, kind="input", **request):
    with Sandbox(source, limits, isolation) as box:
        result = box.run(kind, seconds, **request)
        # The sandbox itself is unharmed, and the next run knows nothing of the last.
        again = box.run(kind, seconds, **request)
    assert again.status == result.status
    return result
