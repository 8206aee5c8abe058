"""A file predicted chunk by chunk is the file predicted at once."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tiny_checkpoints import quick_fit, reviews

from featherfit import MultiModalPredictor
from featherfit.data.load import load_table
from featherfit.errors import ConfigError, DataError, NotFittedError, PathExistsError
from featherfit.inference import stream
from featherfit.inference.predict import outputs, table_rows
from featherfit.inference.stream import RecentResults, row_digests

ROWS = 30
DISTINCT = 23


@pytest.fixture(scope="module")
def fitted(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> MultiModalPredictor:
    """A predictor that has learnt enough to give both labels."""
    more = {"optim.max_epochs": 10, "optim.peft": "lora"}
    return quick_fit(checkpoint, tmp_path_factory.mktemp("learnt") / "artifact", reviews(80), hyperparameters=more)


@pytest.fixture
def table() -> pd.DataFrame:
    """Rows with repeated and missing texts, and columns beside them; no label."""
    frame = reviews(ROWS, seed=4, index_from=0)[["text"]]
    frame.loc[20:24, "text"] = frame.loc[3:7, "text"].tolist()
    frame.loc[[8, 25], "text"] = None
    return frame.assign(id=[f"id-{row}" for row in range(ROWS)], n=range(ROWS))


def write(frame: pd.DataFrame, name: str) -> str:
    """The table in the working folder, in the format of the name's ending."""
    raw: dict[str, str] = {
        ".csv": frame.to_csv(index=False),
        ".tsv": frame.to_csv(index=False, sep="\t"),
        ".jsonl": frame.to_json(orient="records", lines=True),
        ".json": frame.to_json(orient="records"),
    }
    if name.endswith(".parquet"):
        frame.to_parquet(name, index=False)
    elif name.endswith(".gz"):
        Path(name).write_bytes(gzip.compress(raw[Path(name[:-3]).suffix].encode()))
    else:
        Path(name).write_text(raw[Path(name).suffix])
    return name


def no_leftovers(*names: str) -> bool:
    return sorted(os.listdir()) == sorted(names)


@pytest.mark.parametrize("chunk_rows", [1, 7, 1000])
@pytest.mark.parametrize("source", ["s.csv", "s.tsv", "s.jsonl", "s.json", "s.parquet", "s.csv.gz"])
def test_every_source_and_chunk_size(source, chunk_rows, fitted, table):
    whole = load_table(write(table, source))
    done = fitted.predict_file(source, "t.parquet", proba=True, keep_columns=["id", "n"], chunk_rows=chunk_rows)
    assert (done.path, done.rows) == (Path("t.parquet"), ROWS)
    got = pd.read_parquet(done)
    assert list(got.columns) == ["id", "n", "label", "proba_0", "proba_1"]
    assert got["id"].tolist() == table["id"].tolist() and got["n"].tolist() == list(range(ROWS))
    assert got["label"].tolist() == fitted.predict(whole).tolist()
    assert got["label"].nunique() == 2 and got["proba_1"].dtype == np.float32
    np.testing.assert_allclose(got[["proba_0", "proba_1"]], fitted.predict_proba(whole), atol=1e-6)
    assert no_leftovers(source, "t.parquet")


@pytest.mark.parametrize("target", ["t.csv", "t.tsv", "t.jsonl", "t.parquet"])
def test_every_target(target, fitted, table):
    fitted.predict_file(write(table, "s.csv"), target, proba=True, keep_columns="id", chunk_rows=8)
    got = load_table(target)
    assert list(got.columns) == ["id", "label", "proba_0", "proba_1"]
    assert got["id"].tolist() == table["id"].tolist()
    assert got["label"].tolist() == fitted.predict(table).tolist()
    np.testing.assert_allclose(got[["proba_0", "proba_1"]], fitted.predict_proba(table), atol=1e-6)


@pytest.mark.parametrize("target", ["t.csv", "t.jsonl", "t.parquet"])
@pytest.mark.parametrize("labels", [("bad", "good"), (False, True), (1.0, 2.0), ("a", "b", "c"), None], ids=str)
def test_labels_of_every_kind(labels, target, checkpoint, table, tmp_path):
    train = reviews(42, labels=labels or (0, 1))
    if labels is None:
        train = train.assign(label=train["text"].str.len() / 3 + train["label"] * 10)
    predictor = quick_fit(checkpoint, tmp_path / "artifact", train)
    predictor.predict_file(write(table, "s.parquet"), target, chunk_rows=9)
    got, expected = load_table(target)["label"], predictor.predict(table)
    if labels is None:
        assert got.dtype == "float64"
        np.testing.assert_allclose(got, expected, rtol=1e-5)
    else:
        assert got.tolist() == expected.tolist()
        assert {type(value) for value in got.tolist()} == {type(labels[0])}


def test_several_text_columns(checkpoint, tmp_path, table):
    train = reviews(40)
    train["title"] = reviews(40, seed=8)["text"].tolist()
    predictor = quick_fit(checkpoint, tmp_path / "artifact", train)
    table["title"] = table["text"].tolist()[::-1]
    write(table, "s.jsonl")
    predictor.predict_file("s.jsonl", "t.parquet", proba=True, keep_columns=["title"], chunk_rows=4)
    got = pd.read_parquet("t.parquet")
    assert got["title"].fillna("").tolist() == table["title"].fillna("").tolist()
    np.testing.assert_allclose(got[["proba_0", "proba_1"]], predictor.predict_proba(table), atol=1e-6)


class TestOneTable:
    """`predict_table`: what a file would hold, in memory."""

    def test_it_is_what_the_file_holds(self, fitted, table, monkeypatch):
        forwards = []
        kept = MultiModalPredictor._table_outputs
        monkeypatch.setattr(
            MultiModalPredictor, "_table_outputs", lambda *args, **named: forwards.append(1) or kept(*args, **named)
        )
        table.index = pd.Index([f"row {number}" for number in range(ROWS)])
        got = fitted.predict_table(table, proba=True)
        assert forwards == [1] and got.index.equals(table.index)
        fitted.predict_file(write(table, "s.parquet"), "t.parquet", proba=True)
        pd.testing.assert_frame_equal(got.reset_index(drop=True), pd.read_parquet("t.parquet"), atol=1e-6)
        assert fitted.predict_table(table).columns.tolist() == ["label"]
        assert fitted.predict_table({"text": table["text"].tolist()})["label"].tolist() == got["label"].tolist()

    def test_labels_follow_the_threshold(self, fitted, table):
        positive = fitted.predict_proba(table)[1]
        high = float(positive.quantile(0.8))
        before, found = fitted.threshold, []
        for threshold in (high, before):
            fitted.set_threshold(threshold)
            found.append(fitted.predict_table(table, proba=True))
        assert (found[0]["label"] == (positive > high)).all()
        assert (found[1]["label"] == (positive > before)).all() and (found[0]["label"] != found[1]["label"]).any()

    def test_rows_set_aside_have_no_result(self, fitted, table):
        table = table.astype({"text": object})
        table.loc[3, "text"] = b"no text"
        with pytest.warns(match="1 row"):
            got = fitted.predict_table(table, proba=True, on_error="report")
        assert got.isna().all(axis=1).tolist() == [row == 3 for row in range(ROWS)]
        assert got["label"].dtype == "Int64"
        with pytest.raises(DataError, match="bytes"):
            fitted.predict_table(table)


def test_no_rows(fitted, table):
    for source, target in (("s.parquet", "t.csv"), ("s.csv", "t.parquet"), ("s.csv", "t.jsonl")):
        done = fitted.predict_file(write(table.head(0), source), target, keep_columns=["id"], overwrite=True)
        assert (done.rows, done.computed) == (0, 0)
    assert Path("t.csv").read_text() == "id,label\n"
    assert pd.read_parquet("t.parquet").dtypes.astype(str)["label"] == "int64"


class TestRecentResults:
    @pytest.mark.parametrize("limit", [0, 12, 23, 100])
    def test_changes_nothing_but_the_work(self, limit, fitted, table):
        """The table comes twice, in chunks of 6."""
        record, texts = fitted._fitted, table["text"].fillna("")
        expected = outputs(record, table_rows(record, table))
        recent, starts = RecentResults(record, limit), range(0, ROWS, 6)
        for start in [*starts, *starts]:
            logits = recent.logits(table[start : start + 6])
            np.testing.assert_allclose(logits, expected[start : start + 6], atol=1e-5)
        least, most = texts.nunique(), 2 * sum(texts[start : start + 6].nunique() for start in starts)
        assert (least, most) == (DISTINCT, 2 * ROWS)
        assert len(recent._known) == min(limit, least)
        assert recent.computed == {0: most, 12: recent.computed}.get(limit, least)
        assert least <= recent.computed <= most and (limit != 12 or least < recent.computed)

    def test_repeats_within_a_chunk(self, fitted, table):
        recent = RecentResults(fitted._fitted, 0)
        recent.logits(table)
        assert recent.computed == DISTINCT

    def test_the_least_recent_goes_first(self, fitted):
        rows = pd.DataFrame({"text": ["a", "the", "box", "it"]})
        recent = RecentResults(fitted._fitted, 2)
        for position in (0, 1, 0, 2):  # "the" is the one that has to go
            recent.logits(rows.iloc[[position]])
        assert recent.computed == 3
        recent.logits(rows.iloc[[0]])
        assert recent.computed == 3
        recent.logits(rows.iloc[[1]])
        assert recent.computed == 4

    def test_progress_counts_every_row(self, fitted, table):
        done: list[int] = []
        recent = RecentResults(fitted._fitted, 100)
        for _ in range(2):
            recent.logits(table, done.append)
        assert sum(done) == 2 * ROWS

    def test_digests(self):
        frame = pd.DataFrame({"a": ["x", "x,y", None, "", 1, 1.0], "b": ["y,z", "z", "q", "q", "", ""]})
        digests = row_digests(frame, ["a", "b"])
        assert [digests.index(digest) for digest in digests] == [0, 1, 2, 2, 4, 4]
        assert all(len(digest) == 16 for digest in digests)

    def test_report_says_how_many(self, fitted, table):
        assert fitted.predict_file(write(table, "s.csv"), "t.csv", chunk_rows=5).computed == DISTINCT


def test_memory_holds_one_chunk(fitted, table, monkeypatch):
    """Nothing that is read or computed outlives its chunk by more than one."""
    import weakref

    write(pd.concat([table] * 10), "s.csv")
    alive: list[weakref.ref] = []
    most = 0
    own = RecentResults.logits

    def watched(self, frame, progress=None):
        nonlocal most
        alive.append(weakref.ref(frame))
        most = max(most, sum(ref() is not None for ref in alive))
        return own(self, frame, progress)

    monkeypatch.setattr(RecentResults, "logits", watched)
    fitted.predict_file("s.csv", "t.csv", chunk_rows=20)
    assert len(alive) == 15 and most <= 2


class TestFailures:
    def test_in_the_middle(self, fitted, table, monkeypatch):
        write(table, "s.csv")
        own, calls = stream.outputs, []

        def failing(*given, **named):
            calls.append(1)
            if len(calls) == 3:
                raise KeyboardInterrupt
            return own(*given, **named)

        monkeypatch.setattr(stream, "outputs", failing)
        for before in (None, "earlier"):
            calls.clear()
            if before:
                Path("t.csv").write_text(before)
            with pytest.raises(KeyboardInterrupt):
                fitted.predict_file("s.csv", "t.csv", chunk_rows=5, overwrite=True)
            assert len(calls) == 3
        assert Path("t.csv").read_text() == "earlier" and no_leftovers("s.csv", "t.csv")

    def test_a_bad_row_by_its_position(self, fitted):
        records = [{"text": "good"}] * 11 + [{"text": ["bad"]}]
        Path("s.jsonl").write_text("\n".join(map(json.dumps, records)))
        with pytest.raises(DataError, match=r"^Row 11, column 'text': list is neither text nor a number"):
            fitted.predict_file("s.jsonl", "t.csv", chunk_rows=4)
        assert no_leftovers("s.jsonl")

    def test_a_broken_file_costs_no_work(self, fitted, monkeypatch):
        Path("s.csv").write_text("text,n\n" + "good,1\n" * 9 + "bad,1,2\n")
        monkeypatch.delattr(stream, "outputs")
        with pytest.raises(DataError, match=r"Expected 2 fields in line 11, saw 3"):
            fitted.predict_file("s.csv", "t.csv", chunk_rows=4)

    def test_columns(self, fitted, table):
        for source in ("s.csv", "s.jsonl", "s.parquet"):
            write(table.rename(columns={"text": "txt"}), source)
            with pytest.raises(DataError) as caught:
                fitted.predict_file(source, "t.csv", keep_columns=["idd", "n"])
            assert str(caught.value) == (
                f"2 problems in the source:\n  - '{source}' lacks the text columns 'text'. Needed: text. Given: txt, id, n."
                "\n  - keep_columns names 'idd', which is not a column. Did you mean 'id'? Given: txt, id, n."
            )

    def test_arguments_all_at_once(self, fitted, table):
        write(table, "s.csv")
        with pytest.raises(ConfigError) as caught:
            fitted.predict_file("s.csv", "t.csv", keep_columns=["label", "id", "id"], chunk_rows=0)
        assert [problem.split(" ")[0] for problem in caught.value.problems] == ["chunk_rows=0", "keep_columns"] + [
            "keep_columns"
        ]
        with pytest.raises(ConfigError, match="names 'proba_1', which is what a column of predictions"):
            fitted.predict_file("s.csv", "t.csv", proba=True, keep_columns=["proba_1"])
        for wrong in (True, 2.5, "7", -1):
            with pytest.raises(ConfigError, match="has to be a whole number of at least 1"):
                fitted.predict_file("s.csv", "t.csv", chunk_rows=wrong)

    def test_proba_of_regression(self, checkpoint, tmp_path, table):
        train = reviews().assign(label=lambda frame: frame["text"].str.len() * 1.5)
        predictor = quick_fit(checkpoint, tmp_path / "artifact", train)
        with pytest.raises(ConfigError, match="this predictor does regression"):
            predictor.predict_file(write(table, "s.csv"), "t.csv", proba=True)

    def test_paths(self, fitted, table):
        write(table, "s.csv")
        Path("there.csv").write_text("kept")
        with pytest.raises(PathExistsError, match=r"there\.csv exists"):
            fitted.predict_file("s.csv", "there.csv")
        assert Path("there.csv").read_text() == "kept"
        with pytest.raises(ConfigError, match="is the input itself"):
            fitted.predict_file("s.csv", Path.cwd() / "s.csv", overwrite=True)
        with pytest.raises(ConfigError, match="has to end in one of"):
            fitted.predict_file("s.csv", "t.txt")
        with pytest.raises(DataError, match=r"source: 'none\.csv' does not exist"):
            fitted.predict_file("none.csv", "t.csv")
        with pytest.raises(DataError, match=r"source: cannot tell the format of 's\.xlsx'"):
            fitted.predict_file("s.xlsx", "t.csv")
        fitted.predict_file("s.csv", "there.csv", overwrite=True)
        assert Path("there.csv").read_text().startswith("label\n") and no_leftovers("s.csv", "there.csv")

    def test_columns_the_target_cannot_hold(self, fitted):
        Path("s.jsonl").write_text('{"text": "good", "x": 1}\n{"text": "bad", "x": "one"}\n')
        with pytest.raises(DataError, match=r"Columns 'x' hold values of several kinds.*Write \.jsonl"):
            fitted.predict_file("s.jsonl", "t.parquet", keep_columns=["x"])
        fitted.predict_file("s.jsonl", "t.jsonl", keep_columns=["x"])
        assert [json.loads(line)["x"] for line in Path("t.jsonl").read_text().splitlines()] == [1, "one"]

    def test_before_fit(self, table):
        with pytest.raises(NotFittedError):
            MultiModalPredictor("label").predict_file(write(table, "s.csv"), "t.csv")


def test_progress_knows_the_rows(fitted, table, monkeypatch):
    totals, done = [], []

    @contextlib.contextmanager
    def progress(total):
        totals.append(total)
        yield done.append

    for source in ("s.csv", "s.parquet", "s.jsonl"):
        stream.predict_file(fitted._fitted, write(table, source), f"{source}.csv", chunk_rows=7, progress=progress)
    assert totals == [ROWS] * 3 and sum(done) == 3 * ROWS
