"""Labels go in; what a predictor scores that has learnt nothing but how frequent they are comes out."""

from __future__ import annotations

import math
import warnings

import numpy as np

from featherfit.data.processors.several import Target
from featherfit.evaluation.metrics import METRICS
from featherfit.evaluation.outputs import score_outputs
from featherfit.evaluation.reading import Reading

FEWEST_ROWS = 20
"""Validation rows below which a comparison says little either way."""

_KNOWN = {"quantile": "their quantiles", "regression": "their mean"}


def score_of_constant(
    metric: str, train: np.ndarray, validation: np.ndarray, label: Target, weights: np.ndarray | None = None
) -> float:
    """The metric of one prediction for every row: the classes' shares, the mean or the quantiles of the training labels.

    Args:
        metric: Its standard name.
        train: What `label.encode` gave for the training rows, (rows,) or (rows, K).
        validation: The same of the rows to score.
        label: The label's processor.
        weights: Of the rows to score, (rows,).
    """
    if label.levels:
        outputs = np.quantile(train, label.levels)
    elif label.numeric:
        outputs = np.atleast_1d(label.outputs_for(train.mean(axis=0)))
    elif label.problem_type == "multilabel":
        outputs = label.outputs_for(train.mean(axis=0))
    else:
        outputs = np.log(np.maximum(np.bincount(train, minlength=len(label.classes)) / len(train), 1e-12))
    every = np.tile(outputs.astype(np.float32), (len(validation), 1))
    return score_outputs([metric], every, validation, Reading(label), weights)[metric]


def warn_of_chance(
    metric: str,
    score: float,
    train: np.ndarray,
    validation: np.ndarray,
    label: Target,
    weights: np.ndarray | None = None,
) -> None:
    """Warns where a model scores no better than a constant does.

    Args:
        metric: Standard name of the validation metric.
        score: The model's, on the validation rows.
        train, validation, label, weights: As for `score_of_constant`.
    """
    constant = score_of_constant(metric, train, validation, label, weights)
    better = score > constant if METRICS[metric].greater_is_better else score < constant
    if better or math.isnan(constant) or len(validation) < FEWEST_ROWS:
        return
    what = _KNOWN.get(label.problem_type, "how frequent they are")
    warnings.warn(
        f"The model has learnt nothing that helps on the {len(validation)} validation rows: its {metric} of {score:.4f} is no "
        f"better than the {constant:.4f} of one answer for all rows, which knows of the labels only {what}. More epochs "
        "(optim.max_epochs), another rate (optim.lr) or more rows may help; or the text does not tell the label.",
        stacklevel=5,
    )
