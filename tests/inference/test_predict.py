"""From a fitted predictor and a table to labels and scores, without the predictor's facade."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from tiny_checkpoints import quick_fit, reviews

from featherfit.errors import ConfigError, DataError
from featherfit.inference.predict import evaluate, outputs, table_rows


def test_labels_are_the_most_probable_classes(fitted):
    logits = np.array([[0.1, 0.2], [3.0, -1.0]], dtype=np.float32)
    assert fitted._fitted.reading.predictions(logits).tolist() == [1, 0]


def test_regression_labels_are_unscaled(checkpoint, tmp_path):
    frame = reviews().assign(label=lambda table: table["text"].str.len() * 100.0)
    record = quick_fit(checkpoint, tmp_path / "artifact", frame)._fitted
    scaled = np.array([[0.0], [1.0], [-2.0]], dtype=np.float32)
    center, scale = record.label.center, record.label.scale
    np.testing.assert_allclose(record.reading.predictions(scaled), [center, center + scale, center - 2 * scale])
    assert scale > 1


def test_label_column_is_not_read(fitted):
    frame = reviews(9)
    rows = table_rows(fitted._fitted, frame.assign(label="anything"))
    assert rows.labels is None
    bare = outputs(fitted._fitted, table_rows(fitted._fitted, frame[["text"]]))
    assert outputs(fitted._fitted, rows).tobytes() == bare.tobytes()


def test_evaluate(fitted):
    frame = reviews(20, seed=2)
    done: list[int] = []
    scores, predictions = evaluate(fitted._fitted, frame, ("acc", "F1"), None, done.append)
    assert list(scores) == ["accuracy", "f1"] and sum(done) == 20
    assert scores["accuracy"] == pytest.approx((predictions == frame["label"]).mean())
    assert evaluate(fitted._fitted, frame, "accuracy", None)[0] == {"accuracy": scores["accuracy"]}
    assert list(evaluate(fitted._fitted, frame, None, None)[0]) == ["roc_auc"]


def test_evaluate_refuses(fitted):
    with pytest.raises(ConfigError, match="metrics='rmse' is not for binary problems"):
        evaluate(fitted._fitted, reviews(), ["accuracy", "rmse"], None)
    with pytest.raises(DataError, match="no label column 'truth'"):
        evaluate(fitted._fitted, reviews(), None, "truth")
    with pytest.raises(DataError, match="has no rows"):
        evaluate(fitted._fitted, pd.DataFrame({"text": [], "label": []}), None, None)
