"""A probed head gives what scikit-learn's linear models give on the same embeddings."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge, RidgeCV
from sklearn.metrics import log_loss
from sklearn.model_selection import KFold, StratifiedKFold, cross_val_predict
from sklearn.preprocessing import StandardScaler

from featherfit.data.processors.label import LabelProcessor
from featherfit.data.processors.several import SeveralLabels, Target
from featherfit.models.heads import Head
from featherfit.training.probe import ALPHAS, STRENGTHS, probe_head

RANDOM = np.random.default_rng(0)
EMBEDDINGS = (RANDOM.normal(size=(60, 5)) * [1, 5, 0.1, 2, 1] + [0, 10, 0, -3, 1]).astype(np.float32)
SCORES = StandardScaler().fit_transform(EMBEDDINGS) @ RANDOM.normal(size=(5, 3)) + RANDOM.normal(size=(60, 3))
BLURRED = SCORES + RANDOM.normal(scale=6, size=(60, 3))
WEIGHTS = RANDOM.uniform(0.2, 3, size=60).astype(np.float32)


def probed(
    outputs: int, labels: np.ndarray, label: Target, weights: np.ndarray | None, *, seen: bool = False
) -> torch.Tensor:
    linear = Head(5, outputs, seed=0).linear
    probe_head(linear, EMBEDDINGS, labels, label, weights, seen=seen)
    with torch.no_grad():
        return linear(torch.from_numpy(EMBEDDINGS))


def logistic(labels: np.ndarray, weights: np.ndarray | None) -> LogisticRegression:
    """Of the strength with the least log-loss in five folds."""
    standard = StandardScaler().fit_transform(EMBEDDINGS)

    def loss(strength: float) -> float:
        proba = cross_val_predict(
            LogisticRegression(C=strength, max_iter=1000),
            standard,
            labels,
            cv=StratifiedKFold(5, shuffle=True, random_state=0),
            method="predict_proba",
            params={"sample_weight": weights},
        )
        return log_loss(labels, proba, sample_weight=weights)

    return LogisticRegression(C=min(STRENGTHS, key=loss), max_iter=1000).fit(standard, labels, weights)


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["even", "weighted"])
@pytest.mark.parametrize("classes", [2, 3])
def test_classification(classes, weights):
    labels = BLURRED[:, :classes].argmax(1)
    problem = "binary" if classes == 2 else "multiclass"
    label = LabelProcessor(problem, np.arange(classes))
    proba = torch.softmax(probed(classes, labels, label, weights), 1)
    standard = StandardScaler().fit_transform(EMBEDDINGS)
    chosen = logistic(labels, weights)
    assert chosen.C < 1
    np.testing.assert_allclose(proba, chosen.predict_proba(standard), atol=2e-3)


def test_an_encoder_that_has_seen_the_labels():
    """What it makes of rows held out would tell their classes too."""
    labels = SCORES.argmax(1)
    proba = torch.softmax(probed(3, labels, LabelProcessor("multiclass", np.arange(3)), None, seen=True), 1)
    standard = StandardScaler().fit_transform(EMBEDDINGS)
    expected = LogisticRegression(C=1, max_iter=1000).fit(standard, labels).predict_proba(standard)
    np.testing.assert_allclose(proba, expected, atol=2e-3)


def test_a_class_of_a_single_row():
    labels = np.where(np.arange(60) == 7, 2, SCORES[:, :2].argmax(1))
    proba = torch.softmax(probed(3, labels, LabelProcessor("multiclass", np.arange(3)), None), 1)
    standard = StandardScaler().fit_transform(EMBEDDINGS)
    expected = LogisticRegression(C=1, max_iter=1000).fit(standard, labels).predict_proba(standard)
    np.testing.assert_allclose(proba, expected, atol=2e-3)


def test_a_class_too_rare_to_be_among_the_rows_looked_at():
    """C is chosen on 5,000 rows, which seldom hold one of the two positive ones of 20,000."""
    draw = np.random.default_rng(3)
    seen = draw.normal(size=(20_000, 3)).astype(np.float32)
    labels = np.zeros(len(seen), dtype=int)
    labels[np.random.default_rng(0).permutation(len(seen))[-2:]] = 1
    linear = Head(3, 2, seed=0).linear
    probe_head(linear, seen, labels, LabelProcessor("binary", np.arange(2)), None)
    with torch.no_grad():
        proba = torch.softmax(linear(torch.from_numpy(seen)), 1)[:, 1]
    standard = StandardScaler().fit_transform(seen)
    np.testing.assert_allclose(
        proba, LogisticRegression(max_iter=1000).fit(standard, labels).predict_proba(standard)[:, 1], atol=2e-3
    )


def test_classes_of_few_rows_are_not_learned_by_heart():
    """Of 200 dimensions and 100 rows, two dimensions tell the class; without shrinkage the loss is that of guessing, or worse."""
    draw = np.random.default_rng(2)
    seen, other = (draw.normal(size=(rows, 200)).astype(np.float32) for rows in (100, 1000))
    labels, wanted = ((x[:, 0] + x[:, 1] + draw.normal(size=len(x)) > 0).astype(int) for x in (seen, other))
    losses = {}
    for known in (False, True):
        linear = Head(200, 2, seed=0).linear
        probe_head(linear, seen, labels, LabelProcessor("binary", np.arange(2)), None, seen=known)
        with torch.no_grad():
            losses[known] = torch.nn.functional.cross_entropy(linear(torch.from_numpy(other)), torch.from_numpy(wanted))
    assert losses[False] < np.log(2) < losses[True]


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
        expected = logistic(flags[:, place], None).predict_proba(standard)[:, 1]
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
