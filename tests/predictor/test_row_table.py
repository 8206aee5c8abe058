"""Every line of docs/rows.md, in fit, evaluate and predict; the caller's table is the same afterwards."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
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
    every("bytes that are not UTF-8, in a Parquet file or an Arrow table", lambda: damaged_arrow(), r"row 1, column 'text': the bytes are not UTF-8"),
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
    every("a polars DataFrame", lambda: polars_frame()),
    every("a pyarrow Table, a datasets.Dataset, anything else with to_pandas", lambda: arrow_table()),
    every("a polars LazyFrame", lambda: polars_frame().lazy(), r"is a LazyFrame, which has no rows yet\. Give \w+\.collect\(\)\."),
    every("a signalling NaN (Decimal) in a cell", lambda: with_cell(Decimal("sNaN")), r"row 103, column 'text': Decimal\('sNaN'\)"),
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


def damaged_arrow() -> Any:
    import pyarrow as pa

    texts = pa.array([b"a good box", b"a g\xffod box"])
    return pa.table({"text": pa.Array.from_buffers(pa.string(), 2, texts.buffers()), "label": [0, 1]})


def polars_frame() -> Any:
    return pytest.importorskip("polars").DataFrame(table().to_dict("list"))


def unchanged(data: Any, before: Any) -> bool:
    if hasattr(data, "collect"):
        data, before = data.collect(), before.collect()
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


SHORT = {"optim.max_steps": 2}


class TestReportInFit:
    """`fit(on_error="report")`: what is left out, and that the rest gives what it gives alone."""

    def odd(self) -> pd.DataFrame:
        frame = reviews(40).astype(object)
        frame.iat[2, 0], frame.iat[5, 0], frame.iat[11, 0] = SURROGATE, b"bytes", ["list"]
        frame.iat[7, 1], frame.iat[9, 1], frame.iat[12, 1] = None, "1", float("inf")
        return frame

    def good(self) -> pd.DataFrame:
        return reviews(40).drop(index=[102, 105, 107, 109, 111, 112])

    def test_the_rest_gives_what_it_gives_alone(self, checkpoint, tmp_path):
        odd = self.odd()
        before = copy.deepcopy(odd)
        with pytest.warns(UserWarning, match=r"6 rows of 40 in train_data could not be processed and are left out"):
            found = quick_fit(checkpoint, tmp_path / "a", odd, hyperparameters=SHORT, on_error="report")
        alone = quick_fit(checkpoint, tmp_path / "b", self.good(), hyperparameters=SHORT)
        assert unchanged(odd, before)
        assert (tmp_path / "a" / "trainable.safetensors").read_bytes() == (
            tmp_path / "b" / "trainable.safetensors"
        ).read_bytes()
        rejected = found.rejected_rows
        assert rejected.columns.tolist() == ["position", "index", "column", "reason", "table"]
        assert rejected["position"].tolist() == [2, 5, 7, 9, 11, 12] and rejected["index"].tolist()[0] == 102
        assert rejected["column"].tolist() == ["text", "text", "label", "label", "text", "label"]
        assert rejected["reason"].tolist() == [
            "half of a surrogate pair, which is no text", "bytes is neither text nor a number", "no label",
            "'1' is a label of another type", "list is neither text nor a number", "'inf' is not a finite number",
        ]  # fmt: skip
        assert set(rejected["table"]) == {"train_data"} and len(alone.rejected_rows) == 0

    def test_unless_it_is_asked_for_it_raises(self, checkpoint, tmp_path):
        with pytest.raises(DataError, match="has no value in 1 row"):
            quick_fit(checkpoint, tmp_path / "a", self.odd().drop(index=109), hyperparameters=SHORT)
        with pytest.raises(ConfigError, match=r"on_error='reprot' is unknown\. Did you mean 'report'\?"):
            quick_fit(checkpoint, tmp_path / "a", on_error="reprot")

    def test_rows_to_validate_on(self, checkpoint, tmp_path):
        tuning = reviews(12, seed=4).astype(object)
        tuning.iat[3, 0], tuning.iat[4, 1], tuning.iat[6, 1] = b"bytes", 7, None
        with pytest.warns(UserWarning) as told:
            found = quick_fit(
                checkpoint, tmp_path / "a", self.odd(), tuning_data=tuning, hyperparameters=SHORT, on_error="report"
            )
        assert "3 rows of 12 in tuning_data could not be processed and are left out" in str(told.list[1].message)
        assert found.fit_summary()["train_rows"] == 34 and found.fit_summary()["validation_rows"] == 9
        last = found.rejected_rows.tail(3)
        assert last["position"].tolist() == [3, 4, 6] and set(last["table"]) == {"tuning_data"}
        assert last["reason"].tolist()[1:] == ["label '7', which training has not seen", "no label"]

    def test_a_second_fit(self, checkpoint, tmp_path):
        predictor = quick_fit(checkpoint, tmp_path / "a", hyperparameters=SHORT)
        with pytest.warns(UserWarning, match="6 rows of 40 in train_data"):
            predictor.fit(self.odd(), save_path=tmp_path / "b", on_error="report")
        assert len(predictor.rejected_rows) == 6 and predictor.fit_summary()["train_rows"] == 27

    def test_an_interrupted_one_goes_on_with_the_same_rows(self, checkpoint, tmp_path):
        more = {"optim.max_steps": 4, "env.state_interval": 0}
        with pytest.warns(UserWarning, match="left out"):
            quick_fit(checkpoint, tmp_path / "whole", self.odd(), hyperparameters=more, on_error="report")
        with pytest.warns(UserWarning, match="left out"):
            quick_fit(checkpoint, tmp_path / "a", self.odd(), hyperparameters=more, on_error="report", time_limit=1e-6)
        with pytest.warns(UserWarning, match="left out"):  # though it is not said again
            found = MultiModalPredictor.load(tmp_path / "a", resume=True, verbosity=0).fit(self.odd())
        assert found.fit_summary()["steps"] == 4 and len(found.rejected_rows) == 6
        assert (tmp_path / "a" / "trainable.safetensors").read_bytes() == (
            tmp_path / "whole" / "trainable.safetensors"
        ).read_bytes()

    def test_nothing_is_left(self, checkpoint, tmp_path):
        with pytest.warns(UserWarning, match="40 rows of 40"), pytest.raises(DataError, match="The table has no rows"):
            quick_fit(checkpoint, tmp_path / "a", reviews(40).assign(label=None), on_error="report")


@pytest.mark.parametrize("kind", ["polars", "arrow"])
def test_another_librarys_table_gives_what_the_pandas_frame_gives(kind, checkpoint, tmp_path, fitted):
    plain = reviews(40).reset_index(drop=True)

    def other(frame: pd.DataFrame) -> Any:
        if kind == "polars":
            return pytest.importorskip("polars").DataFrame(frame.to_dict("list"))
        import pyarrow as pa

        return pa.Table.from_pandas(frame)

    more = {"optim.max_steps": 2}
    ours = quick_fit(checkpoint, tmp_path / "a", plain, hyperparameters=more, tuning_data=plain[:8])
    theirs = quick_fit(checkpoint, tmp_path / "b", other(plain), hyperparameters=more, tuning_data=other(plain[:8]))
    assert (tmp_path / "a" / "trainable.safetensors").read_bytes() == (
        tmp_path / "b" / "trainable.safetensors"
    ).read_bytes()
    assert theirs.evaluate(other(plain)) == ours.evaluate(plain)
    assert np.array_equal(fitted.predict_proba(other(plain)), fitted.predict_proba(plain).to_numpy())
    assert fitted.predict(other(plain)).tolist() == fitted.predict(plain).tolist()
    pd.testing.assert_series_equal(fitted.predict(other(plain), as_pandas=True), fitted.predict(plain))
    gaps = plain.astype({"text": object})
    gaps.iloc[4, 0] = None
    assert fitted.predict(other(gaps)).tolist() == fitted.predict(gaps).tolist()


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
