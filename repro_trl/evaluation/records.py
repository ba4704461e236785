"""
What an evaluation writes, and how an interrupted one goes on.

Every process appends to files of its own, below `work/` in the output folder; a line that was cut off is dropped and
its work done again. When all work on a task is done, the main process merges the lines, in the order of problems and
samples, into one file that does not show how often or by how many processes it was written.
"""

import dataclasses
import fcntl
import json
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T", "Sample", "Verdict", "Record")

Key = tuple[str, int]
"""Problem and number of the sample."""


@dataclass(frozen=True)
class Sample:
    """
    One completion and what its text tells.

    Attributes:
        problem: the problem's id in its task.
        sample: number of the completion, from 0.
        completion: generated text, without special tokens.
        completion_tokens: with the end-of-sequence token.
        thinking_tokens: up to and with the end-of-thinking marker; all of them where there is none.
        segments: of the thought, blank ones not counted.
        backtracks: segments that turn back.
        truncated: whether the token limit came before an end-of-sequence token.
    """

    problem: str
    sample: int
    completion: str
    completion_tokens: int
    thinking_tokens: int
    segments: int
    backtracks: int
    truncated: bool


@dataclass(frozen=True)
class Verdict:
    """
    What the verifier said of one completion.

    Attributes:
        problem, sample: which completion.
        outcome: "right", "wrong", "no answer" (none found in the completion), "timeout" or "failure" (the verifier ran
            out of time, or broke); for programs also how they failed, such as "error", "time limit" or "memory limit".
        vote: the answer in the form in which samples are compared; `None` where there is none.
        detail: one line on a failure.
    """

    problem: str
    sample: int
    outcome: str
    vote: str | None = None
    detail: str = ""


@dataclass(frozen=True)
class Record(Sample):
    """A completion with its verdict: one line of the final file."""

    outcome: str
    vote: str | None
    detail: str

    @property
    def right(self) -> bool:
        return self.outcome == "right"


def join(sample: Sample, verdict: Verdict) -> Record:
    """The record of a completion and its verdict."""
    return Record(**dataclasses.asdict(sample), outcome=verdict.outcome, vote=verdict.vote, detail=verdict.detail)


class Part:
    """
    The lines of one kind and one process: `work/<task>/<kind>-<process>.jsonl`. A context manager, in which no other
    process writes them: one that was left behind when its launcher was killed is waited for.
    """

    def __init__(self, folder: Path, kind: str, process: int) -> None:
        self.path = folder / f"{kind}-{process}.jsonl"

    def __enter__(self) -> "Part":
        self._file = self.path.open("ab+")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"{self.path}: another process still writes here; waiting for it to end.", file=sys.stderr)
            fcntl.flock(self._file, fcntl.LOCK_EX)
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def append(self, items: Iterable[Sample | Verdict]) -> None:
        """Write lines that are on disk when this returns; a line that was cut off before is removed first."""
        self._file.truncate(_whole_lines(self._file))
        self._file.write("".join(_line(item) for item in items).encode())
        self._file.flush()
        os.fsync(self._file.fileno())


def _whole_lines(file: Any) -> int:
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


def _line(item: Any) -> str:
    return json.dumps(dataclasses.asdict(item), ensure_ascii=False) + "\n"


def read_parts(folder: Path, kind: str, item_type: type[T]) -> dict[Key, T]:
    """
    What all processes wrote, of every earlier run too. Of an item that was written twice the first is taken.

    Raises:
        ValueError: a whole line that is none of ours, with its file.
    """
    items: dict[Key, T] = {}
    for path in sorted(folder.glob(f"{kind}-*.jsonl")):
        for item in read_items(path, item_type):
            items.setdefault((item.problem, item.sample), item)
    return items


def read_items(path: Path, item_type: type[T]) -> Iterator[T]:
    """
    The whole lines of a file.

    Raises:
        ValueError: a whole line that is none of ours, with its file and number.
    """
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return
            try:
                yield item_type(**json.loads(line))
            except (ValueError, TypeError) as error:
                raise ValueError(
                    f"{path}, line {number} was not written by this program ({error}): remove the file to do its work "
                    "again, or choose another output_dir."
                ) from error


def write_records(path: Path, records: Iterable[Record]) -> None:
    """Write the final file whole or not at all."""
    write_atomically(path, "".join(_line(record) for record in records))


def write_atomically(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(path)


def check_settings(path: Path, settings: dict[str, Any]) -> None:
    """
    Write the settings of a run, or hold them against those of the run that is to be continued.

    Raises:
        ValueError: they differ, with the names of those that do.
    """
    # As they will be read back: tuples become lists.
    settings = json.loads(json.dumps(settings))
    if not path.exists():
        write_atomically(path, json.dumps(settings, indent=2, ensure_ascii=False) + "\n")
        return
    earlier = json.loads(path.read_text(encoding="utf-8"))
    different = sorted(name for name in earlier.keys() | settings.keys() if earlier.get(name) != settings.get(name))
    if different:
        changes = ", ".join(f"{name}: {earlier.get(name)!r} then, {settings.get(name)!r} now" for name in different)
        raise ValueError(
            f"{path.parent} holds an evaluation with other settings ({changes}). Choose another output_dir, or give "
            "the same settings to go on with it."
        )
