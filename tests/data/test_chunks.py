"""Chunks put together are the table that `load_table` reads, whatever the format and wherever they are cut."""

from __future__ import annotations

import datetime
import decimal
import gzip
import json
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featherfit.data.chunks import open_table
from featherfit.data.load import load_table
from featherfit.data.processors.cells import column_texts
from featherfit.errors import DataError

# Each column would be taken for something else if it were cut after two, three or four rows.
COLUMNS = {
    "text": ["a b", "None", "NA", 'say "x, y"', "two\nlines", "é \u2028 良い", ""],
    "code": ["007", "8", "9", "1.50", "True", "x1", "2"],
    "zeros": ["01", "02", "03", "04", "05", "06", "07"],
    "gap": ["1", "2", "", "4", "5", "6", "7"],
    "half": ["1", "2", "3", "4", "5.5", "6", "7"],
    "flag": ["True", "False", "True", "", "True", "False", "True"],
    "flags": ["True", "False", "True", "True", "True", "yes", "True"],
    "late": ["", "", "", "", "", "3", "4"],
    "long": ["1", "2", "3", "4", "18446744073709551615", "18446744073709551617", "5"],
    "top": ["1", "2", "3", "4", "18446744073709551615", "5", "6"],
    "none": [""] * 7,
}
BEYOND = ("long", "top")  # integers of more than 63 bits: here text by their digits, which is what a text column is of
RECORDS = [
    {"text": "a", "n": 1, "mixed": 1},
    {"text": "007", "n": 2, "mixed": "one"},
    {"n": 3, "text": None, "mixed": 2.0},
    {"text": "\u2028", "n": 4, "flag": True, "tags": ["x"]},
    {"text": "e", "flag": None, "mixed": True},
    {"text": "2024-01-02", "n": 6, "flag": False, "half": 0.5},
    {"text": "g", "n": 7, "half": 1},
]


def write(path: Path) -> Path:
    """A table in the format of the path's ending."""
    if ".parquet" in path.name:
        pd.DataFrame(COLUMNS).to_parquet(path)
        return path
    if ".json" in path.name or ".ndjson" in path.name:
        lines = "\n".join(json.dumps(record, ensure_ascii=False) for record in RECORDS)
        content = json.dumps(RECORDS) if path.suffix == ".json" else f"{lines}\n\n"
    else:
        content = pd.DataFrame(COLUMNS).to_csv(index=False, sep="\t" if ".tsv" in path.name else ",")
    raw = f"\ufeff{content}".encode()
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)
    return path


@pytest.mark.parametrize("chunk_rows", [1, 2, 3, 4, 7, 100])
@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.csv.gz", "t.jsonl", "t.json", "t.ndjson.gz", "t.parquet"])
def test_chunks_are_the_table(name, chunk_rows, tmp_path):
    path = write(tmp_path / name)
    whole, table = load_table(path), open_table(path, chunk_rows)
    assert (table.rows, list(table.types)) == (7, list(whole.columns))
    chunks = list(table.chunks(list(whole.columns)))
    assert [len(chunk) for chunk in chunks] == [min(chunk_rows, 7 - start) for start in range(0, 7, chunk_rows)]
    assert [row for chunk in chunks for row in chunk.index] == list(range(7))
    for column in whole.columns:
        missing = [row for chunk in chunks for row in chunk[column].isna()]
        assert missing == whole[column].isna().tolist(), column
        if column == "tags":
            continue  # lists are no texts
        assert [text for chunk in chunks for text in column_texts(chunk[column])] == column_texts(whole[column]), column
        values = [value for chunk in chunks for value in chunk[column].dropna().tolist()]
        assert list(map(repr, values)) == list(map(repr, whole[column].dropna().tolist())) or column in BEYOND, column


def type_names(path: Path) -> dict[str, str | None]:
    return {name: None if kind is None else str(kind) for name, kind in open_table(path, 2).types.items()}


def test_types_are_of_the_whole_file(tmp_path):
    names = type_names(write(tmp_path / "t.csv"))
    assert names == {
        "text": "string", "code": "string", "zeros": "int64", "gap": "double", "half": "double", "flag": "bool",
        "flags": "string", "late": "double", "long": "string", "top": "string",
        "none": "double",
    }  # fmt: skip
    names = type_names(write(tmp_path / "t.jsonl"))
    assert names == {
        "text": "string", "n": "double", "mixed": None, "flag": "bool", "tags": None, "half": "double",
    }  # fmt: skip


def test_some_columns_in_the_order_asked_for(tmp_path):
    for name in ("t.csv", "t.parquet", "t.jsonl", "t.json"):
        table = open_table(write(tmp_path / name), 3)
        columns = list(reversed(table.types))[:3]
        assert all(chunk.columns.tolist() == columns for chunk in table.chunks(columns))


def test_parquet_types_survive(tmp_path):
    table = pa.table(
        {
            "big": pa.array([2**53 + 1, None, 3]),
            "small": pa.array([1, None, 255], pa.uint8()),
            "flag": pa.array([True, None, False]),
            "day": pa.array([datetime.date(2024, 1, 2), None, datetime.date(2024, 1, 3)]),
            "time": pa.array([0, None, 86_400_000_000], pa.timestamp("us", "UTC")),
            "price": pa.array([decimal.Decimal("1.50"), None, decimal.Decimal("2.00")]),
            "word": pa.array(["x", None, "x"]).dictionary_encode(),
            "list": pa.array([[1], None, [2, 3]]),
            "half": pa.array([0.5, None, 1.5], pa.float32()),
            "dotted.name": ["a", None, "c"],
        }
    )
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=2)
    for chunk_rows in (1, 2, 3):
        file = open_table(tmp_path / "t.parquet", chunk_rows)
        assert file.types == {field.name: field.type for field in table.schema}
        chunks = file.chunks(table.column_names)
        parts = [pa.Table.from_pandas(chunk, schema=table.schema, preserve_index=False) for chunk in chunks]
        assert pa.concat_tables(parts).to_pylist() == table.to_pylist()


def test_a_column_that_comes_late(tmp_path):
    (tmp_path / "t.jsonl").write_text('{"a": 1}\n{"a": 2}\n{"b": "x"}\n')
    table = open_table(tmp_path / "t.jsonl", 2)
    assert [chunk.to_dict("list") for chunk in table.chunks(["b"])][1] == {"b": ["x"]}
    assert str(table.types["a"]) == "double"  # it has a gap in the last chunk


@pytest.mark.parametrize(("name", "content"), [("t.csv", "text,n\n"), ("t.jsonl", ""), ("t.json", "[]")])
def test_no_rows(name, content, tmp_path):
    (tmp_path / name).write_text(content)
    table = open_table(tmp_path / name, 2)
    assert table.rows == 0 and list(table.types) == list(load_table(tmp_path / name).columns)
    assert sum(map(len, table.chunks(list(table.types)))) == 0


def broken(path: Path, raw: bytes) -> Path:
    path.write_bytes(raw)
    return path


@pytest.mark.parametrize(
    ("name", "raw", "message"),
    [
        ("t.csv", b"a,b\n" + b"1,2\n" * 5 + b"1,2,3\n", r"Expected 2 fields in line 7, saw 3"),
        ("t.csv", b"a,b\n1,2,3\n4,5,6\n", "more fields than its header names columns \\('a', 'b'\\)"),
        ("t.csv", b"a,a\n1,2\n", "more than one column named 'a'"),
        ("t.csv", b"", "cannot be read as a table"),
        ("t.csv", b"a\n" + b"ok\n" * 30_000 + "Müll\n".encode("latin-1"), r"byte 90003 \(0xfc, line 30002\)"),
        ("t.csv.gz", gzip.compress(b"a\n" + b"".join(b"%d\n" % (7**n) for n in range(500)))[:-400], "not a whole gzip"),
        ("t.csv.gz", b"a\n1\n", "not a whole gzip file"),
        ("t.jsonl", b'{"a": 1}\n' * 4 + b'{"a": \n', "line 5: "),
        ("t.jsonl", b'{"a": 1}\n' * 4 + b'3\n{"a": 1}\n', "item 4 is a int, not a dict"),
        ("t.jsonl", b'{"a": "x"}\n' * 4 + b'{"a": "\\ud800"}\n', "surrogate pair in item 4"),
        ("t.json", b"[1, ", "is not JSON"),
        ("t.parquet", b"a\n1\n", "cannot be read as Parquet"),
    ],
)
def test_broken_files(name, raw, message, tmp_path):
    path = broken(tmp_path / name, raw)
    with pytest.raises(DataError, match=message):
        open_table(path, 2)
    if "surrogate" not in message or pd.__version__ >= "3":
        with pytest.raises(DataError, match=message):
            load_table(path)


def test_a_parquet_file_broken_in_the_middle(tmp_path):
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"a": [f"text {n}" for n in range(10_000)]}), path, row_group_size=1000, compression="zstd")
    raw = bytearray(path.read_bytes())
    middle = len(raw) // 2
    raw[middle : middle + 3000] = b"\xff" * 3000
    table = open_table(broken(path, bytes(raw)), 1000)
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        list(table.chunks(["a"]))


def test_paths(tmp_path):
    with pytest.raises(DataError, match=r"source: .*missing\.csv' does not exist"):
        open_table(tmp_path / "missing.csv", 2, name="source")
    with pytest.raises(DataError, match=r"Allowed endings: \.csv"):
        open_table(tmp_path / "t.xlsx", 2)
