"""Files of rows: what is read stays as it was written, and what is wrong is named with its place."""

import bz2
import gzip
import json
import lzma
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pyarrow
import pyarrow.ipc
import pyarrow.parquet
import pytest
from datasets import Dataset

from repro_trl.row_files import (
    RowFileError,
    as_text,
    is_row_file,
    json_text,
    parse_json,
    plain_numbers,
    read_rows,
    scan_rows,
    stem,
)

NUMBERS = ["12345678901234567890123", "9007199254740993", "1.50", "0.1", "-0.30", "1e-30", "7"]


def write(path, content):
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


COMPRESS = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}


def compress(name, text):
    return COMPRESS.get(Path(name).suffix.lower(), bytes)(text.encode())


def records(path):
    return [row.record for row in read_rows(path)]


LINES = '{"a": 1, "b": "x"}\n\n{"a": 2.50, "c": [1.0, null]}\n'
ROWS = [{"a": 1, "b": "x"}, {"a": Decimal("2.50"), "c": [Decimal("1.0"), None]}]


@pytest.mark.parametrize(
    "name", ["rows.jsonl", "rows.ndjson", "rows.JSONL", "rows.Jsonl.GZ", "rows.jsonl.bz2", "rows.NDJSON.XZ"]
)
def test_jsonl(tmp_path, name):
    path = write(tmp_path / name, compress(name, LINES))
    assert records(path) == ROWS
    assert [(row.path, row.number) for row in read_rows(path)] == [(path, 1), (path, 3)]
    assert [row.place for row in read_rows(path)] == [f"{path}, line 1", f"{path}, line 3"]
    assert stem(path) == "rows"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("[" + LINES.strip().replace("\n\n", ",") + "]", ROWS),
        (LINES, ROWS),  # lines, called .json
        ('{"a": [1, 2], "b": ["x", "y"]}', [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]),
        ('{"data": [{"a": 1}, {"a": 2}]}', [{"a": 1}, {"a": 2}]),
        ('{"a": 1, "b": "x"}', [{"a": 1, "b": "x"}]),
        ('\ufeff[{"a": 1}]', [{"a": 1}]),
        ('[\r\n{"a": 1}\r\n]', [{"a": 1}]),
    ],
)
def test_json(tmp_path, content, expected):
    assert records(write(tmp_path / "rows.json", content)) == expected
    for name in ("rows.JSON.gz", "rows.json.BZ2", "rows.json.xz"):
        assert records(write(tmp_path / name, compress(name, content))) == expected


def test_csv(tmp_path):
    content = 'a,b\n007,"two\nlines, ""quoted"""\n\nNone,\nTrue,1e3\nNA,nan\n'
    rows = list(read_rows(write(tmp_path / "rows.csv", content)))
    assert [row.record for row in rows] == [
        {"a": "007", "b": 'two\nlines, "quoted"'},
        {"a": "None", "b": None},
        {"a": "True", "b": "1e3"},
        {"a": "NA", "b": "nan"},
    ]
    assert [row.number for row in rows] == [2, 5, 6, 7]
    assert records(write(tmp_path / "windows.csv", "\ufeff" + content.replace("\n", "\r\n")))[2]["b"] == "1e3"
    assert len(records(write(tmp_path / "long.csv", "a\n" + "x" * 1_000_000 + "\n"))[0]["a"]) == 1_000_000


@pytest.mark.parametrize("ending", ["", *COMPRESS])
def test_csv_and_tsv_differ_in_nothing_but_the_delimiter(tmp_path, ending):
    content = 'a,b\n007,"1,2"\n\nNone,\n'
    csv, tsv = f"rows.csv{ending}", f"rows.tsv{ending}"
    rows = records(write(tmp_path / csv, compress(csv, content)))
    assert rows == [{"a": "007", "b": "1,2"}, {"a": "None", "b": None}]
    content = content.replace('"1,2"', "1;2").replace(",", "\t").replace(";", ",")
    assert records(write(tmp_path / tsv, compress(tsv, content))) == rows
    assert [row.place for row in read_rows(tmp_path / tsv)] == [f"{tmp_path / tsv}, line {n}" for n in (2, 4)]


TABLE = pyarrow.table(
    {"a": [2**53 + 1, None], "b": ["007", "None"], "c": [Decimal("1.50"), None], "d": [[1], []], "e": [0.1, 27.0]}
)


@pytest.mark.parametrize("writer", [pyarrow.ipc.new_file, pyarrow.ipc.new_stream])
def test_arrow(tmp_path, writer):
    path = tmp_path / "rows.arrow"
    with path.open("wb") as file, writer(file, TABLE.schema) as arrow:
        arrow.write_table(TABLE, max_chunksize=1)
    assert records(path) == TABLE.to_pylist()
    write(path, path.read_bytes()[: len(path.read_bytes()) // 2])
    with pytest.raises(RowFileError, match=r"rows\.arrow: it cannot be read as arrow"):
        records(path)


def test_a_folder_that_datasets_saved(tmp_path):
    Dataset.from_list([{"a": i} for i in range(5)]).save_to_disk(tmp_path / "saved", num_shards=2)
    assert records(tmp_path / "saved") == [{"a": i} for i in range(5)]


def test_parquet(tmp_path):
    path = tmp_path / "rows.parquet"
    pyarrow.parquet.write_table(TABLE, path)
    assert records(path) == TABLE.to_pylist()
    assert [row.place for row in read_rows(path)] == [f"{path}, row 1", f"{path}, row 2"]


@pytest.mark.parametrize("written", [*NUMBERS, "3" * 6000])
@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json"])
def test_numbers_keep_their_digits(tmp_path, written, name):
    path = write(
        tmp_path / name, f'[{{"a": {written}}}]' if name == "rows.json" else f'{{"a": {written}}}\n{{"a": 0.5}}'
    )
    value = records(path)[0]["a"]
    assert value == Decimal(written) and type(value) is (int if written.isdigit() else Decimal)
    assert as_text(value) == format(Decimal(written), "f")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, None),
        ("", ""),
        (" 007 ", " 007 "),
        (0, "0"),
        (-5, "-5"),
        (0.5, "0.5"),
        (27.0, "27"),
        (1e-7, "0.0000001"),
        (1e22, "10000000000000000000000"),
        (float("nan"), None),
        (float("inf"), None),
        (Decimal("1.50"), "1.50"),
        (Decimal("27.0"), "27"),
        (Decimal("1E+3"), "1000"),
        (Decimal("NaN"), None),
    ],
)
def test_values_as_text(value, text):
    assert as_text(value) == text


def test_integers_of_any_length_as_text():
    assert as_text(10**5000) == "1" + "0" * 5000


@pytest.mark.parametrize("value", [True, [1], {"a": 1}, b"x"])
def test_values_without_a_form_as_text(value):
    with pytest.raises(TypeError, match="neither text nor a number"):
        as_text(value)


def test_plain_numbers():
    value = plain_numbers({"a": [Decimal("0.5"), 1, "x"], "b": {"c": Decimal("2")}})
    assert json.dumps(value) == '{"a": [0.5, 1, "x"], "b": {"c": 2.0}}'


def test_json_keeps_all_digits():
    numbers = [*NUMBERS, "1" * 6000, "1E+400", "-0.0", "NaN", "Infinity"]
    text = '{"a": [' + ", ".join(numbers) + '], "b\\"": {"c": "\\u00e9\\ud83d", "d": [true, null]}}'
    written = json_text(parse_json(text, "here"))
    assert written == text.replace("1e-30", "1E-30")
    assert json_text({"a": (0.1, 1e22)}) == '{"a": [0.1, 1e+22]}'
    with pytest.raises(TypeError):
        json_text({"a": b"bytes"})


def test_folders(tmp_path):
    write(tmp_path / "b.jsonl", '{"n": 2}\n')
    write(tmp_path / "a.CSV", "n\n1\n")
    write(tmp_path / "c.jsonl.gz", gzip.compress(b'{"n": 3}\n'))
    write(tmp_path / "readme.md", "no rows")
    (tmp_path / "deeper").mkdir()
    rows = list(read_rows(tmp_path))
    assert [(row.path.name, row.record["n"]) for row in rows] == [("a.CSV", "1"), ("b.jsonl", 2), ("c.jsonl.gz", 3)]
    with pytest.raises(RowFileError, match="the folder has no file of rows"):
        list(read_rows(tmp_path / "deeper"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.jsonl", "", "rows.jsonl is empty"),
        ("rows.jsonl", "\n \n", "rows.jsonl has no rows"),
        ("rows.json", "[]", "rows.json has no rows"),
        ("rows.csv", "a,b\n", "rows.csv has no rows"),
        ("rows.jsonl", '{"a": 1}\n{"a": \n', "rows.jsonl, line 2: it is not JSON: Expecting value at character"),
        ("rows.jsonl", '{"a": 1}\n{"a": 1', "rows.jsonl, line 2: it is not JSON"),
        (
            "rows.jsonl",
            '{"a": 1}\n[1]\n',
            "rows.jsonl, line 2: a row must be an object with columns, but this is a list",
        ),
        ("rows.jsonl", '"text"\n', "line 1: .*this is text"),
        ("rows.jsonl", "null\n", "line 1: .*this is null"),
        ("rows.jsonl", "[" * 100_000, "line 1: it is nested too deeply"),
        ("rows.jsonl", b'{"a": 1}\n{"a": "\xff"}\n', "rows.jsonl, line 2: it is not text in UTF-8"),
        ("rows.json", '{"a": 1', "rows.json: it is not JSON"),
        ("rows.json", "3", "must be a list of rows"),
        ("rows.json", '[{"a": 1}, 2]', "rows.json, row 2: a row must be an object with columns, but this is a number"),
        ("rows.json", '{"a": [1, 2], "b": [1]}', "columns differ in length"),
        ("rows.csv", "a,b\n1,2\n1,2,3\n", "rows.csv, line 3: 3 cells, but 2 columns"),
        ("rows.csv", 'a,b\n1,"2\n', "rows.csv, line 2: it is not CSV"),
        ("rows.csv", "a,a\n1,2\n", "line 1: these columns have the same name"),
        ("rows.parquet", "no parquet", "rows.parquet: it cannot be read as parquet"),
        ("rows.jsonl.gz", gzip.compress(LINES.encode() * 1000)[:-20], "rows.jsonl.gz: it cannot be read"),
        ("rows.jsonl.gz", b"\x1f\x8bnot gzip", "rows.jsonl.gz: it cannot be read"),
        ("rows.jsonl.bz2", bz2.compress(LINES.encode() * 1000)[:-20], "rows.jsonl.bz2: it cannot be read"),
        ("rows.jsonl.bz2", b"BZh91AY&SYnot bzip2", "rows.jsonl.bz2: it cannot be read"),
        ("rows.jsonl.xz", lzma.compress(LINES.encode() * 1000)[:-20], "rows.jsonl.xz: it cannot be read"),
        ("rows.jsonl.xz", b"\xfd7zXZ\0not xz", "rows.jsonl.xz: it cannot be read"),
        ("rows.csv.xz", lzma.compress(b"a\n1\n")[:-20], "rows.csv.xz: it cannot be read"),
        ("rows.tsv", 'a\tb\n1\t"2\n', "rows.tsv, line 2: it is not TSV"),
        ("rows.arrow", "no arrow", "rows.arrow: it cannot be read as arrow"),
        ("rows.txt", "a", "rows.txt: its name does not end in a known format: .jsonl, .ndjson, .json, .csv, .tsv"),
    ],
)
def test_damaged_files_are_named(tmp_path, name, content, message):
    path = write(tmp_path / name, content)
    with pytest.raises(RowFileError, match=message):
        list(read_rows(path))


def test_parquet_that_was_cut_off(tmp_path):
    path = tmp_path / "rows.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"a": list(range(1000))}), path)
    write(path, path.read_bytes()[:-100])
    with pytest.raises(RowFileError, match="cannot be read as parquet"):
        list(read_rows(path))


def test_missing_files(tmp_path):
    with pytest.raises(RowFileError, match=r"nowhere.jsonl: there is no such file or folder"):
        list(read_rows(tmp_path / "nowhere.jsonl"))


def test_rows_before_a_damaged_line_are_given(tmp_path):
    rows = read_rows(write(tmp_path / "rows.jsonl", '{"a": 1}\n{"a": 2}\n{'))
    assert [next(rows).record, next(rows).record] == [{"a": 1}, {"a": 2}]
    with pytest.raises(RowFileError, match="line 3"):
        next(rows)


def test_a_scan_goes_on_after_what_cannot_be_read(tmp_path):
    write(tmp_path / "a.jsonl", b'{"n": 1}\n{\n\xff\n[2]\n{"n": 5}\n')
    write(tmp_path / "b.csv", "n\n1\n2,3\n4\n")
    write(tmp_path / "c.json", '[{"n": 1}, 2, {"n": 3}]')
    write(tmp_path / "d.jsonl.gz", gzip.compress(b'{"n": 1}\n' * 9000)[:-20])
    write(tmp_path / "e.jsonl", "")
    write(tmp_path / "f.parquet", "x")
    found = {name: [] for name in ("a.jsonl", "b.csv", "c.json", "d.jsonl.gz", "e.jsonl", "f.parquet")}
    for row in scan_rows(tmp_path):
        if isinstance(row, RowFileError):
            (name,) = (name for name in found if name in str(row))
            found[name].append("error")
        else:
            found[row.path.name].append(row.number)
    assert found.pop("d.jsonl.gz")[-1] == "error"
    assert list(found.values()) == [
        [1, "error", "error", "error", 5],
        [2, "error", 4],
        [1, "error", 3],
        ["error"],
        ["error"],
    ]


def test_names_of_formats():
    names = ["a.jsonl", "a.JSON", "a.csv.gz", "a.parquet", "a.jsonl.gz", "a.ndjson.xz", "a.TSV.bz2", "a.arrow"]
    assert all(is_row_file(Path(name)) for name in names)
    assert not any(is_row_file(Path(name)) for name in ("a.parquet.gz", "a.txt", "jsonl", "a.gz", "a.jsonl.zip"))
    assert {stem(Path(name)) for name in names} == {"a"} and stem(Path("a.b.jsonl")) == "a.b"


def test_it_is_light_to_import():
    heavy = "{'numpy', 'pyarrow', 'pandas', 'datasets', 'torch'}"
    code = f"import sys; import repro_trl.row_files; print(sorted({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
