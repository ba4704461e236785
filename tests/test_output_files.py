"""Files that commands write are never there in part."""

import os
import subprocess
import sys

import pytest

from repro_trl.output_files import atomic_path


def test_what_fails_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "page.html"
    path.write_text("before")
    with pytest.raises(KeyError), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise KeyError
    assert path.read_text() == "before" and list(tmp_path.iterdir()) == [path]


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_writes_is_not(tmp_path):
    path = tmp_path / "rows[1].jsonl"
    lines = (
        "import os, sys, repro_trl.output_files as files",
        "with files.atomic_path(sys.argv[1]) as path:",
        "    path.write_text('half')",
        "    os.kill(os.getpid(), 9)",
    )
    assert subprocess.run([sys.executable, "-c", "\n".join(lines), str(path)], check=False).returncode == -9
    (left,) = tmp_path.iterdir()
    others = tmp_path / f".part-{os.getppid()}-{path.name}", tmp_path / f"{left.name}.txt"
    for other in others:
        other.write_text("half")
    with atomic_path(path) as temporary:
        temporary.write_text("whole")
    assert set(tmp_path.iterdir()) == {path, *others} and path.read_text() == "whole"
