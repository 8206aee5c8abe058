"""What is written in chunks reads back as it was, and a file that is not finished does not appear."""

from __future__ import annotations

import datetime
import decimal
import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from featherfit.data.load import load_table
from featherfit.data.rows import no_rejections
from featherfit.data.write import WRITERS, check_target, check_types, write_rejected, written_table
from featherfit.errors import ConfigError, DataError, PathExistsError

TYPES = {"id": pa.string(), "n": pa.int64(), "share": pa.float32(), "value": pa.float64(), "flag": pa.bool_()}
FRAME = pd.DataFrame(
    {
        "id": ["007", "None", 'a "b",\tc\nd', "良い \u2028", None],
        "n": [1, -2, 3, 2**53 + 1, 5],
        "share": np.array([0.1, 1 / 3, 1e-8, 1, 0.7], dtype=np.float32),
        "value": [0.1, 1 / 3, 1e300, -2.5, None],
        "flag": [True, False, True, None, False],
    }
)


def put(target: Path, frame: pd.DataFrame = FRAME, types: dict = TYPES, rows: int = 2) -> Path:
    with written_table(target, types) as write:
        for start in range(0, len(frame), rows):
            write(frame[start : start + rows])
    return target


@pytest.mark.parametrize("rows", [1, 2, 5])
@pytest.mark.parametrize("ending", WRITERS)
def test_reads_back(ending, rows, tmp_path):
    back = load_table(put(tmp_path / f"t{ending}", rows=rows))
    assert list(back.columns) == list(FRAME.columns)
    expected = FRAME.assign(id=FRAME["id"] if ending in (".parquet", ".jsonl") else ["7", *FRAME["id"][1:]])
    if ending in (".csv", ".tsv"):
        expected["id"] = FRAME["id"]
    for name in ("id", "n", "value", "flag"):
        assert back[name].dropna().tolist() == expected[name].dropna().tolist(), name
        assert back[name].isna().tolist() == expected[name].isna().tolist(), name
    assert back["share"].astype("float32").tolist() == FRAME["share"].tolist()
    assert os.listdir(tmp_path) == [f"t{ending}"]


def test_parquet_has_the_types_even_without_rows(tmp_path):
    import pyarrow.parquet as pq

    for frame in (FRAME, FRAME.head(0)):
        path = put(tmp_path / f"{len(frame)}.parquet", frame)
        assert dict(zip(pq.read_schema(path).names, pq.read_schema(path).types, strict=True)) == TYPES


@pytest.mark.parametrize(("ending", "content"), [(".csv", "id,n\n"), (".tsv", "id\tn\n"), (".jsonl", "")])
def test_text_without_rows(ending, content, tmp_path):
    assert put(tmp_path / f"t{ending}", FRAME.head(0), {"id": pa.string(), "n": pa.int64()}).read_text() == content


def test_json_values(tmp_path):
    table = pa.table(
        {
            "day": [datetime.date(2024, 1, 2), None],
            "time": pa.array([0, 1], pa.timestamp("s")),
            "price": [decimal.Decimal("1.50"), None],
            "list": [[1, 2], [3]],
            "small": pa.array([0.1, None], pa.float32()),
        }
    )
    frame = table.to_pandas(types_mapper=lambda kind: None if kind == pa.float32() else pd.ArrowDtype(kind))
    path = put(tmp_path / "t.jsonl", frame, dict(zip(table.schema.names, table.schema.types, strict=True)))
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"day": "2024-01-02", "time": "1970-01-01 00:00:00", "price": "1.50", "list": [1, 2], "small": 0.1},
        {"day": None, "time": "1970-01-01 00:00:01", "price": None, "list": [3], "small": None},
    ]


@pytest.mark.parametrize("ending", WRITERS)
def test_a_failure_leaves_nothing(ending, tmp_path):
    target = tmp_path / f"t{ending}"
    for before in (None, "earlier"):
        if before:
            target.write_text(before)
        with pytest.raises(KeyboardInterrupt), written_table(target, TYPES, overwrite=True) as write:
            write(FRAME)
            assert len(os.listdir(tmp_path)) == 1 + bool(before)  # the unfinished one lies beside the target
            raise KeyboardInterrupt
        assert os.listdir(tmp_path) == ([target.name] if before else [])
    assert target.read_text() == "earlier"


def test_a_target_that_appears_meanwhile(tmp_path):
    target = tmp_path / "t.csv"
    with pytest.raises(PathExistsError, match="has appeared meanwhile"), written_table(target, TYPES) as write:
        write(FRAME)
        target.write_text("another's")
    assert target.read_text() == "another's" and os.listdir(tmp_path) == ["t.csv"]


def test_permissions_are_the_usual_ones(tmp_path):
    (tmp_path / "usual").write_text("")
    for ending in WRITERS:
        assert put(tmp_path / f"t{ending}").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_check_target(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("s.csv").write_text("text\n")
    Path("same.csv").symlink_to("s.csv")
    Path("hard.csv").hardlink_to("s.csv")
    Path("there.csv").write_text("")
    Path("folder.csv").mkdir()
    assert check_target("s.csv", "T.PARQUET") == ".parquet"
    assert check_target("s.csv", "there.csv", overwrite=True) == ".csv"
    for target, error, message in (
        ("t.xlsx", ConfigError, r"target t\.xlsx: .* one of \.csv, \.tsv, \.parquet, \.jsonl\."),
        ("t.csv.gz", ConfigError, "has to end in one of"),
        ("no/t.csv", ConfigError, "there is no folder no"),
        ("s.csv", ConfigError, "is the input itself"),
        ("same.csv", ConfigError, "is the input itself"),
        ("hard.csv", ConfigError, "is the input itself"),
        ("folder.csv", PathExistsError, "is a folder"),
    ):
        for overwrite in (False, True):
            with pytest.raises(error, match=message):
                check_target("s.csv", target, overwrite=overwrite)
    with pytest.raises(PathExistsError, match=r"--output there\.csv exists\. .* overwrite=True \(--overwrite\)"):
        check_target("s.csv", "there.csv", name="--output")


def test_check_types():
    types = {"a": None, "b": pa.binary(), "c": pa.list_(pa.int64()), "d": pa.struct([]), "e": pa.string()}
    with pytest.raises(DataError, match=r"^Columns 'a' hold values of several kinds, which Parquet cannot"):
        check_types(types, ".parquet")
    with pytest.raises(DataError, match=r"Columns 'c', 'd' hold lists or records[\s\S]*Columns 'b' hold bytes"):
        check_types(types, ".csv")
    with pytest.raises(DataError, match=r"^Columns 'b' hold bytes, which \.jsonl cannot"):
        check_types(types, ".jsonl")
    check_types({name: types[name] for name in ("a", "c", "d", "e")}, ".jsonl")
    check_types({name: types[name] for name in ("b", "c", "e")}, ".parquet")


@pytest.mark.parametrize("ending", WRITERS)
@pytest.mark.parametrize("index", [[3, 5], ["r3", "r5"], [(0, 1), "b"]])
def test_rejected_rows(ending, index, tmp_path):
    cells = [(3, index[0], "text", 'list is neither "text" nor a number'), (5, index[1], "label", "no label")]
    rejected = pd.DataFrame(cells, columns=["position", "index", "column", "reason"])
    write_rejected(rejected.astype({"index": object}), tmp_path / f"r{ending}")
    back = load_table(tmp_path / f"r{ending}")
    expected = rejected.assign(index=index if index == [3, 5] else list(map(str, index)))
    assert back.to_dict("list") == expected.to_dict("list")
    with pytest.raises(PathExistsError, match="has appeared meanwhile"):
        write_rejected(rejected, tmp_path / f"r{ending}")
    write_rejected(no_rejections(), tmp_path / f"r{ending}", overwrite=True)
    assert list(load_table(tmp_path / f"r{ending}")) == ([] if ending == ".jsonl" else list(rejected))
