"""Cells on which pandas itself would raise."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featherfit.data.chunks import open_table
from featherfit.data.load import load_table
from featherfit.errors import DataError

CELLS = ["a", Decimal("NaN"), Decimal("sNaN"), 1, Decimal("-sNaN2")]


def strings(*texts: bytes | None) -> pa.Array:
    """Arrow strings of these bytes, whatever they are."""
    array = pa.array(texts, pa.binary())
    return pa.Array.from_buffers(pa.string(), len(array), array.buffers())


def damaged(file: Path) -> str:
    """A Parquet file whose writer was careless."""
    pq.write_table(pa.table({"text": strings(b"ok", None, b"a\xff", b"\xed\xa0\x80"), "label": [0, 1, 0, 1]}), file)
    return str(file)


def test_a_signalling_nan():
    frame = pd.DataFrame({"n": range(5), "text": pd.Series(CELLS, dtype=object)}).set_index("n")
    with pytest.raises(DataError, match=r"^rows: row 2, 4, column 'text': Decimal\('sNaN'\) is a NaN that raises"):
        load_table(frame, name="rows")
    assert load_table(frame.drop(index=[2, 4])).index.tolist() == [0, 1, 3]
    with pytest.raises(DataError, match="row 1, column 'a'"):
        load_table([{"a": "x"}, {"a": Decimal("sNaN")}])


@pytest.mark.parametrize(
    "number", [10**5000, -(10**5000), Fraction(1, 10**5000)], ids=["whole", "negative", "fraction"]
)
def test_a_number_that_python_does_not_write_out(number):
    frame = pd.DataFrame({"text": pd.Series(["a", number, 3], dtype=object)})
    with pytest.raises(DataError, match=r"^rows: row 1, column 'text': a number of more than 4,000 digits"):
        load_table(frame, name="rows")
    with pytest.raises(ValueError, match="4300"):
        str(number)
    assert load_table(frame.assign(text=[10**3999, 2, 3])) is not None and len(str(10**4000)) == 4001


def test_no_utf8_in_a_parquet_file(tmp_path):
    file = damaged(tmp_path / "t.parquet")
    with pytest.raises(DataError, match=r"^rows: row 2, 3, column 'text': the bytes are not UTF-8, though"):
        load_table(file, name="rows")
    with pytest.raises(DataError, match=r"t\.parquet.*: row 2, column 'text': the bytes are not UTF-8"):
        list(open_table(file, 3).chunks(["text"]))
    assert [len(frame) for frame in open_table(file, 3).chunks(["label"])] == [3, 1]


@pytest.mark.parametrize("dtype", ["string", "arrow"])
def test_no_utf8_in_a_frame_or_an_arrow_table(dtype):
    table = pa.table({"text": strings(b"a\xff", b"ok")})
    frame = table.to_pandas(types_mapper=pd.ArrowDtype) if dtype == "arrow" else table.to_pandas()
    for given in (table, frame.set_axis(["r0", "r1"])):
        with pytest.raises(DataError, match=r"^rows: row ('r0'|0), column 'text': the bytes are not UTF-8"):
            load_table(given, name="rows")


@pytest.mark.parametrize("dtype", ["str", "string", "string[python]", "string[pyarrow]", "object", "category"])
def test_sound_cells_of_every_kind_pass(dtype):
    frame = pd.DataFrame({"text": pd.Series(["a", "良い", None, "🎉"], dtype=dtype)})
    assert load_table(frame) is frame
