"""What a constant scores, against scikit-learn's dummies, and who is warned."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.metrics import accuracy_score, log_loss, mean_pinball_loss, mean_squared_error

from featherfit.data.processors.label import LabelProcessor
from featherfit.data.processors.several import SeveralLabels
from featherfit.evaluation.chance import score_of_constant, warn_of_chance

DRAW = np.random.default_rng(0)
CLASSES = DRAW.choice(3, p=[0.2, 0.5, 0.3], size=90)
VALUES = DRAW.normal(7.0, 3.0, size=90)


def classes(problem_type: str = "multiclass", ids: np.ndarray = CLASSES) -> tuple[LabelProcessor, np.ndarray]:
    label = LabelProcessor.fit(pd.Series(ids), problem_type, None, None)
    return label, label.encode(pd.Series(ids))


def values() -> tuple[LabelProcessor, np.ndarray]:
    label = LabelProcessor.fit(pd.Series(VALUES[:60]), "regression", None, "standardscaler")
    return label, label.encode(pd.Series(VALUES))


def test_the_most_frequent_class():
    label, ids = classes()
    dummy = DummyClassifier(strategy="prior").fit(ids[:60, None], ids[:60])
    expected = accuracy_score(ids[60:], dummy.predict(ids[60:, None]))
    assert score_of_constant("accuracy", ids[:60], ids[60:], label) == pytest.approx(expected)
    expected = log_loss(ids[60:], dummy.predict_proba(ids[60:, None]), labels=[0, 1, 2])
    assert score_of_constant("log_loss", ids[:60], ids[60:], label) == pytest.approx(expected, rel=1e-6)


def test_ranks_nothing():
    label, ids = classes("binary", np.arange(60) % 2)
    assert score_of_constant("roc_auc", ids[:30], ids[30:], label) == 0.5


def test_the_mean():
    label, targets = values()
    dummy = DummyRegressor().fit(VALUES[:60, None], VALUES[:60])
    expected = mean_squared_error(VALUES[60:], dummy.predict(VALUES[60:, None])) ** 0.5
    assert score_of_constant("rmse", targets[:60], targets[60:], label) == pytest.approx(expected, rel=1e-5)


def warnings_of(metric: str, score: float, encoded: np.ndarray, label: LabelProcessor) -> list[str]:
    """Of a score on the last 30 of 90 rows."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn_of_chance(metric, score, encoded[:60], encoded[60:], label)
    return [str(one.message) for one in caught]


@pytest.mark.parametrize(("by", "warned"), [(-0.1, True), (0.0, True), (0.1, False), (float("nan"), True)])
def test_who_is_warned(by, warned):
    label, ids = classes()
    score = score_of_constant("accuracy", ids[:60], ids[60:], label) + by
    told = warnings_of("accuracy", score, ids, label)
    assert ["learnt nothing that helps on the 30 validation rows" in text for text in told] == [True] * warned


@pytest.mark.parametrize(("by", "warned"), [(-0.1, False), (0.1, True)])
def test_errors_are_better_when_smaller(by, warned):
    label, targets = values()
    score = score_of_constant("rmse", targets[:60], targets[60:], label) + by
    assert len(warnings_of("rmse", score, targets, label)) == warned


def test_few_rows_say_little():
    label, ids = classes()
    warn_of_chance("accuracy", 0.0, ids[:60], ids[60:75], label)


def test_the_quantiles():
    label = LabelProcessor.fit(pd.Series(VALUES[:60]), "quantile", levels=(0.1, 0.5, 0.9))
    targets = label.encode(pd.Series(VALUES))
    quantiles = np.quantile(VALUES[:60], label.levels)
    expected = np.mean(
        [mean_pinball_loss(VALUES[60:], np.full(30, q), alpha=a) for q, a in zip(quantiles, label.levels, strict=True)]
    )
    assert score_of_constant("pinball_loss", targets[:60], targets[60:], label) == pytest.approx(expected, rel=1e-5)


def test_the_shares_of_several_labels():
    flags = (np.random.default_rng(1).random((90, 2)) < [0.2, 0.7]).astype(np.float32)
    label = SeveralLabels.fit(pd.DataFrame(flags.astype(int), columns=["a", "b"]), "multilabel")
    shares = flags[:60].mean(axis=0)
    expected = -np.mean(np.log(np.where(flags[60:], shares, 1 - shares)))
    assert score_of_constant("log_loss", flags[:60], flags[60:], label) == pytest.approx(expected, rel=1e-5)


def test_the_mean_through_a_sigmoid():
    label = LabelProcessor.fit(pd.Series(VALUES), "regression", None, "minmaxscaler", link="sigmoid")
    targets = label.encode(pd.Series(VALUES))
    expected = mean_squared_error(VALUES[60:], np.full(30, VALUES[:60].mean())) ** 0.5
    assert score_of_constant("rmse", targets[:60], targets[60:], label) == pytest.approx(expected, rel=1e-4)


def test_weights_count():
    label, targets = values()
    weights = np.linspace(0, 1, 30)
    expected = np.sqrt(np.average((VALUES[60:] - VALUES[:60].mean()) ** 2, weights=weights))
    assert score_of_constant("rmse", targets[:60], targets[60:], label, weights) == pytest.approx(expected, rel=1e-5)
