import gzip
import json
import subprocess
import sys

import pandas as pd
import pytest

from featherfit.data.load import load_table
from featherfit.errors import DataError

FRAME = pd.DataFrame({"text": ["a b", "None", "NA", None], "n": [1, 2, 3, 4]})


def test_frame_comes_back_as_it_is():
    assert load_table(FRAME) is FRAME


def test_only_an_empty_field_is_missing(tmp_path):
    path = tmp_path / "r.csv"
    path.write_text('\ufefftext,n\nNone,1\nNA,2\n,3\n"a, ""b""\nc",4\n', encoding="utf-8")
    frame = load_table(str(path))
    assert list(frame.columns) == ["text", "n"]
    assert frame["text"].isna().tolist() == [False, False, True, False]
    assert frame["text"].dropna().tolist() == ["None", "NA", 'a, "b"\nc']
    assert frame["n"].tolist() == [1, 2, 3, 4]


def test_line_ends_inside_a_field_stay(tmp_path):
    path = tmp_path / "r.csv"
    path.write_bytes(b'text,n\r\n"one\r\ntwo\rthree",1\r\nfour,2\r\n')
    assert load_table(path).to_dict("list") == {"text": ["one\r\ntwo\rthree", "four"], "n": [1, 2]}


@pytest.mark.parametrize(
    "name", ["r.csv", "r.tsv", "r.csv.gz", "r.TSV.GZ", "r.jsonl", "r.json", "r.ndjson.gz", "v1.0.csv"]
)
def test_text_formats(tmp_path, name):
    lower = name.lower()
    if ".csv" in lower or ".tsv" in lower:
        content = FRAME.to_csv(index=False, sep="\t" if "tsv" in lower else ",")
    else:
        content = FRAME.to_json(orient="records", lines=True, force_ascii=False)
    raw = content.encode("utf-8")
    (tmp_path / name).write_bytes(gzip.compress(raw) if lower.endswith(".gz") else raw)
    frame = load_table(tmp_path / name)
    assert frame["text"].fillna("-").tolist() == ["a b", "None", "NA", "-"]
    assert frame["n"].tolist() == [1, 2, 3, 4]


def test_json_keeps_types_and_odd_separators(tmp_path):
    rows = [{"id": "007", "date": "2024-01-02", "text": "one\u2028two"}, {"id": "8", "text": "\x85"}]
    (tmp_path / "r.jsonl").write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    (tmp_path / "r.json").write_text("\ufeff" + json.dumps(rows), encoding="utf-8")
    for name in ("r.jsonl", "r.json"):
        frame = load_table(tmp_path / name)
        assert frame["id"].tolist() == ["007", "8"]
        assert frame["date"].iloc[0] == "2024-01-02"
        assert frame["text"].tolist() == ["one\u2028two", "\x85"]


def test_parquet_and_datasets(tmp_path):
    pytest.importorskip("pyarrow")
    FRAME.to_parquet(tmp_path / "r.parquet")
    pd.testing.assert_frame_equal(load_table(tmp_path / "r.parquet"), FRAME)
    datasets = pytest.importorskip("datasets")
    frame = load_table(datasets.Dataset.from_dict({"text": ["x", "y"], "label": [0, 1]}))
    assert frame.to_dict("list") == {"text": ["x", "y"], "label": [0, 1]}
    splits = datasets.DatasetDict({"train": datasets.Dataset.from_dict({"text": ["x"]})})
    with pytest.raises(DataError, match=r"several tables: 'train'\. Give one of them"):
        load_table(splits)


def test_lists():
    expected = {"text": ["x", "y"], "n": [1, 2]}
    assert load_table(expected).to_dict("list") == expected
    assert load_table([{"text": "x", "n": 1}, {"n": 2, "text": "y"}]).to_dict("list") == expected


def test_not_utf8_names_file_and_byte(tmp_path):
    path = tmp_path / "latin.csv"
    path.write_bytes("text\nok\nMüll\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"latin\.csv' is not UTF-8: byte 9 \(0xfc, line 3\)"):
        load_table(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("r.csv", "text,text\na,b\n", "more than one column named 'text'"),
        ("r.csv", "a,b\n1,2,3\n4,5,6\n", "more fields than its header"),
        ("r.csv", "a,b\n0,2,3\n1,5,6\n", "more fields than its header"),
        ("r.csv", "a,b\n1,2\n1,2,3\n", "cannot be read as a table"),
        ("r.csv", "", "cannot be read as a table"),
        ("r.jsonl", '{"a": 1}\n{"a": \n', "line 2: "),
        ("r.jsonl", '{"a": 1}\n3\n', "item 1 is a int, not a dict"),
        ("r.json", "[1, ", "is not JSON"),
        ("r.csv.gz", "text\n", "not a whole gzip file"),
        ("r.parquet", "text\n", "cannot be read as Parquet"),
    ],
)
def test_broken_files(tmp_path, name, content, message):
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        load_table(tmp_path / name)


def test_paths(tmp_path):
    with pytest.raises(DataError, match=r"train_data: .*missing\.csv' does not exist"):
        load_table(tmp_path / "missing.csv", name="train_data")
    (tmp_path / "d.csv").mkdir()
    with pytest.raises(DataError, match="is a folder"):
        load_table(tmp_path / "d.csv")
    for name in ("r.xlsx", "r.parquet.gz", "r"):
        with pytest.raises(DataError, match=r"Allowed endings: \.csv, \.tsv, \.parquet, \.json, .*\.csv\.gz"):
            load_table(tmp_path / name)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (3, "data is a int. Give a DataFrame"),
        (FRAME["text"], "single column"),
        (["a", "b"], "item 0 is a str, not a dict"),
        ({"text": "a"}, r"single values where lists are expected: 'text'"),
        ({"text": ["a"], "n": [1, 2]}, "'text': 1, 'n': 2"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "more than one column named 'a'"),
    ],
)
def test_not_a_table(data, message):
    with pytest.raises(DataError, match=message):
        load_table(data)


class TestOtherLibraries:
    """Tables that become a pandas frame by their own `to_pandas`."""

    def test_arrow(self):
        pa = pytest.importorskip("pyarrow")
        assert load_table(pa.Table.from_pandas(FRAME.set_axis([7, 7, 8, 9]))).index.tolist() == [7, 7, 8, 9]
        with pytest.raises(DataError, match=r"rows is a ChunkedArray that is not a table\. Give a DataFrame"):
            load_table(pa.chunked_array([["a"]]), name="rows")
        with pytest.raises(DataError, match="has more than one column named 'a'"):
            load_table(pa.table([pa.array([1]), pa.array([2])], names=["a", "a"]))

    def test_what_has_no_rows_yet(self):
        pa = pytest.importorskip("pyarrow")
        reader = pa.table({"a": [1]}).to_reader()
        with pytest.raises(
            DataError, match=r"^rows is a RecordBatchReader, which has no rows yet\. Give rows\.read_all\(\)\.$"
        ):
            load_table(reader, name="rows")
        assert len(load_table(reader.read_all())) == 1

    def test_what_cannot_become_a_frame(self):
        class Table:
            def to_pandas(self):
                raise ArithmeticError("no such type")

        with pytest.raises(
            DataError, match=r"rows is a Table that cannot become a pandas DataFrame: ArithmeticError: no"
        ):
            load_table(Table(), name="rows")

    def test_polars(self):
        pl = pytest.importorskip("polars")
        frame = load_table(pl.DataFrame({"text": ["a b", None], "n": [1, 2]}))
        assert frame["text"].isna().tolist() == [False, True] and frame["n"].tolist() == [1, 2]
        with pytest.raises(DataError, match=r"^rows is a LazyFrame, which has no rows yet\. Give rows\.collect\(\)\.$"):
            load_table(pl.LazyFrame({"a": [1]}), name="rows")
        with pytest.raises(DataError, match="rows is a Series that is not a table"):
            load_table(pl.Series([1]), name="rows")

    def test_nothing_is_imported_for_it(self):
        code = "import sys, pandas; from featherfit.data.load import load_table; load_table(pandas.DataFrame({'a': [1]})); "
        subprocess.run([sys.executable, "-c", f"{code}sys.exit('polars' in sys.modules)"], check=True)


@pytest.mark.parametrize("value", ["1" * 5000, "[" * 100_000 + "]" * 100_000], ids=["digits", "depth"])
@pytest.mark.parametrize("name", ["r.jsonl", "r.json"])
def test_json_that_python_does_not_read(tmp_path, name, value):
    line = f'{{"a": {value}}}'
    (tmp_path / name).write_text(line if name == "r.jsonl" else f"[{line}]")
    with pytest.raises(DataError, match=r"line 1: |is not JSON: "):
        load_table(tmp_path / name)
