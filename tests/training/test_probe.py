"""A probed head gives what scikit-learn's linear models give on the same embeddings."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge, RidgeCV
from sklearn.model_selection import KFold, cross_val_predict
from sklearn.preprocessing import StandardScaler

from featherfit.data.processors.label import LabelProcessor
from featherfit.data.processors.several import SeveralLabels, Target
from featherfit.models.heads import Head
from featherfit.training.probe import ALPHAS, probe_head

RANDOM = np.random.default_rng(0)
EMBEDDINGS = (RANDOM.normal(size=(60, 5)) * [1, 5, 0.1, 2, 1] + [0, 10, 0, -3, 1]).astype(np.float32)
SCORES = StandardScaler().fit_transform(EMBEDDINGS) @ RANDOM.normal(size=(5, 3)) + RANDOM.normal(size=(60, 3))
WEIGHTS = RANDOM.uniform(0.2, 3, size=60).astype(np.float32)


def probed(outputs: int, labels: np.ndarray, label: Target, weights: np.ndarray | None) -> torch.Tensor:
    linear = Head(5, outputs, seed=0).linear
    probe_head(linear, EMBEDDINGS, labels, label, weights)
    with torch.no_grad():
        return linear(torch.from_numpy(EMBEDDINGS))


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["even", "weighted"])
@pytest.mark.parametrize("classes", [2, 3])
def test_classification(classes, weights):
    labels = SCORES[:, :classes].argmax(1)
    problem = "binary" if classes == 2 else "multiclass"
    label = LabelProcessor(problem, np.arange(classes))
    proba = torch.softmax(probed(classes, labels, label, weights), 1)
    standard = StandardScaler().fit_transform(EMBEDDINGS)
    expected = LogisticRegression(max_iter=1000).fit(standard, labels, weights).predict_proba(standard)
    np.testing.assert_allclose(proba, expected, atol=2e-3)


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["even", "weighted"])
def test_regression(weights):
    standard = StandardScaler().fit_transform(EMBEDDINGS)
    expected = RidgeCV(ALPHAS).fit(standard, SCORES[:, 0], weights).predict(standard)
    np.testing.assert_allclose(
        probed(1, SCORES[:, 0], LabelProcessor("regression"), weights)[:, 0], expected, atol=1e-3
    )


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["even", "weighted"])
def test_several_targets(weights):
    label = SeveralLabels("regression", ["a", "b", "c"], (LabelProcessor("regression"),) * 3)
    standard = StandardScaler().fit_transform(EMBEDDINGS)
    expected = RidgeCV(ALPHAS).fit(standard, SCORES, weights).predict(standard)
    np.testing.assert_allclose(probed(3, SCORES, label, weights), expected, atol=1e-3)


def test_numbers_of_few_rows_are_not_learned_by_heart():
    """Of 60 dimensions and 60 rows, one dimension tells the target."""
    draw = np.random.default_rng(1)
    seen, other = (draw.normal(size=(60, 60)).astype(np.float32) for _ in range(2))
    linear = Head(60, 1, seed=0).linear
    probe_head(linear, seen, seen[:, 0] + draw.normal(size=60), LabelProcessor("regression"), None)
    with torch.no_grad():
        errors = linear(torch.from_numpy(other))[:, 0].numpy() - other[:, 0]
    assert np.square(errors).mean() < np.square(other[:, 0]).mean()


def test_several_labels_one_of_which_no_row_has():
    flags = (SCORES > [0, 1, np.inf]).astype(np.float32)
    label = SeveralLabels("multilabel", ["a", "b", "c"], (LabelProcessor("binary", np.array([0, 1])),) * 3)
    given = torch.sigmoid(probed(3, flags, label, None)).numpy()
    standard = StandardScaler().fit_transform(EMBEDDINGS)
    for place in (0, 1):
        expected = LogisticRegression(max_iter=1000).fit(standard, flags[:, place]).predict_proba(standard)[:, 1]
        np.testing.assert_allclose(given[:, place], expected, atol=2e-3)
    np.testing.assert_allclose(given[:, 2], 1 / 62, rtol=1e-5)


def test_quantiles_start_as_the_regression_and_its_errors():
    targets, levels = SCORES[:, 0], (0.1, 0.5, 0.9)
    given = probed(3, targets, LabelProcessor("quantile", levels=levels), None).numpy()
    standard = StandardScaler().fit_transform(EMBEDDINGS)
    ridge = RidgeCV(ALPHAS).fit(standard, targets)
    mean = ridge.predict(standard)
    folds = KFold(5, shuffle=True, random_state=0)
    errors = np.quantile(targets - cross_val_predict(Ridge(ridge.alpha_), standard, targets, cv=folds), levels)
    np.testing.assert_allclose(given, mean[:, None] + errors, atol=2e-3)
    assert np.ptp(errors) > np.ptp(np.quantile(targets - mean, levels))  # the regression's own rows say too little


def test_targets_a_sigmoid_gives():
    shares = 1 / (1 + np.exp(-SCORES[:, 0]))
    given = torch.sigmoid(probed(1, shares, LabelProcessor("regression", link="sigmoid"), None)[:, 0]).numpy()
    assert np.corrcoef(given, shares)[0, 1] > 0.8 and 0 < given.min() < given.max() < 1
