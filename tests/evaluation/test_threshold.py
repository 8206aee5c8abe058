"""The tuned threshold is the best there is, by trying them all with scikit-learn's metrics."""

from __future__ import annotations

import numpy as np
import pytest

from featherfit.errors import ConfigError, DataError
from featherfit.evaluation.confusion import OF_COUNTS, counts_of
from featherfit.evaluation.metrics import METRICS
from featherfit.evaluation.threshold import tune_threshold

RANDOM = np.random.default_rng(0)
TRUE = (RANDOM.random(80) < 0.3).astype(np.int64)
POSITIVE = np.round(0.15 * TRUE + 0.3 * RANDOM.random(80), 2).astype(np.float32)  # with ties


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true", "ignore:A single label was found")
@pytest.mark.parametrize("rows", [1, 2, 5, 60])
@pytest.mark.parametrize(
    ("name", "classes"),
    [
        (name, classes)
        for name in OF_COUNTS
        for problem, classes in (("binary", 2), ("multiclass", 4))
        if problem in METRICS[name].problems
    ],
)
def test_metrics_of_matrices_are_scikit_learns(name, classes, rows):
    random = np.random.default_rng(rows)
    matrices, expected = [], []
    for _ in range(20):
        true, ids = random.integers(0, classes, (2, rows))
        matrices.append(counts_of(true, ids, classes))
        expected.append(METRICS[name].function(true, ids))
    np.testing.assert_allclose(OF_COUNTS[name](np.array(matrices)), expected, atol=1e-12)


@pytest.mark.parametrize("metric", ["f1", "accuracy", "balanced_accuracy", "mcc", "recall_macro"])
def test_no_threshold_is_better(metric):
    found = tune_threshold(TRUE, POSITIVE, metric, 0.5)

    def score(threshold: float) -> float:
        return METRICS[metric].function(TRUE, (POSITIVE > threshold).astype(np.int64))

    assert found.after == pytest.approx(score(found.threshold)) == max(map(score, np.linspace(0, 1, 1001)))
    assert found.before == pytest.approx(score(0.5)) and found.after > found.before
    assert (found.metric, found.rows) == (metric, 80)
    assert f"{found.after:.4f} after" in str(found)


def test_the_nearest_to_a_half_of_those_as_good():
    true = np.array([0, 0, 1, 1])
    assert tune_threshold(true, np.array([0.1, 0.2, 0.8, 0.9]), "acc", 0.5).threshold == 0.5
    assert tune_threshold(true, np.array([0.1, 0.2, 0.3, 0.9]), "acc", 0.5).threshold == pytest.approx(0.25)


def test_what_cannot_be_tuned():
    with pytest.raises(ConfigError, match=r"metric='roc_auc' does not depend .* Allowed: accuracy"):
        tune_threshold(TRUE, POSITIVE, "roc_auc", 0.5)
    with pytest.raises(ConfigError, match="Did you mean 'f1_macro'"):
        tune_threshold(TRUE, POSITIVE, "f1_makro", 0.5)
    with pytest.raises(DataError, match="one class"):
        tune_threshold(TRUE * 0, POSITIVE, "f1", 0.5)
