"""Rows with what was predicted for them go in; a metric of many resamples of these rows comes out, and intervals.

A resample of n rows is how often each of them is drawn, counts (n,) that sum to n. Metrics that are means over rows, those
of a confusion matrix, and areas under ROC curves are computed for many counts at once; all others resample by resample.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from featherfit.evaluation.confusion import OF_COUNTS
from featherfit.evaluation.metrics import (
    METRICS,
    OF_ONE_LABEL,
    OF_ROWS,
    POOLED,
    pinball_losses,
    score,
    symmetric_errors,
    within,
)
from featherfit.evaluation.predicted import Predicted

LEVEL = 0.95
"""Share of intervals that hold the true value."""

UNDEFINED = 0.05
"""With a larger share of resamples on which a metric is not defined there is no interval."""

_CELLS = 4_000_000  # numbers of counts at a time, 32 MB


def score_quietly(metric: str, rows: Predicted) -> float:
    """A metric of all rows; NaN where it is not defined."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn's, of classes that are not among the rows
        return score(metric, rows)


def resampled(rows: Predicted, metrics: list[str], resamples: int, seed: list[int]) -> dict[str, np.ndarray]:
    """Each metric of resamples of `rows`, (resamples,), NaN where it is not defined; the same resamples for all.

    Args:
        rows: At least one.
        metrics: Standard names.
        resamples: How many.
        seed: Decides which, as words of a seed.
    """
    forms = {metric: _form(rows, metric) for metric in metrics}
    drawn = [{metric: form(counts) for metric, form in forms.items()} for counts in _counts(len(rows), resamples, seed)]
    return {metric: np.concatenate([part[metric] for part in drawn]) for metric in metrics}


def interval(values: np.ndarray, parts: Sequence[tuple[np.ndarray, int]]) -> tuple[float, float]:
    """The ends of an expanded percentile interval of `LEVEL`; NaN where resamples cannot tell.

    Quantiles lie further out than those of a plain percentile interval by as much as Student's t exceeds the normal
    distribution, and by sqrt(n / (n - 1)): without, intervals of few rows are too short (Hesterberg, The American
    Statistician 69, 2015). Several parts have Welch and Satterthwaite's degrees of freedom.

    Args:
        values: Of resamples.
        parts: The independent samples that `values` is the mean, sum or difference of: resampled values, and rows.
    """
    from scipy import stats

    defined = values[np.isfinite(values)]
    too_few = any(rows < 2 for _, rows in parts) or len(defined) < (1 - UNDEFINED) * len(values)
    if too_few or np.ptp(defined) <= 1e-12:
        return math.nan, math.nan
    rows = np.array([rows for _, rows in parts], dtype=np.float64)
    spreads = np.array([np.nanvar(part) for part, _ in parts])
    freedom = spreads.sum() ** 2 / (spreads**2 / (rows - 1)).sum()
    stretch = math.sqrt((spreads * rows / (rows - 1)).sum() / spreads.sum())
    outside = float(stats.norm.cdf(-stretch * stats.t.ppf((1 + LEVEL) / 2, freedom)))
    low, high = np.quantile(defined, [outside, 1 - outside])
    return float(low), float(high)


def _counts(rows: int, resamples: int, seed: list[int]) -> Iterator[np.ndarray]:
    """Counts (some, rows) float64, `resamples` of them in all."""
    random = np.random.default_rng(seed)
    at_once = max(1, _CELLS // rows)
    for start in range(0, resamples, at_once):
        some = min(at_once, resamples - start)
        drawn = random.integers(0, rows, size=(some, rows)) + rows * np.arange(some)[:, None]
        yield np.bincount(drawn.ravel(), minlength=some * rows).reshape(some, rows).astype(np.float64)


def _form(rows: Predicted, metric: str) -> Callable[[np.ndarray], np.ndarray]:
    """How `metric` of counts (some, n) is computed, (some,); rows with weights count as often as they weigh."""
    if rows.several and metric not in OF_ROWS:
        return _of_several(rows, metric)
    if metric in OF_COUNTS:
        form = _of_confusion(rows, metric)
    elif metric in _LOSSES:
        form = _of_losses(rows, metric)
    elif metric in _AREAS:
        form = _of_areas(rows, metric)
    else:
        return _one_by_one(rows, metric)
    weights = rows.weights
    return form if weights is None else lambda counts: form(counts * weights)


def _of_several(rows: Predicted, metric: str) -> Callable[[np.ndarray], np.ndarray]:
    """As `metrics.score` has it: of all cells together, or the mean over the labels it is defined on."""
    if metric in POOLED:
        pooled, labels = _form(rows.cells(), POOLED[metric]), rows.true.shape[1]
        return lambda counts: pooled(np.repeat(counts, labels, axis=1))
    forms = [_form(part, OF_ONE_LABEL.get(metric, metric)) for part in rows.parts()]

    def of(counts: np.ndarray) -> np.ndarray:
        values = np.stack([form(counts) for form in forms])
        defined = ~np.isnan(values)
        number = defined.sum(axis=0)
        total = np.where(defined, values, 0.0).sum(axis=0)
        return np.divide(total, number, out=np.full(len(counts), math.nan), where=number > 0)

    return of


def _of_confusion(rows: Predicted, metric: str) -> Callable[[np.ndarray], np.ndarray]:
    assert rows.ids is not None and rows.proba is not None
    classes = rows.proba.shape[1]
    cells = rows.true * classes + rows.ids
    order = np.argsort(cells, kind="stable")
    there, first = np.unique(cells[order], return_index=True)

    def of(counts: np.ndarray) -> np.ndarray:
        matrices = np.zeros((len(counts), classes**2))
        matrices[:, there] = np.add.reduceat(counts[:, order], first, axis=1)
        return OF_COUNTS[metric](matrices.reshape(-1, classes, classes))

    return of


def _own_losses(rows: Predicted) -> np.ndarray:
    """-log of the probability of each row's class, bounded as scikit-learn bounds it."""
    proba = rows.given("proba")
    bound = np.finfo(proba.dtype).eps
    own = np.clip(proba, bound, 1 - bound)[np.arange(len(rows)), rows.true]
    return -np.log(own.astype(np.float64))


def _relative(rows: Predicted) -> np.ndarray:
    true, values = rows.true, rows.given("values")
    return np.abs(values - true) / np.maximum(np.abs(true), np.finfo(np.float64).eps)


_LOSSES: dict[str, Callable[[Predicted], np.ndarray]] = {
    "log_loss": _own_losses,
    "nll": _own_losses,
    "mse": lambda rows: np.square(rows.true - rows.given("values")),
    "rmse": lambda rows: np.square(rows.true - rows.given("values")),
    "mae": lambda rows: np.abs(rows.true - rows.given("values")),
    "mape": _relative,
    "smape": lambda rows: symmetric_errors(rows.true, rows.given("values")),
    "pinball_loss": lambda rows: pinball_losses(rows.true, rows.given("values"), rows.levels),
    "interval_coverage": lambda rows: within(rows.true, rows.given("values")).astype(np.float64),
    "subset_accuracy": lambda rows: (rows.true == rows.given("ids")).all(axis=1).astype(np.float64),
}
"""What is averaged over rows; of `rmse` the root is taken then."""


def _of_losses(rows: Predicted, metric: str) -> Callable[[np.ndarray], np.ndarray]:
    losses = _LOSSES[metric](rows)

    def of(counts: np.ndarray) -> np.ndarray:
        total = counts.sum(axis=1)  # 0 where no row that is drawn has any weight
        means = np.divide(counts @ losses, total, out=np.full(len(counts), math.nan), where=total > 0)
        return np.sqrt(means) if metric == "rmse" else means

    return of


_AREAS = ("roc_auc", "roc_auc_ovr", "roc_auc_ovr_weighted")


def _of_areas(rows: Predicted, metric: str) -> Callable[[np.ndarray], np.ndarray]:
    proba = rows.given(METRICS[metric].given)
    sides = [1] if metric == "roc_auc" else list(range(proba.shape[1]))
    areas = [_Area(rows.true == side, proba[:, side]) for side in sides]

    def of(counts: np.ndarray) -> np.ndarray:
        values = np.stack([area(counts) for area in areas])
        if metric != "roc_auc_ovr_weighted":
            return values.mean(axis=0)
        sizes = np.stack([counts[:, area.positive].sum(axis=1) for area in areas])
        return (values * sizes).sum(axis=0) / sizes.sum(axis=0)

    return of


class _Area:
    """The area under a ROC curve: how often a positive row has the higher score than a negative one, ties half.

    Attributes:
        positive: Which rows are, (n,).
    """

    def __init__(self, positive: np.ndarray, scores: np.ndarray):
        """Sorts the rows by score once; a resample has the same order."""
        self.positive = positive
        self._order = np.argsort(scores, kind="stable")
        _, self._first = np.unique(scores[self._order], return_index=True)
        self._side = positive[self._order].astype(np.float64)

    def __call__(self, counts: np.ndarray) -> np.ndarray:
        """Areas of counts (some, n); NaN without rows of both sides."""
        ordered = counts[:, self._order]
        above = np.add.reduceat(ordered * self._side, self._first, axis=1)
        below = np.add.reduceat(ordered, self._first, axis=1) - above
        pairs = (above * (np.cumsum(below, axis=1) - below / 2)).sum(axis=1)
        total = above.sum(axis=1) * below.sum(axis=1)
        return np.divide(pairs, total, out=np.full(len(counts), math.nan), where=total > 0)


def _one_by_one(rows: Predicted, metric: str) -> Callable[[np.ndarray], np.ndarray]:
    positions = np.arange(len(rows))

    def of(counts: np.ndarray) -> np.ndarray:
        return np.array([score_quietly(metric, rows.at(np.repeat(positions, some.astype(int)))) for some in counts])

    return of
