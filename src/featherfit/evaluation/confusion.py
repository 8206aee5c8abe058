"""Confusion matrices go in, many at a time; scikit-learn's metrics of each of them come out."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def _divided(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """above / below, and 0 where below is 0, as `zero_division=0` has it."""
    return np.divide(above, below, out=np.zeros(np.broadcast_shapes(above.shape, below.shape)), where=below != 0)


def _accuracy(counts: np.ndarray) -> np.ndarray:
    return _divided(np.trace(counts, axis1=-2, axis2=-1), counts.sum((-2, -1)))


def _balanced_accuracy(counts: np.ndarray) -> np.ndarray:
    rows = counts.sum(-1)
    return _divided(_divided(counts.diagonal(0, -2, -1), rows).sum(-1), (rows > 0).sum(-1))


def _mcc(counts: np.ndarray) -> np.ndarray:
    rows, columns, total = counts.sum(-1), counts.sum(-2), counts.sum((-2, -1))
    shared = np.trace(counts, axis1=-2, axis2=-1) * total - (rows * columns).sum(-1)
    spread = (total**2 - (rows**2).sum(-1)) * (total**2 - (columns**2).sum(-1))
    return _divided(shared, np.sqrt(spread))


def _precision(counts: np.ndarray) -> np.ndarray:
    return _divided(counts.diagonal(0, -2, -1), counts.sum(-2))


def _recall(counts: np.ndarray) -> np.ndarray:
    return _divided(counts.diagonal(0, -2, -1), counts.sum(-1))


def _f1(counts: np.ndarray) -> np.ndarray:
    return _divided(2 * counts.diagonal(0, -2, -1), counts.sum(-1) + counts.sum(-2))


def _of_positive(each: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    return lambda counts: each(counts)[..., 1]


def _macro(each: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    """The mean over classes that occur on either side."""

    def call(counts: np.ndarray) -> np.ndarray:
        there = counts.sum(-1) + counts.sum(-2) > 0
        return _divided((each(counts) * there).sum(-1), there.sum(-1))

    return call


def _weighted(each: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    return lambda counts: _divided((each(counts) * counts.sum(-1)).sum(-1), counts.sum((-2, -1)))


def _averages(name: str, each: Callable[[np.ndarray], np.ndarray]) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    # Where each row has one class and one prediction, all micro averages are the accuracy.
    averages = {"macro": _macro(each), "micro": _accuracy, "weighted": _weighted(each)}
    return {name: _of_positive(each), **{f"{name}_{average}": call for average, call in averages.items()}}


OF_COUNTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "accuracy": _accuracy,
    "balanced_accuracy": _balanced_accuracy,
    "mcc": _mcc,
    **_averages("precision", _precision),
    **_averages("recall", _recall),
    **_averages("f1", _f1),
}
"""Metrics of matrices (..., C, C), true classes by predicted ones, of float64 counts; they give (...)."""


def counts_of(true: np.ndarray, ids: np.ndarray, classes: int) -> np.ndarray:
    """The confusion matrix of class ids (rows,), (C, C) float64."""
    return np.bincount(true * classes + ids, minlength=classes**2).reshape(classes, classes).astype(np.float64)
