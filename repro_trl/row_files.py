"""
Files of rows, read as they are written: numbers stay the digits that the file has, and text stays text.

A ground truth such as 12345678901234567890123 or 1.50 is text with a meaning, which a float would change. So numbers
in JSON come as `int` and as `Decimal` with all digits, and every cell of a CSV file as text.
"""

import bz2
import csv
import gzip
import io
import json
import lzma
import math
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from .command_line import first_line

if TYPE_CHECKING:
    import pyarrow

SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".arrow")
"""Formats, by the end of a file's name in any case."""
COMPRESSIONS = (".gz", ".bz2", ".xz")
"""What may stand behind the end that names a format of text."""

_BINARY = (".parquet", ".arrow")
_BY_LINE = (".jsonl", ".ndjson", ".csv", ".tsv")
# What `save_to_disk` of `datasets` leaves beside the rows.
_SAVED = {"dataset_info.json", "state.json"}
# How compressed files begin.
_MAGIC: dict[bytes, Callable[[IO[bytes]], IO[bytes]]] = {
    rb"\x1f\x8b": gzip.open,
    rb"BZh[1-9]1AY&SY": bz2.open,
    rb"\xfd7zXZ\x00": lzma.open,
}
_MAX_CELL = 1 << 30  # characters


class RowFileError(ValueError):
    """A file of rows that is missing, empty or damaged; names the file and, where there is one, the line or row."""


@dataclass(frozen=True)
class Row:
    """
    One record, by column, and where it stands: the number of its line (jsonl, csv and the like) or of the row (other
    formats), from 1.
    """

    path: Path
    number: int
    record: dict[str, Any]

    @property
    def place(self) -> str:
        """File and number, for messages."""
        return f"{self.path}, {'line' if format_of(self.path) in _BY_LINE else 'row'} {self.number}"


def is_row_file(path: Path) -> bool:
    """Whether the name is that of a format which is read here."""
    return format_of(path) is not None


def stem(path: Path) -> str:
    """The file's name without the ends that name its format."""
    suffix = format_of(path)
    return path.name if suffix is None else path.name[: path.name.lower().rindex(suffix)]


def row_files(path: str | Path) -> list[Path]:
    """
    The file itself, or the files of rows in a folder, in the order of their names; a `RowFileError` if there is none,
    or the file's format is not known.
    """
    path = Path(path)
    if path.is_dir():
        files = sorted(f for f in path.iterdir() if f.is_file() and is_row_file(f) and f.name not in _SAVED)
        if not files:
            raise RowFileError(f"{path}: the folder has no file of rows ({_known()}).")
        return files
    if not path.exists():
        raise RowFileError(f"{path}: there is no such file or folder.")
    if not is_row_file(path):
        raise RowFileError(f"{path}: its name does not end in a known format: {_known()}.")
    return [path]


def read_rows(path: str | Path) -> Iterator[Row]:
    """
    Rows of a file, or of all files of rows in a folder, one after the other.

    - JSON: integers are `int`, of any length; other numbers `Decimal`, with all digits, or `float` for NaN and
      infinities. Blank lines of a jsonl file are left out.
    - CSV and TSV: the first line names the columns; every cell is text, and an empty one `None`.
    - Parquet and Arrow: what the columns hold; columns of decimals as `Decimal`.

    Raises:
        RowFileError: a file is missing, empty or damaged, when it is reached.
    """
    for row in scan_rows(path):
        if isinstance(row, RowFileError):
            raise row
        yield row


def scan_rows(path: str | Path) -> Iterator[Row | RowFileError]:
    """
    As `read_rows`, but it goes on: what cannot be read comes as the error in its place. That is a line, or all that
    follows in a file that is cut off, or a whole file. Only where there is no file of rows a `RowFileError` is raised.
    """
    for file in row_files(path):
        yield from _scan_file(file)


def as_text(value: Any) -> str | None:
    """
    A value of a row as text: a number in the digits that the file has, `None` for an empty cell and NaN. A `TypeError`
    for a value that has no one form as text (a list, an object, true and false).
    """
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal)):
        raise TypeError(f"{value!r} ({type(value).__name__}) is neither text nor a number.")
    if isinstance(value, int):
        return str(Decimal(value))  # which has no limit on digits, unlike `str(value)`
    if not math.isfinite(value):
        return None
    # Through Decimal: repr writes small and large numbers as 1e-07 and 1e+22. `normalize` would cut its digits.
    digits = format(value if isinstance(value, Decimal) else Decimal(repr(value)), "f")
    return digits.removesuffix(".0")


def plain_numbers(value: Any) -> Any:
    """The value with `Decimal` as `float`, in lists and objects too, for what wants Python's usual numbers."""
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, list):
        return [plain_numbers(item) for item in value]
    if isinstance(value, dict):
        return {key: plain_numbers(item) for key, item in value.items()}
    return value


def parse_json(text: str, place: str) -> Any:
    """
    What a text holds as JSON, its numbers with all digits (see `read_rows`); else a `RowFileError` that begins with
    the place.
    """
    try:
        return json.loads(text, parse_int=whole_number, parse_float=Decimal)
    except RecursionError as error:
        raise RowFileError(f"{place}: it is nested too deeply.") from error
    except json.JSONDecodeError as error:
        raise RowFileError(f"{place}: it is not JSON: {error.msg} at character {error.pos + 1}.") from error


def whole_number(digits: str) -> int:
    """`int` of any number of digits, which Python limits in a text and `Decimal` does not."""
    return int(digits) if len(digits) <= 4000 else int(Decimal(digits))


def json_text(value: Any) -> str:
    """
    A value as JSON, its numbers with all the digits that `parse_json` reads. A `TypeError` if JSON has no form for it,
    a `RecursionError` if it is nested too deeply.
    """
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)}: {json_text(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(json_text, value)) + "]"
    if isinstance(value, (int, Decimal)) and not isinstance(value, bool):
        return str(Decimal(value))  # see `as_text`
    return json.dumps(value)


def format_of(path: Path) -> str | None:
    """Which of `SUFFIXES` a file's name ends in, with or without a compression; `None` for none."""
    name = path.name.lower()
    plain = next((name.removesuffix(ending) for ending in COMPRESSIONS if name.endswith(ending)), name)
    suffix = next((suffix for suffix in SUFFIXES if plain.endswith(suffix)), None)
    return None if suffix in _BINARY and plain != name else suffix


def _known() -> str:
    text = [suffix for suffix in SUFFIXES if suffix not in _BINARY]
    return f"{', '.join(text)} (also with {' or '.join(COMPRESSIONS)}), {' or '.join(_BINARY)}"


def _scan_file(path: Path) -> Iterator[Row | RowFileError]:
    count = 0
    try:
        if path.stat().st_size == 0:
            raise RowFileError(f"{path} is empty.")
        for number, record in _READERS[format_of(path)](path):
            count += 1
            yield record if isinstance(record, RowFileError) else Row(path, number, record)
        if count == 0:
            raise RowFileError(f"{path} has no rows.")
    except RowFileError as error:
        yield error
    except UnicodeDecodeError as error:
        yield RowFileError(f"{path}: it is not text in UTF-8 ({error.reason} after {count} rows).")
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        yield RowFileError(f"{path}: it cannot be read, after {count} rows: {reason}.")


def _open(path: Path) -> IO[bytes]:
    """The file, uncompressed where it is compressed, whatever its name says."""
    file = path.open("rb")
    try:
        begin = file.peek(10)
    except OSError:
        file.close()
        raise
    opener = next((opener for magic, opener in _MAGIC.items() if re.match(magic, begin)), None)
    return file if opener is None else opener(file)


def _text(path: Path, newline: str | None = None) -> IO[str]:
    """The file as text, without a byte order mark."""
    return io.TextIOWrapper(_open(path), encoding="utf-8-sig", newline=newline)


def _read_jsonl(path: Path) -> Iterator[tuple[int, dict[str, Any] | RowFileError]]:
    with _open(path) as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                place = f"{path}, line {number}"
                try:
                    yield number, _record(parse_json(line.decode("utf-8-sig"), place), place)
                except UnicodeDecodeError as error:
                    yield number, RowFileError(f"{place}: it is not text in UTF-8 (byte {error.start + 1}).")
                except RowFileError as error:
                    yield number, error


def _read_json(path: Path) -> Iterator[tuple[int, dict[str, Any] | RowFileError]]:
    with _text(path) as file:
        text = file.read()
    try:
        rows = parse_json(text, str(path))
    except RowFileError:
        # Files with one object a line are called .json as well.
        if "\n{" not in text.strip():
            raise
        yield from _read_jsonl(path)
        return
    if isinstance(rows, dict):
        columns = list(rows.values())
        if not (rows and all(isinstance(column, list) for column in columns)):
            rows = [rows]
        elif len(rows) == 1 and all(isinstance(row, dict) for row in columns[0]):
            rows = columns[0]  # a list of rows under a name
        elif len({len(column) for column in rows.values()}) == 1:
            rows = [dict(zip(rows, cells, strict=True)) for cells in zip(*rows.values(), strict=True)]
        else:
            raise RowFileError(f"{path}: its columns differ in length.")
    if not isinstance(rows, list):
        raise RowFileError(f"{path}: a json file must be a list of rows.")
    for number, row in enumerate(rows, start=1):
        try:
            yield number, _record(row, f"{path}, row {number}")
        except RowFileError as error:
            yield number, error


def _record(row: Any, place: str) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise RowFileError(f"{place}: a row must be an object with columns, but this is {_kind(row)}.")
    return row


def _kind(value: Any) -> str:
    names = {list: "a list", str: "text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def _read_csv(path: Path, delimiter: str = ",") -> Iterator[tuple[int, dict[str, Any] | RowFileError]]:
    with _text(path, newline="") as file:
        csv.field_size_limit(max(csv.field_size_limit(), _MAX_CELL))  # 128 KiB by default
        reader = csv.reader(file, strict=True, delimiter=delimiter)
        try:
            columns = next(reader, [])
            if len(set(columns)) < len(columns):
                raise RowFileError(f"{path}, line 1: these columns have the same name: {columns}.")
            line = reader.line_num + 1
            for cells in reader:
                if cells and len(cells) != len(columns):
                    yield line, RowFileError(f"{path}, line {line}: {len(cells)} cells, but {len(columns)} columns.")
                elif cells:
                    yield line, {name: cell or None for name, cell in zip(columns, cells, strict=True)}
                line = reader.line_num + 1
        except csv.Error as error:
            kind = format_of(path).removeprefix(".").upper()
            raise RowFileError(f"{path}, line {reader.line_num}: it is not {kind}: {error}.") from error


def _read_table(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    import pyarrow

    number = 0
    try:
        for batch in _batches(path):
            for record in batch.to_pylist():
                number += 1
                yield number, record
    except (pyarrow.ArrowException, OSError) as error:
        reason = first_line(error).rstrip(".")
        kind = format_of(path).removeprefix(".")
        raise RowFileError(f"{path}: it cannot be read as {kind}, after {number} rows: {reason}.") from error


def _batches(path: Path) -> Iterator["pyarrow.RecordBatch"]:
    import pyarrow.ipc
    import pyarrow.parquet

    if format_of(path) == ".parquet":
        with pyarrow.parquet.ParquetFile(path) as file:
            yield from file.iter_batches()
        return
    with path.open("rb") as file:  # of either of Arrow's formats; `datasets` writes the one for streams
        if not file.peek(6).startswith(b"ARROW1"):
            yield from pyarrow.ipc.open_stream(file)
            return
        reader = pyarrow.ipc.open_file(file)
        yield from map(reader.get_batch, range(reader.num_record_batches))


_READERS: dict[str, Callable[[Path], Iterator[tuple[int, dict[str, Any] | RowFileError]]]] = {
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
    ".json": _read_json,
    ".csv": _read_csv,
    ".tsv": partial(_read_csv, delimiter="\t"),
    ".parquet": _read_table,
    ".arrow": _read_table,
}
