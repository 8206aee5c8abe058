"""Every line of docs/rows.md, in fit, evaluate and predict; the caller's table is the same afterwards."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tiny_checkpoints import quick_fit, reviews

from featherfit import MultiModalPredictor
from featherfit.errors import ConfigError, DataError

ROWS = 16


def table(**columns: Any) -> pd.DataFrame:
    frame = reviews(ROWS)
    for name, values in columns.items():
        frame[name] = values
    return frame


def with_cell(value: Any, column: str = "text", position: int = 3) -> pd.DataFrame:
    """A table of objects with one odd cell."""
    frame = reviews(ROWS)
    cells = frame[column].astype(object).tolist()
    cells[position] = value
    return frame.assign(**{column: pd.Series(cells, index=frame.index, dtype=object)})


def file_of(content: bytes, name: str) -> Callable[[], str]:
    def write() -> str:
        Path(name).write_bytes(content)
        return name

    return write


def csv(text: bytes = b"a good box") -> bytes:
    lines = [
        b"text,label",
        *(b"the box was %s it,%d" % ((b"lovely", b"broken")[i % 2], i % 2) for i in range(ROWS - 1)),
    ]
    return b"\n".join([*lines, text + b",1"]) + b"\n"


@dataclass(frozen=True)
class Case:
    """A line of the table.

    Attributes:
        line: How docs/rows.md calls it.
        data: Makes the table.
        fit, evaluate, predict: The error each of them raises, or None where it works.
    """

    line: str
    data: Callable[[], Any]
    fit: str | None = None
    evaluate: str | None = None
    predict: str | None = None


def every(line: str, data: Callable[[], Any], error: str | None = None) -> Case:
    return Case(line, data, error, error, error)


SURROGATE = "the box \ud800 was good"
CASES = [
    every("bytes that are not UTF-8, in a file", file_of(csv(b"a go\xffod box"), "bad.csv"), r"is not UTF-8: byte \d+ \(0xff, line 17\)"),
    every("half of a surrogate pair, in a list or a file of records",
          lambda: [{"text": SURROGATE, "label": 1}, *table().to_dict("records")], "half of a surrogate pair in item 0"),
    every("half of a surrogate pair, in a frame", lambda: with_cell(SURROGATE), r"Row 103, column 'text': the tokenizer refuses"),
    Case("bytes, lists, dicts, dates in a cell", lambda: with_cell(b"good"), "its values are bytes, neither text nor numbers",
         r"Row 103, column 'text': bytes is neither text nor a number", r"Row 103, column 'text': bytes is neither text nor a number"),
    every("NUL, emoji, right-to-left, any script", lambda: table(text=[f"the \x00 box 🎉 was שלום مرحبا good {i} 良い" for i in range(ROWS)])),
    every("text and numbers mixed", lambda: with_cell(12.0)),
    every("an infinite number among text", lambda: with_cell(float("inf"))),
    every("a missing cell (None, NaN, NA)", lambda: with_cell(None)),
    every("two columns of one name", lambda: pd.concat([table(), table()[["text"]]], axis=1), "more than one column named 'text'"),
    every("index values that repeat", lambda: table().set_axis([7] * ROWS)),
    every("an index of several levels, of dates, of text", lambda: table().set_axis(pd.MultiIndex.from_product([range(4), range(4)]))),
    every("a column of dtype category", lambda: table().astype({"text": "category"})),
    every("pyarrow-backed columns", lambda: table().convert_dtypes(dtype_backend="pyarrow")),
    every("anything with to_pandas (polars, Arrow, datasets)", lambda: arrow_table()),
    every("a dict of lists, a list of dicts", lambda: table().to_dict("list")),
    Case("no rows", lambda: table()[:0], "The table has no rows", "no rows, so there is nothing to score"),
    every("columns beyond those of training", lambda: table(title=["x y z"] * ROWS, score=range(ROWS))),
    Case("no text column", lambda: table()[["label"]], "only the label column", "lacks the text columns 'text'", "lacks the text columns 'text'"),
    every("columns in another order", lambda: table()[["label", "text"]]),
    Case("a label that is missing", lambda: with_cell(None, "label"), "has no value in 1 row", "has no value in 1 row"),
    Case("an infinite label", lambda: with_cell(float("inf"), "label"), "infinite in 1 row", "training has not seen: inf"),
    Case("a label training has not seen", lambda: with_cell(2, "label"), None, "training has not seen: 2"),
    Case("labels of mixed types", lambda: with_cell("yes", "label"), "mixes types", "mixes types"),
    Case("half of a surrogate pair in a label", lambda: odd_label(), "half of a surrogate pair, which is no text, in 1 row", "half of a surrogate pair, which is no text, in 1 row"),
    Case("column names that are not text", lambda: table().rename(columns={"text": 0}), "Column names have to be text", "lacks the text", "lacks the text"),
    Case("a column of lists", lambda: table(text=[["a"]] * ROWS), "its values are list", "list is neither text nor a number", "list is neither text nor a number"),
]  # fmt: skip
IDS = [case.line for case in CASES]


def odd_label() -> pd.DataFrame:
    labels = [SURROGATE if place == 3 else "ab"[place % 2] for place in range(ROWS)]
    return (
        reviews(ROWS).drop(columns="label").assign(label=pd.Series(labels, index=range(100, 100 + ROWS), dtype=object))
    )


def arrow_table() -> Any:
    import pyarrow as pa

    return pa.Table.from_pandas(table())


def unchanged(data: Any, before: Any) -> bool:
    if isinstance(data, pd.DataFrame):
        return data.equals(before) and data.dtypes.equals(before.dtypes) and data.index.equals(before.index)
    return isinstance(data, str) or repr(data) == repr(before)


def attempt(call: Callable[[Any], Any], case: Case, error: str | None) -> Any:
    data = case.data()
    before = copy.deepcopy(data)
    if error is None:
        result = call(data)
    else:
        with pytest.raises(DataError, match=error):
            call(data)
        result = None
    assert unchanged(data, before)
    return result


@pytest.mark.filterwarnings("ignore:.*are not used")
@pytest.mark.parametrize("case", CASES, ids=IDS)
class TestEveryLine:
    def test_fit(self, case, checkpoint, tmp_path):
        more = {"optim.max_steps": 1}
        attempt(lambda data: quick_fit(checkpoint, tmp_path / "a", data, hyperparameters=more), case, case.fit)

    def test_evaluate(self, case, fitted):
        scores = attempt(lambda data: fitted.evaluate(data, metrics="accuracy"), case, case.evaluate)
        assert case.evaluate or 0 <= scores["accuracy"] <= 1

    def test_predict(self, case, fitted):
        found = attempt(fitted.predict, case, case.predict)
        data = case.data()
        if case.predict is None and isinstance(data, pd.DataFrame):
            assert found.index.equals(data.index) and set(found) <= {0, 1}
            assert list(found) == list(fitted.predict(data.set_axis(range(len(data))))), "a row's result is its own"


def test_the_document_has_these_lines_and_no_others():
    text = (Path(__file__).parents[2] / "docs" / "rows.md").read_text("utf-8")
    lines = re.findall(r"^\| ([^|]+?) \|", text, re.MULTILINE)
    assert [line for line in lines if line not in ("what", "---", "column") and not line.startswith("`")] == IDS


class TestReport:
    """`on_error="report"`."""

    ODD = (SURROGATE, b"bytes", ["list"])

    def odd(self) -> pd.DataFrame:
        cells = reviews(ROWS)["text"].astype(object).tolist()
        cells[2], cells[5], cells[11] = self.ODD
        return reviews(ROWS).assign(text=pd.Series(cells, index=range(100, 100 + ROWS), dtype=object))

    def good(self) -> np.ndarray:
        return np.isin(np.arange(ROWS), [2, 5, 11], invert=True)

    def test_predict(self, fitted):
        with pytest.warns(UserWarning, match=r"3 rows of 16 could not be processed and have no result"):
            found = fitted.predict(self.odd(), on_error="report")
        whole = fitted.predict(reviews(ROWS))
        assert found.dtype == "Int64" and list(np.flatnonzero(found.isna())) == [2, 5, 11]
        assert list(found[self.good()]) == list(whole[self.good()]) and found.index.equals(whole.index)

    def test_an_array(self, fitted):
        with pytest.warns(UserWarning, match="no result"):
            found = fitted.predict(self.odd(), as_pandas=False, on_error="report")
        assert [value is None for value in found] == list(~self.good())

    def test_predict_proba(self, fitted):
        with pytest.warns(UserWarning, match="no result"):
            found = fitted.predict_proba(self.odd(), on_error="report")
        whole = fitted.predict_proba(reviews(ROWS))
        assert list(np.flatnonzero(found.isna().all(axis=1))) == [2, 5, 11]
        pd.testing.assert_frame_equal(found[self.good()], whole[self.good()], check_exact=True)

    def test_rejected_rows(self, fitted):
        with pytest.warns(UserWarning, match="no result"):
            fitted.predict(self.odd(), on_error="report")
        rejected = fitted.rejected_rows
        assert rejected.columns.tolist() == ["position", "index", "column", "reason"]
        assert rejected["position"].tolist() == [2, 5, 11] and rejected["index"].tolist() == [102, 105, 111]
        assert rejected["reason"].tolist() == [
            "half of a surrogate pair, which is no text", "bytes is neither text nor a number", "list is neither text nor a number",
        ]  # fmt: skip
        fitted.predict(reviews(4), on_error="report")
        assert len(fitted.rejected_rows) == 0

    def test_nothing_to_report_changes_nothing(self, fitted):
        pd.testing.assert_series_equal(fitted.predict(reviews(4), on_error="report"), fitted.predict(reviews(4)))

    def test_index_values_that_repeat(self, fitted):
        with pytest.warns(UserWarning, match="no result"):
            found = fitted.predict(self.odd().set_axis([1] * ROWS), on_error="report")
        assert list(np.flatnonzero(found.isna())) == [2, 5, 11] and fitted.rejected_rows["position"].tolist() == [
            2,
            5,
            11,
        ]

    def test_evaluate(self, fitted):
        odd = self.odd().astype({"label": object})
        odd.iloc[0, 1], odd.iloc[1, 1], odd.iloc[3, 1], odd.iloc[4, 1] = None, 7, "1", [1]
        left = np.setdiff1d(np.arange(ROWS), [0, 1, 2, 3, 4, 5, 11])
        with pytest.warns(UserWarning, match="7 rows of 16"):
            scores, found = fitted.evaluate(odd, metrics="accuracy", return_pred=True, on_error="report")
        assert scores == fitted.evaluate(reviews(ROWS).iloc[left], metrics="accuracy")
        assert list(np.flatnonzero(found.notna())) == list(left)
        assert fitted.rejected_rows["reason"].tolist()[:2] == ["no label", "label '7', which training has not seen"]
        assert "'1' is a label of another type" in fitted.rejected_rows["reason"].tolist()

    def test_nothing_left_to_score(self, fitted):
        with pytest.warns(UserWarning, match="no result"), pytest.raises(DataError, match="nothing to score"):
            fitted.evaluate(self.odd()[2:3], on_error="report")

    def test_nothing_left_to_predict(self, fitted):
        with pytest.warns(UserWarning, match="1 row of 1 could not be processed and has no result"):
            assert fitted.predict(self.odd()[2:3], on_error="report").isna().all()

    @pytest.mark.parametrize("ending", ["jsonl", "parquet", "csv"])
    def test_predict_file(self, ending, fitted):
        records = [{"id": i, "text": text, "label": 0} for i, text in enumerate(reviews(ROWS)["text"])]
        records[4]["text"] = ["a", "list"]
        Path("in.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
        with pytest.raises(DataError, match="Row 4, column 'text'"):
            fitted.predict_file("in.jsonl", f"out.{ending}", proba=True, keep_columns="id")
        with pytest.warns(UserWarning, match="1 row of 16"):
            done = fitted.predict_file(
                "in.jsonl", f"out.{ending}", proba=True, keep_columns="id", chunk_rows=3, on_error="report"
            )
        readers = {"jsonl": lambda file: pd.read_json(file, lines=True), "parquet": pd.read_parquet, "csv": pd.read_csv}
        found = readers[ending](done)
        assert found["id"].tolist() == list(range(ROWS)) and (done.rows, done.rejected) == (ROWS, 1)
        assert list(np.flatnonzero(found["label"].isna())) == list(np.flatnonzero(found["proba_0"].isna())) == [4]
        others = [i for i in range(ROWS) if i != 4]
        assert found["label"].dropna().tolist() == fitted.predict(reviews(ROWS)).iloc[others].tolist()
        assert fitted.rejected_rows[["position", "index"]].to_numpy().tolist() == [[4, 4]]

    def test_an_unknown_word(self, fitted):
        for call in (fitted.predict, fitted.predict_proba, fitted.evaluate):
            with pytest.raises(ConfigError, match=r"on_error='reprot' is unknown\. Did you mean 'report'\?"):
                call(reviews(2), on_error="reprot")
        with pytest.raises(ConfigError, match="on_error"):
            fitted.predict_file("a.csv", "b.csv", on_error="skip")


@pytest.mark.slow
def test_ten_megabytes_in_a_cell(fitted: MultiModalPredictor):
    frame = with_cell("the lovely kettle works " * 420_000)
    assert len(frame["text"].iloc[3]) > 10**7
    found = fitted.predict(frame)
    cut = fitted.predict(with_cell("the lovely kettle works " * 600))
    assert list(found) == list(cut)


def test_regression_and_its_missing_results(checkpoint, tmp_path):
    predictor = quick_fit(
        checkpoint, tmp_path / "a", reviews(ROWS, labels=(0.5, 1.5, 9.0)), problem_type="regression",
        hyperparameters={"optim.max_steps": 1},
    )  # fmt: skip
    with pytest.warns(UserWarning, match="2 rows of 16"):
        odd = with_cell(b"x").astype({"label": object})
        odd.iloc[0, 1] = float("inf")
        scores, found = predictor.evaluate(odd, metrics="rmse", return_pred=True, on_error="report")
    assert found.dtype == np.float64 and list(np.flatnonzero(found.isna())) == [0, 3] and np.isfinite(scores["rmse"])
