"""
What an evaluation writes, and how an interrupted one goes on.

Every process appends to files of its own, below `work/` in the output folder; a line that was cut off is dropped and
its work done again. When all work on a task is done, the main process merges the lines, in the order of problems and
samples, into one file that does not show how often or by how many processes it was written.
"""

import dataclasses
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ..jsonl import JsonlWriter, as_line, read_object, read_whole_lines, write_atomically

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
        segments, backtracks: of the thought, blank ones not counted; and those that turn back.
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
        outcome: "right", "wrong", "no answer" (none found in the completion), "timeout" or "failure" (the verifier ran
            out of time, or broke); for programs also how they failed, such as "error", "time limit" or "memory limit".
        vote: the answer in the form in which samples are compared; `None` where there is none.
        detail: one line on a failure.
        seconds: of a "timeout", the limit that it exceeded.
    """

    problem: str
    sample: int
    outcome: str
    vote: str | None = None
    detail: str = ""
    seconds: float | int | None = None

    @property
    def seconds_given(self) -> float:
        """The limit within which this verdict holds: any for one that was reached in time."""
        return (self.seconds or 0.0) if self.outcome == "timeout" else math.inf


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


def part(folder: Path, kind: str, process: int) -> JsonlWriter:
    """
    Writes the lines of one kind and one process, `work/<task>/<kind>-<process>.jsonl`. A process that was left behind
    when its launcher was killed is waited for.
    """
    return JsonlWriter(folder / f"{kind}-{process}.jsonl", wait=True)


def item_line(item: Sample | Verdict | Record) -> bytes:
    """An item as a line of its file."""
    return as_line(dataclasses.asdict(item))


def read_parts(folder: Path, kind: str, item_type: type[T]) -> dict[Key, T]:
    """
    What all processes wrote, of every earlier run too. Of a completion that was written twice the first is taken; of
    verdicts one that did not time out, or else that with the longest limit.
    """
    items: dict[Key, T] = {}
    for path in sorted(folder.glob(f"{kind}-*.jsonl")):
        for item in read_items(path, item_type):
            key = item.problem, item.sample
            if key not in items or (isinstance(item, Verdict) and item.seconds_given > items[key].seconds_given):
                items[key] = item
    return items


def read_items(path: Path, item_type: type[T]) -> Iterator[T]:
    """The whole lines of a file; a `ValueError` with file and number for one that is none of ours."""
    with path.open("rb") as file:
        for number, line in enumerate(read_whole_lines(file), start=1):
            try:
                item = item_type(**json.loads(line))
                for field in dataclasses.fields(item_type):
                    if not isinstance(getattr(item, field.name), field.type):
                        raise TypeError(f"{field.name} is {getattr(item, field.name)!r}")
            except (ValueError, TypeError, RecursionError) as error:
                raise ValueError(
                    f"{path}, line {number} was not written by this program ({error}): remove the file to redo its "
                    "work, or choose another output_dir."
                ) from error
            yield item


def read_settings(path: Path) -> dict[str, Any]:
    """The settings of an evaluation's task; a `ValueError` if the file is damaged."""
    return read_object(path, f"Remove {path.parent} to redo its work, or choose another output_dir.")


def check_settings(path: Path, settings: dict[str, Any]) -> None:
    """
    Write the settings of a run, or hold them against those of the run that is to be continued: a `ValueError` names
    what differs. Where nothing was sampled yet, as by a run that failed while it loaded the model, they are replaced.
    """
    if not path.exists() or not _has_samples(path.parent):
        write_atomically(path, json.dumps(settings, indent=2, ensure_ascii=False) + "\n")
    elif changes := _changes(path, settings):
        raise ValueError(
            f"{path.parent} has an evaluation with other settings ({changes}). Choose another output_dir, or use "
            "the same settings to resume it."
        )


def check_neighbours(work: Path, settings: dict[str, Any]) -> None:
    """
    Hold settings against those of every task in the folder `work` that has completions, for the folder's results are
    those of one model, sampled in one way: a `ValueError` names those that differ.
    """
    for path in sorted(work.glob("*/settings.json")):
        if _has_samples(path.parent) and (changes := _changes(path, settings)):
            raise ValueError(
                f"{work.parent} has an evaluation of {path.parent.name} with other settings ({changes}). "
                "Choose another output_dir, or use the same settings."
            )


def _has_samples(folder: Path) -> bool:
    """Whether a task's folder holds a completion, or the beginning of one."""
    return any(path.stat().st_size > 0 for path in folder.glob("samples-*.jsonl"))


def _changes(path: Path, settings: dict[str, Any]) -> str:
    """What differs from the settings in a file, in words; empty if nothing does."""
    earlier = read_settings(path)
    settings = json.loads(json.dumps(settings))  # tuples become lists
    changes = []
    for name, after in sorted(settings.items()):
        before = earlier.get(name)
        if before == after:
            continue
        if isinstance(before, dict) and isinstance(after, dict):
            parts = sorted(part for part in before.keys() | after.keys() if before.get(part) != after.get(part))
            changes.append(f"{name}: {', '.join(parts)} changed")
        else:
            changes.append(f"{name}: {before!r} then, {after!r} now")
    return ", ".join(changes)
