"""Embeddings of the training rows and their labels go in; a head that already fits them comes out.

A head with random weights sends noise into the encoder during the first steps and bends features that carry over to
other languages. Starting from a linear probe avoids it (Kumar et al. 2022, arXiv 2202.10054).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from featherfit.data.processors.label import logits_of
from featherfit.data.processors.several import Target

ALPHAS = tuple(10.0 ** (power / 2) for power in range(9))
"""Strengths of ridge regression to choose from, 1 to 10,000."""

STRENGTHS = tuple(10.0 ** (power / 2) for power in range(-6, 1))
"""Values of C of logistic regression to choose from, 0.001 to 1, which shrinks least."""

_FOLDS = 5
_CHOSEN_ON = 5000
"""Most rows that C is chosen on: of many more than dimensions none is learned by heart."""


def probe_head(
    linear: nn.Linear,
    embeddings: np.ndarray,
    labels: np.ndarray,
    label: Target,
    weights: np.ndarray | None,
    *,
    seen: bool = False,
) -> None:
    """Sets a head's weight and bias to a regularised linear fit, in place.

    Logistic regression (C by cross-validation, `STRENGTHS`), one for each of several labels, or ridge regression (alpha by
    leave-one-out, `ALPHAS`), on standardised embeddings: with as many dimensions as rows, little shrinkage learns the rows by
    heart. The standardisation is folded into weight and bias. Quantiles start as the regression and the quantiles of its errors on
    rows it was not fitted to.

    Args:
        linear: The head's layer, D to C outputs.
        embeddings: What the head will see, (rows, D).
        labels: What `label.encode` gave.
        label: Decides the model.
        weights: Weight of each row, (rows,), or None.
        seen: The encoder has learnt from these very labels, so that rows held out would say nothing, and C is 1.
    """
    center, scale = embeddings.mean(0), embeddings.std(0) + 1e-6
    standard = (embeddings - center) / scale
    if label.numeric:
        coefficients, intercept = _ridge(standard, labels, label, weights)
    elif label.problem_type == "multilabel":
        fits = [_flag(standard, column, weights, seen=seen) for column in labels.T]
        coefficients, intercept = (np.concatenate(parts) for parts in zip(*fits, strict=True))
    else:
        coefficients, intercept = _logistic(standard, labels, weights, seen=seen)
        if label.problem_type == "binary":
            # scikit-learn gives the difference of the two logits.
            coefficients = np.concatenate([-coefficients, coefficients]) / 2
            intercept = np.concatenate([-intercept, intercept]) / 2
    weight = coefficients / scale
    with torch.no_grad():
        linear.weight.copy_(torch.from_numpy(weight))
        linear.bias.copy_(torch.from_numpy(intercept - weight @ center))


def _ridge(
    standard: np.ndarray, labels: np.ndarray, label: Target, weights: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.linear_model import RidgeCV

    targets = label.outputs_for(labels)
    ridge = RidgeCV(ALPHAS).fit(standard, targets, weights)
    if label.levels:
        errors = np.quantile(_held_out_errors(standard, targets, weights, ridge.alpha_), label.levels)
        return np.tile(ridge.coef_, (len(errors), 1)), ridge.intercept_ + errors
    return np.atleast_2d(ridge.coef_), np.atleast_1d(ridge.intercept_)


def _held_out_errors(standard: np.ndarray, targets: np.ndarray, weights: np.ndarray | None, alpha: float) -> np.ndarray:
    """How far each target is from a regression on the other folds: on its own rows one errs too little."""
    from sklearn.linear_model import Ridge
    from sklearn.model_selection import KFold

    errors = np.empty(len(targets))
    for others, own in KFold(min(_FOLDS, len(targets)), shuffle=True, random_state=0).split(standard):
        ridge = Ridge(alpha).fit(standard[others], targets[others], None if weights is None else weights[others])
        errors[own] = targets[own] - ridge.predict(standard[own])
    return errors


def _logistic(
    standard: np.ndarray, labels: np.ndarray, weights: np.ndarray | None, *, seen: bool
) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.linear_model import LogisticRegression

    strength = STRENGTHS[-1] if seen else _strength(standard, labels, weights)
    logistic = LogisticRegression(C=strength, max_iter=1000).fit(standard, labels, weights)
    return logistic.coef_, logistic.intercept_


def _strength(standard: np.ndarray, labels: np.ndarray, weights: np.ndarray | None) -> float:
    """The C with the least log-loss on rows held out in turn, from the smallest on until one is worse.

    It is the largest where that cannot be asked: a class has a single row, or the rows looked at are all of one class.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import log_loss
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    weights = np.ones(len(labels)) if weights is None else weights
    if len(labels) > _CHOSEN_ON:
        rows = np.random.default_rng(0).permutation(len(labels))[:_CHOSEN_ON]
        standard, labels, weights = standard[rows], labels[rows], weights[rows]
    counts = np.unique(labels, return_counts=True)[1]
    fewest = int(counts.min())
    if fewest < 2 or len(counts) < 2:
        return STRENGTHS[-1]
    how = {
        "cv": StratifiedKFold(min(_FOLDS, fewest), shuffle=True, random_state=0),
        "method": "predict_proba",
        "params": {"sample_weight": weights},
    }

    def loss(strength: float) -> float:
        given = cross_val_predict(LogisticRegression(C=strength, max_iter=1000), standard, labels, **how)
        return log_loss(labels, given, sample_weight=weights)

    best, least = STRENGTHS[0], loss(STRENGTHS[0])
    for strength in STRENGTHS[1:]:
        found = loss(strength)
        if found > least:
            break
        best, least = strength, found
    return best


def _flag(
    standard: np.ndarray, column: np.ndarray, weights: np.ndarray | None, *, seen: bool
) -> tuple[np.ndarray, np.ndarray]:
    """One of several labels; of one that all rows have, or none, only how frequent it is."""
    if len(np.unique(column)) > 1:
        return _logistic(standard, column, weights, seen=seen)
    return np.zeros((1, standard.shape[1])), logits_of(column[:1], 1 / (len(column) + 2))
