"""Files of lines: one writer at a time, whole lines, nothing half written."""

import errno
import os
import subprocess
import sys

import pytest

from repro_trl.jsonl import JsonlWriter, as_line, read_object, read_whole_lines, write_atomically


def lines(path):
    with path.open("rb") as file:
        return list(read_whole_lines(file))


def test_lines_are_appended_and_one_that_was_cut_off_is_removed(tmp_path):
    path = tmp_path / "out.jsonl"
    with JsonlWriter(path, wait=False) as writer:
        assert writer.is_empty
        writer.append([as_line({"a": "é\u2028\n"}), as_line({"a": 2})])
        writer.append([])
    whole = path.read_bytes()
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        done = whole[:cut].count(b"\n")
        assert len(lines(path)) == done
        with JsonlWriter(path, wait=False) as writer:
            assert writer.is_empty == (done == 0)
            writer.append(whole.splitlines(keepends=True)[done:])
        assert path.read_bytes() == whole
    path.write_bytes(b"x" * 200_000)  # longer than what is read at a time, without a line break
    with JsonlWriter(path, wait=False):
        assert path.read_bytes() == b""
    with JsonlWriter(path, wait=False) as writer:
        writer.append([b"1\n"])
        writer.clear()
        assert writer.is_empty and path.read_bytes() == b""


@pytest.mark.parametrize("left", [0, 1, 5, 8])
def test_what_finds_no_room_is_not_kept_in_part(tmp_path, monkeypatch, left):
    path = tmp_path / "out.jsonl"

    class SmallDisk:
        def __init__(self, file):
            self.file, self.left = file, left

        def write(self, data):
            if self.left == 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            written = self.file.write(data[: min(self.left, 3)])  # the system may write less than it is given
            self.left -= written
            return written

        def __getattr__(self, name):
            return getattr(self.file, name)

    with JsonlWriter(path, wait=False) as writer:
        writer.append([b"first\n"])
        whole, writer._file = writer._file, SmallDisk(writer._file)
        with pytest.raises(OSError, match=r"No space left on device: .*out\.jsonl"):
            writer.append([b"second\n", b"third\n"])
        assert path.read_bytes() == b"first\n"
        writer._file = whole
        writer.append([b"second\n"])
    assert path.read_bytes() == b"first\nsecond\n"


def test_a_second_process_is_refused_until_the_first_ends(tmp_path):
    path = tmp_path / "out.jsonl"
    program = f"import sys; from pathlib import Path; from repro_trl.jsonl import JsonlWriter\n\
with JsonlWriter(Path({str(path)!r}), wait=False) as w: w.append([b'x\\n']); print('in', flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        with pytest.raises(ValueError, match=r"out\.jsonl: another process is writing to it"):
            JsonlWriter(path, wait=False).__enter__()
        other.kill()  # the lock of a process that was killed is gone
    with JsonlWriter(path, wait=False) as writer:
        assert not writer.is_empty


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "results.json"
    write_atomically(path, "first é")

    def full(file):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device: .*results\.json"):
        write_atomically(path, "second")
    assert path.read_text() == "first é" and os.listdir(tmp_path) == ["results.json"]


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff{}", b"[" * 100_000, b"null"])
def test_an_object_that_is_damaged_is_named(tmp_path, content):
    path = tmp_path / "settings.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"settings\.json is damaged .*Do it again\."):
        read_object(path, "Do it again.")
