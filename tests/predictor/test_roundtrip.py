"""Labels come back as they went in, in a new process too, whatever the order of the rows."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tiny_checkpoints import quick_fit, reviews

from featherfit import MultiModalPredictor

LABELS: dict[str, tuple[Any, ...]] = {
    "int": (3, 7),
    "str": ("bad", "good"),
    "bool": (False, True),
    "float": (1.0, 2.0),
    "three": ("bad", "fair", "good"),
    "regression": (),
}
NEW_PROCESS = """
import sys
import numpy as np
import pandas as pd
from featherfit import MultiModalPredictor

for kind in sys.argv[1:]:
    predictor = MultiModalPredictor.load(kind, verbosity=0)
    table = pd.read_parquet("table.parquet")
    predicted = predictor.predict(table)
    predicted.to_frame("label").to_parquet(f"{kind}-predicted.parquet")
    print(kind, predicted.dtype, type(predicted.tolist()[0]).__name__)
    if predictor.problem_type != "regression":
        np.save(f"{kind}-proba.npy", predictor.predict_proba(table).to_numpy())
    np.save(f"{kind}-embedding.npy", predictor.extract_embedding(table))
"""


def table_of(kind: str) -> pd.DataFrame:
    if kind != "regression":
        return reviews(42, labels=LABELS[kind])
    frame = reviews(42)
    return frame.assign(label=frame["text"].str.len() / 3 + frame["label"] * 10)


@pytest.fixture(scope="module")
def folder(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("roundtrip")


@pytest.fixture(scope="module")
def predictors(checkpoint: Path, folder: Path) -> dict[str, MultiModalPredictor]:
    return {kind: quick_fit(checkpoint, folder / kind, table_of(kind)) for kind in LABELS}


@pytest.fixture(scope="module")
def told(predictors: dict[str, MultiModalPredictor], folder: Path) -> dict[str, list[str]]:
    """What a new process, offline, says about the labels of each predictor."""
    reviews(30, seed=5)[["text"]].to_parquet(folder / "table.parquet")
    process = subprocess.run(
        [sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning", "-c", NEW_PROCESS, *LABELS],
        cwd=folder,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    return {line.split()[0]: line.split()[1:] for line in process.stdout.splitlines()}


@pytest.mark.parametrize("kind", LABELS)
def test_new_process_predicts_the_same_bits(kind, predictors, folder, told):
    predictor, table = predictors[kind], pd.read_parquet(folder / "table.parquet")
    pd.testing.assert_series_equal(
        pd.read_parquet(folder / f"{kind}-predicted.parquet")["label"], predictor.predict(table)
    )
    embedding = predictor.extract_embedding(table)
    assert np.load(folder / f"{kind}-embedding.npy").tobytes() == embedding.tobytes()
    assert embedding.std(axis=0).min() > 0  # rows do differ
    if kind != "regression":
        assert np.load(folder / f"{kind}-proba.npy").tobytes() == predictor.predict_proba(table).to_numpy().tobytes()


@pytest.mark.parametrize(
    ("kind", "dtype", "scalar"),
    [
        ("int", "int64", "int"),
        ("str", None, "str"),
        ("bool", "bool", "bool"),
        ("float", "float64", "float"),
        ("three", None, "str"),
        ("regression", "float64", "float"),
    ],
)
def test_labels_keep_type_and_values(kind, dtype, scalar, predictors, told):
    predictor, table = predictors[kind], table_of(kind)
    predicted = predictor.predict(table)
    assert predicted.dtype == (table["label"].dtype if dtype is None else dtype)
    assert {type(value).__name__ for value in predicted.tolist()} == {scalar}
    assert told[kind] == [str(predicted.dtype), scalar]
    if kind != "regression":
        assert predictor.class_labels.tolist() == list(LABELS[kind])
        assert set(predicted) <= set(LABELS[kind])
        assert predictor.predict_proba(table).columns.tolist() == list(LABELS[kind])
        assert [type(name) for name in predictor.predict_proba(table).columns.tolist()] == [
            type(LABELS[kind][0])
        ] * len(LABELS[kind])


@pytest.mark.parametrize("kind", LABELS)
def test_order_of_rows_is_of_no_consequence(kind, predictors):
    predictor, table = predictors[kind], table_of(kind).drop(columns="label")
    shuffled = table.sample(frac=1, random_state=1)
    assert not shuffled.index.equals(table.index)
    pd.testing.assert_series_equal(
        predictor.predict(shuffled).loc[table.index], predictor.predict(table), check_exact=True
    )
    if kind != "regression":
        pd.testing.assert_frame_equal(
            predictor.predict_proba(shuffled).loc[table.index], predictor.predict_proba(table), check_exact=True
        )


def test_rows_meet_their_own_results(predictors):
    """Each row alone gives what it gives in the table, up to rounding."""
    table = table_of("str").drop(columns="label")
    together = predictors["str"].predict_proba(table)
    alone = pd.concat([predictors["str"].predict_proba(table.iloc[[row]]) for row in range(len(table))])
    pd.testing.assert_frame_equal(together, alone, rtol=1e-4)


def test_predictions_follow_probabilities(predictors):
    proba = predictors["three"].predict_proba(table_of("three"))
    assert predictors["three"].predict(table_of("three")).tolist() == proba.idxmax(axis=1).tolist()
    np.testing.assert_allclose(proba.sum(axis=1), 1, atol=1e-6)


def test_callers_tables_stay_as_they_were(checkpoint, tmp_path):
    frame, tuning = reviews(), reviews(8, seed=3)
    before, tuning_before = frame.copy(deep=True), tuning.copy(deep=True)
    predictor = quick_fit(checkpoint, tmp_path / "artifact", frame, tuning_data=tuning)
    predictor.evaluate(frame, return_pred=True)
    predictor.predict(frame)
    predictor.predict_proba(frame)
    predictor.extract_embedding(frame, as_pandas=True)
    pd.testing.assert_frame_equal(frame, before)
    pd.testing.assert_frame_equal(tuning, tuning_before)


def test_pos_label_survives(checkpoint, tmp_path):
    frame = reviews(labels=("bad", "good"))
    predictor = quick_fit(checkpoint, tmp_path / "artifact", frame, hyperparameters={"data.pos_label": "bad"})
    loaded = MultiModalPredictor.load(tmp_path / "artifact", verbosity=0)
    assert predictor.positive_class == loaded.positive_class == "bad"
    assert loaded.class_labels.tolist() == ["good", "bad"]
    positive = loaded.predict_proba(frame, as_multiclass=False)
    pd.testing.assert_series_equal(positive, loaded.predict_proba(frame)["bad"])
