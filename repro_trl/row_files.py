"""
Files of rows, read as they are written: numbers stay the digits that the file has, and text stays text.

A ground truth such as 12345678901234567890123 or 1.50 is text with a meaning, which a float would change. So numbers
in JSON come as `int` and as `Decimal` with all digits, and every cell of a CSV file as text.
"""

import csv
import gzip
import io
import json
import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import IO, Any

SUFFIXES = (".jsonl", ".json", ".csv", ".parquet")
"""Formats, by the end of a file's name in any case; those of text also with `.gz` behind."""

_MAX_CELL = 1 << 30  # characters


class RowFileError(ValueError):
    """A file of rows that is missing, empty or damaged; names the file and, where there is one, the line or row."""


@dataclass(frozen=True)
class Row:
    """
    One record and where it stands.

    Attributes:
        path: of its file.
        number: of its line (jsonl, csv) or of the row (json, parquet), from 1.
        record: by column.
    """

    path: Path
    number: int
    record: dict[str, Any]

    @property
    def place(self) -> str:
        """File and number, for messages."""
        return f"{self.path}, {'line' if _format(self.path) in ('.jsonl', '.csv') else 'row'} {self.number}"


def is_row_file(path: Path) -> bool:
    """Whether the name is that of a format which is read here."""
    return _format(path) is not None


def stem(path: Path) -> str:
    """The file's name without the ends that name its format."""
    suffix = _format(path)
    return path.name if suffix is None else path.name[: path.name.lower().rindex(suffix)]


def row_files(path: str | Path) -> list[Path]:
    """
    The file itself, or the files of rows in a folder, in the order of their names.

    Raises:
        RowFileError: there is none, or the file's format is not known.
    """
    path = Path(path)
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.is_file() and is_row_file(file))
        if not files:
            raise RowFileError(f"{path}: the folder holds no file of rows ({_known()}).")
        return files
    if not path.exists():
        raise RowFileError(f"{path}: there is no such file or folder.")
    if not is_row_file(path):
        raise RowFileError(f"{path}: its format is not known by its name: {_known()}.")
    return [path]


def read_rows(path: str | Path) -> Iterator[Row]:
    """
    Rows of a file, or of all files of rows in a folder, one after the other.

    - JSON: integers are `int`, of any length; other numbers `Decimal`, with all digits, or `float` for NaN and
      infinities. Blank lines of a jsonl file are left out.
    - CSV: the first line names the columns; every cell is text, and an empty one `None`.
    - Parquet: what the columns hold; columns of decimals as `Decimal`.

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
    follows in a file that is cut off, or a whole file.

    Raises:
        RowFileError: there is no file of rows.
    """
    for file in row_files(path):
        yield from _scan_file(file)


def as_text(value: Any) -> str | None:
    """
    A value of a row as text: a number in the digits that the file has, `None` for an empty cell and NaN.

    Raises:
        TypeError: a value that has no one form as text (a list, an object, true and false).
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
    """The value with `Decimal` as `int` or `float`, in lists and objects too, for what wants JSON's usual numbers."""
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, list):
        return [plain_numbers(item) for item in value]
    if isinstance(value, dict):
        return {key: plain_numbers(item) for key, item in value.items()}
    return value


def _format(path: Path) -> str | None:
    name = path.name.lower()
    plain = name.removesuffix(".gz")
    suffix = next((suffix for suffix in SUFFIXES if plain.endswith(suffix)), None)
    return None if suffix == ".parquet" and plain != name else suffix


def _known() -> str:
    return f"{', '.join(SUFFIXES)}; with .gz behind too, but for parquet"


def _scan_file(path: Path) -> Iterator[Row | RowFileError]:
    readers = {".jsonl": _read_jsonl, ".json": _read_json, ".csv": _read_csv, ".parquet": _read_parquet}
    count = 0
    try:
        if path.stat().st_size == 0:
            raise RowFileError(f"{path} is empty.")
        for number, record in readers[_format(path)](path):
            count += 1
            yield record if isinstance(record, RowFileError) else Row(path, number, record)
        if count == 0:
            raise RowFileError(f"{path} holds no rows.")
    except RowFileError as error:
        yield error
    except UnicodeDecodeError as error:
        yield RowFileError(f"{path}: it is not text in UTF-8 ({error.reason} after {count} rows).")
    except (OSError, EOFError, zlib.error) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        yield RowFileError(f"{path}: it cannot be read, after {count} rows: {reason}.")


def _open(path: Path) -> IO[bytes]:
    """The file, whatever is compressed."""
    file = path.open("rb")
    try:
        gzipped = file.peek(2)[:2] == b"\x1f\x8b"
    except OSError:
        file.close()
        raise
    return gzip.open(file) if gzipped else file


def _text(path: Path, newline: str | None = None) -> IO[str]:
    """The file as text, without a byte order mark."""
    return io.TextIOWrapper(_open(path), encoding="utf-8-sig", newline=newline)


def _read_jsonl(path: Path) -> Iterator[tuple[int, dict[str, Any] | RowFileError]]:
    with _open(path) as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                place = f"{path}, line {number}"
                try:
                    yield number, _record(_parse(line.decode("utf-8-sig"), place), place)
                except UnicodeDecodeError as error:
                    yield number, RowFileError(f"{place}: it is not text in UTF-8 (byte {error.start + 1}).")
                except RowFileError as error:
                    yield number, error


def _read_json(path: Path) -> Iterator[tuple[int, dict[str, Any] | RowFileError]]:
    with _text(path) as file:
        text = file.read()
    try:
        rows = _parse(text, str(path))
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
            raise RowFileError(f"{path}: its columns are of different lengths.")
    if not isinstance(rows, list):
        raise RowFileError(f"{path}: a json file must hold a list of rows.")
    for number, row in enumerate(rows, start=1):
        try:
            yield number, _record(row, f"{path}, row {number}")
        except RowFileError as error:
            yield number, error


def _parse(text: str, place: str) -> Any:
    try:
        return json.loads(text, parse_int=_whole_number, parse_float=Decimal)
    except RecursionError as error:
        raise RowFileError(f"{place}: it is nested too deeply.") from error
    except json.JSONDecodeError as error:
        raise RowFileError(f"{place}: it is not JSON: {error.msg} at character {error.pos + 1}.") from error


def _whole_number(digits: str) -> int:
    # Python limits the digits of `int(text)`; Decimal has no such limit.
    return int(digits) if len(digits) <= 4000 else int(Decimal(digits))


def _record(row: Any, place: str) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise RowFileError(f"{place}: a row must be an object with columns, this is {_kind(row)}.")
    return row


def _kind(value: Any) -> str:
    names = {list: "a list", str: "text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def _read_csv(path: Path) -> Iterator[tuple[int, dict[str, Any] | RowFileError]]:
    with _text(path, newline="") as file:
        csv.field_size_limit(max(csv.field_size_limit(), _MAX_CELL))  # 128 KiB by default
        reader = csv.reader(file, strict=True)
        try:
            columns = next(reader, [])
            if len(set(columns)) < len(columns):
                raise RowFileError(f"{path}, line 1: columns have the same name: {columns}.")
            line = reader.line_num + 1
            for cells in reader:
                if cells and len(cells) != len(columns):
                    yield line, RowFileError(f"{path}, line {line}: {len(cells)} cells, but {len(columns)} columns.")
                elif cells:
                    yield line, {name: cell or None for name, cell in zip(columns, cells, strict=True)}
                line = reader.line_num + 1
        except csv.Error as error:
            raise RowFileError(f"{path}, line {reader.line_num}: it is not CSV: {error}.") from error


def _read_parquet(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches():
                for record in batch.to_pylist():
                    number += 1
                    yield number, record
    except (pyarrow.ArrowException, OSError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise RowFileError(f"{path}: it cannot be read as parquet, after {number} rows: {reason}.") from error
