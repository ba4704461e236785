"""
Files of lines that survive what happens to long runs: one writer at a time, whole lines only, on disk when `append`
returns. A run that is started again finds what was done, and loses at most a line that was cut off.
"""

import fcntl
import json
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from .output_files import atomic_path


def as_line(record: dict[str, Any]) -> bytes:
    """A record as one line of a jsonl file."""
    return json.dumps(record, ensure_ascii=False).encode() + b"\n"


class JsonlWriter:
    """
    Appends to a jsonl file, which is made if there is none. A context manager, in which no other process writes the
    file; what a former run left of a line is removed when it is entered. Another process that writes is waited for,
    with a notice, or else (`wait` false) there is a `ValueError`. An `OSError` names the file that cannot be written;
    what was appended before is kept.
    """

    def __init__(self, path: Path, wait: bool) -> None:
        self.path, self._wait = path, wait

    def __enter__(self) -> "JsonlWriter":
        # Without a buffer: one that could not be written to a full disk would be tried again when it is closed.
        self._file = self.path.open("ab+", buffering=0)
        try:
            lock(self._file, self.path, self._wait)
            self._size = _whole_lines(self._file)
            self._file.truncate(self._size)
        except BaseException:
            self._file.close()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    @property
    def is_empty(self) -> bool:
        """Whether the file holds no line."""
        return self._size == 0

    def append(self, lines: Iterable[bytes]) -> None:
        """Write whole lines, each with its line break. On an error none of them is kept."""
        data = memoryview(b"".join(lines))
        try:
            while data:
                data = data[self._file.write(data) :]
            os.fsync(self._file.fileno())
        except BaseException as error:
            self._file.truncate(self._size)
            if isinstance(error, OSError):
                error.filename = str(self.path)
            raise
        self._size = self._file.seek(0, os.SEEK_END)

    def clear(self) -> None:
        """Remove all lines."""
        self._file.truncate(0)
        self._size = 0


def lock(file: Any, path: Path, wait: bool) -> None:
    """
    Keep other processes from an open file, until it is closed or this process ends in whatever way. If another process
    holds it, wait, or raise a `ValueError`.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        if not wait:
            raise ValueError(
                f"{path}: another process is writing to it. Wait for it to end, or name another file."
            ) from None
        print(f"{path}: another process is still writing here; waiting for it to end.", file=sys.stderr)
        fcntl.flock(file, fcntl.LOCK_EX)


def read_whole_lines(file: BinaryIO) -> Iterator[bytes]:
    """The lines of a file from its beginning, but not one that was cut off."""
    for line in file:
        if line.endswith(b"\n"):
            yield line


def write_atomically(path: Path, text: str) -> None:
    """Write a file whole or not at all, and to the disk before this returns; see `atomic_path`."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(text.encode())
        file.flush()
        os.fsync(file.fileno())


def read_object(path: Path, hint: str) -> dict[str, Any]:
    """The JSON object that a file holds; a `ValueError` if it holds none, with the hint what to do."""
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({error}). {hint}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path} is damaged (not a JSON object). {hint}")
    return value


def _whole_lines(file: BinaryIO) -> int:
    """Bytes up to and with the last line break."""
    end = file.seek(0, os.SEEK_END)
    while end > 0:
        start = max(0, end - 65536)
        file.seek(start)
        position = file.read(end - start).rfind(b"\n")
        if position >= 0:
            return start + position + 1
        end = start
    return 0
