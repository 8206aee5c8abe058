"""Whatever the table, the answer is a result for its own rows or an error of ours, and the table is as it was."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from odd_values import TEXT, VALUES, frames
from tiny_checkpoints import settings, write_checkpoint

from featherfit import MultiModalPredictor
from featherfit.checkpoints import resolve_checkpoint
from featherfit.config.dotted import build_config
from featherfit.data.dataset import make_dataset
from featherfit.data.findings import check_data
from featherfit.data.load import load_table
from featherfit.data.processors.label import LabelProcessor
from featherfit.data.processors.notext import NoText
from featherfit.data.processors.text import TextProcessor
from featherfit.data.schema import infer_schema
from featherfit.data.split import split_holdout
from featherfit.errors import FeatherfitError

pytestmark = pytest.mark.filterwarnings("ignore")
PROBLEMS = st.sampled_from([None, None, "binary", "multiclass", "regression", "classification"])


def fingerprint(frame: pd.DataFrame) -> Any:
    return [
        list(map(repr, frame.index)),
        list(frame.columns),
        [[repr(value) for value in row] for row in frame.to_numpy(dtype=object)],
        list(map(str, frame.dtypes)),
    ]


@pytest.fixture(scope="module")
def text_of(tmp_path_factory):
    """Makes a tokenizer's processor for some columns, without reading it again."""
    folder = write_checkpoint(tmp_path_factory.mktemp("fuzz") / "bert")
    config = build_config(settings(folder)).model.hf_text
    whole = TextProcessor.from_checkpoint(resolve_checkpoint(str(folder)), ["text"], config)

    def make(names: list[str]) -> TextProcessor:
        processor = copy.copy(whole)
        processor.columns = names
        return processor

    return make


@given(frame=frames(), problem=PROBLEMS)
def test_what_a_fit_begins_with(frame, problem, text_of):
    before = fingerprint(frame)
    try:
        table = load_table(frame)
        schema = infer_schema(table, "label", problem_type=problem)
        train, tuning = split_holdout(table, schema)
        label = LabelProcessor.fit(train["label"], schema.problem_type)
        report = check_data(train, tuning, schema)
        dataset = make_dataset(train, schema, text_of(schema.text_columns) if schema.text_columns else NoText(), label)
    except FeatherfitError as error:
        assert str(error)
    else:
        assert len(dataset) == len(train) and len(train) + len(tuning) == len(frame) and str(report)
        assert np.isfinite(dataset.labels).all() and (dataset.rows.lengths.min() > 0) == bool(schema.text_columns)
    assert fingerprint(frame) == before


@given(frame=frames())
def test_labels_survive_their_state(frame):
    try:
        schema = infer_schema(load_table(frame), "label")
        label = LabelProcessor.fit(frame["label"], schema.problem_type)
        ids = label.encode(frame["label"])
    except FeatherfitError:
        return
    again = LabelProcessor.from_json(label.to_json())
    assert np.array_equal(again.encode(frame["label"]), ids)
    if schema.problem_type != "regression":
        assert again.decode(ids).tolist() == label.decode(ids).tolist() and again.classes.dtype == label.classes.dtype


@given(frame=frames(most_rows=6), report=st.booleans())
def test_predict(frame, report, fitted: MultiModalPredictor):
    before = fingerprint(frame)
    try:
        found = fitted.predict(frame, on_error="report" if report else "raise")
    except FeatherfitError as error:
        assert str(error)
    else:
        assert found.index.equals(frame.index)
        missing = set(np.flatnonzero(found.isna()))
        assert missing == (set(fitted.rejected_rows["position"]) if report else set())
        for place in range(len(frame)):
            if place not in missing:
                assert fitted.predict(frame.iloc[[place]]).tolist() == [found.iloc[place]]
    assert fingerprint(frame) == before


@given(frame=frames(most_rows=6), report=st.booleans())
def test_evaluate(frame, report, fitted: MultiModalPredictor):
    before = fingerprint(frame)
    try:
        scores = fitted.evaluate(
            frame, metrics=["accuracy", "roc_auc", "log_loss"], on_error="report" if report else "raise"
        )
    except FeatherfitError as error:
        assert str(error)
    else:
        assert 0 <= scores["accuracy"] <= 1
    assert fingerprint(frame) == before


@given(
    data=st.one_of(
        VALUES,
        st.lists(st.one_of(VALUES, st.dictionaries(TEXT, VALUES, max_size=2)), max_size=3),
        st.dictionaries(TEXT, st.one_of(VALUES, st.lists(VALUES, max_size=3)), max_size=3),
    )
)
def test_load_anything(data):
    try:
        assert isinstance(load_table(data), pd.DataFrame)
    except FeatherfitError as error:
        assert str(error)


LINES = st.lists(
    st.one_of(
        st.binary(max_size=12),
        st.sampled_from(
            [
                b'{"text": "a b", "label": 1}',
                b"a,b",
                b'"a',
                b"[",
                b"{}",
                b'{"a": "\\ud800"}',
                b"\xff",
                b"text,label",
                b"x y,1",
            ]
        ),
    ),
    max_size=6,
)


@given(
    content=LINES.map(b"\n".join),
    ending=st.sampled_from([".csv", ".tsv", ".json", ".jsonl", ".parquet", ".csv.gz", ".json.gz"]),
)
def test_load_any_file(content, ending):
    file = Path(f"file{ending}")
    file.write_bytes(content)
    try:
        assert isinstance(load_table(str(file)), pd.DataFrame)
    except FeatherfitError as error:
        assert str(error)


@given(
    content=LINES.map(b"\n".join),
    ending=st.sampled_from([".csv", ".tsv", ".json", ".jsonl", ".parquet"]),
    to=st.sampled_from([".csv", ".jsonl", ".parquet"]),
)
def test_predict_any_file(content, ending, to, fitted):
    file, out = Path(f"file{ending}"), Path(f"out{to}")
    file.write_bytes(b"text,label\nx y,1\n" + content if ending == ".csv" else content)
    try:
        done = fitted.predict_file(file, out, chunk_rows=2, overwrite=True, on_error="report", proba=True)
    except FeatherfitError as error:
        assert str(error)
    else:
        assert len(load_table(str(out))) == done.rows or to == ".csv"


def test_tables_are_no_pickles(tmp_path):
    (tmp_path / "table.pkl").write_bytes(pickle.dumps(pd.DataFrame({"a": [1]})))
    with pytest.raises(FeatherfitError, match="cannot tell the format"):
        load_table(str(tmp_path / "table.pkl"))
