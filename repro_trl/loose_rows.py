"""Rows of local files, read alike by every command: jsonl, json, csv, parquet, also compressed, and folders."""

import bz2
import csv
import gzip
import json
import lzma
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

_COMPRESSIONS: dict[str, Callable[..., IO[bytes]]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}


@dataclass(frozen=True)
class UnreadableRow:
    """What stands in a file in the place of a row, and why it is none."""

    reason: str


def is_row_file(path: Path) -> bool:
    """Whether the name of a file is that of one with rows."""
    return _kind(path) in _READERS


def row_files(source: Path) -> list[Path]:
    """
    The files that a path stands for: itself, or the files with rows that lie in the folder, by name.

    Raises:
        ValueError: there is no such path, the folder has no such file, or the file has another suffix.
    """
    if source.is_dir():
        files = sorted(file for file in source.iterdir() if file.is_file() and is_row_file(file))
        if not files:
            raise ValueError(f"{source}: no file in this folder ends in {_SUFFIXES}.")
        return files
    if not source.exists():
        raise ValueError(f"{source}: there is no such file or folder.")
    if not is_row_file(source):
        raise ValueError(f"{source}: give a file that ends in {_SUFFIXES}, or one of these with .gz, .bz2 or .xz.")
    return [source]


def read_rows(file: Path) -> Iterator[tuple[int, Any]]:
    """
    The rows of a file, one after the other, with their numbers from 1: lines of a jsonl file, else rows.

    A line that holds no row comes as an `UnreadableRow`, and so does what is missing where the file is cut off.
    Numbers keep all their digits; fields of a csv file are text.

    Raises:
        ValueError: the file as a whole cannot be read, with its name.
    """
    with _open(file) as stream:
        yield from _READERS[_kind(file)](file, stream)


def _kind(file: Path) -> str:
    suffixes = [suffix.lower() for suffix in file.suffixes]
    if suffixes and suffixes[-1] in _COMPRESSIONS:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def _open(file: Path) -> IO[bytes]:
    return _COMPRESSIONS.get(file.suffix.lower(), open)(file, "rb")


def _lines(stream: IO[bytes]) -> Iterator[bytes | UnreadableRow]:
    try:
        yield from stream
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        yield UnreadableRow(f"the compressed file is damaged from here on ({error})")


def _read_jsonl(file: Path, stream: IO[bytes]) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(_lines(stream), start=1):
        if isinstance(line, UnreadableRow):
            yield number, line
        elif line.strip():
            yield number, _record(line)


def _record(line: bytes) -> Any:
    try:
        return json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        return UnreadableRow(f"not UTF-8 (byte {error.start + 1})")
    except (ValueError, RecursionError) as error:
        return UnreadableRow(f"not JSON ({error})")


def _read_json(file: Path, stream: IO[bytes]) -> Iterator[tuple[int, Any]]:
    try:
        records = json.loads(stream.read().decode("utf-8-sig"))
    except (ValueError, RecursionError, EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise ValueError(f"{file}: not JSON ({error}).") from error
    if not isinstance(records, list):
        raise ValueError(f"{file}: a json file must hold a list of rows. One object a line is a jsonl file.")
    yield from enumerate(records, start=1)


def _read_csv(file: Path, stream: IO[bytes]) -> Iterator[tuple[int, Any]]:
    damage: list[UnreadableRow] = []

    def lines() -> Iterator[str]:
        for number, line in enumerate(_lines(stream), start=1):
            if isinstance(line, UnreadableRow):
                damage.append(line)
                return
            try:
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise ValueError(f"{file}, line {number}: not UTF-8 (byte {error.start + 1}).") from error

    csv.field_size_limit(2**31 - 1)  # a thought is longer than the usual limit
    rows = csv.DictReader(lines(), strict=True)
    number = 0
    try:
        for number, row in enumerate(rows, start=1):
            fits = None not in row and None not in row.values()
            yield (
                number,
                row if fits else UnreadableRow(f"it has not as many fields as the head, {len(rows.fieldnames)}"),
            )
    except csv.Error as error:
        yield number + 1, UnreadableRow(f"no csv from here on ({error})")
    yield from ((number + 1, row) for row in damage)


def _read_parquet(file: Path, stream: IO[bytes]) -> Iterator[tuple[int, Any]]:
    import pyarrow.parquet

    number = 0
    try:
        for batch in pyarrow.parquet.ParquetFile(stream).iter_batches(batch_size=256):
            for record in batch.to_pylist():
                number += 1
                yield number, record
    except (pyarrow.ArrowException, OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        if number == 0:
            raise ValueError(f"{file}: cannot be read as a parquet file ({error}).") from error
        yield number + 1, UnreadableRow(f"the parquet file is damaged from here on ({error})")


_READERS: dict[str, Callable[[Path, IO[bytes]], Iterator[tuple[int, Any]]]] = {
    ".jsonl": _read_jsonl,
    ".json": _read_json,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
}
_SUFFIXES = ", ".join(_READERS)
