"""True labels and predictions go in, a number comes out: scikit-learn's metrics under AutoMM's names.

Of rows with several labels or targets a metric is the mean over these of what it is of one (the labels it is defined on), or, where
`POOLED` says so, that of all labels of all rows together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from featherfit.errors import ConfigError, did_you_mean
from featherfit.evaluation.predicted import Predicted

if TYPE_CHECKING:
    from featherfit.types import ProblemType

BINARY, MULTI, REGRESSION, QUANTILE, MULTILABEL = "binary", "multiclass", "regression", "quantile", "multilabel"
CLASSES = (BINARY, MULTI)


@dataclass(frozen=True)
class Metric:
    """How to compute one metric.

    Attributes:
        function: (true, given) -> number; `true` are class ids or targets. With weights of rows it is called with
            `sample_weight`, with quantile levels with `levels`.
        given: What it wants: `ids` (rows,), `proba` (rows, C), or `values` (rows,).
        problems: Problem types it is for.
        greater_is_better: False for errors and losses.
        optimum: The best possible value.
        weighs: Whether rows can have weights.
        chooses: Whether the better value is the better model, so that weights can be chosen by it.
    """

    function: Callable[..., float]
    given: str
    problems: tuple[str, ...]
    greater_is_better: bool = True
    optimum: float = 1.0
    weighs: bool = True
    chooses: bool = True


def _sk(name: str, **options: Any) -> Callable[..., float]:
    """scikit-learn's function of that name, imported when first called."""

    def call(true: np.ndarray, given: np.ndarray, **weights: Any) -> float:
        import sklearn.metrics

        return getattr(sklearn.metrics, name)(true, given, **options, **weights)

    return call


def _roc_auc(true: np.ndarray, proba: np.ndarray, **options: Any) -> float:
    """NaN where the rows hold one class only (or not all of them): the area is not defined there."""
    from sklearn.metrics import roc_auc_score

    if len(np.unique(true)) < proba.shape[1]:
        return float("nan")
    if proba.shape[1] == 2:
        return roc_auc_score(true, proba[:, 1], **options)
    return roc_auc_score(true, proba, labels=np.arange(proba.shape[1]), **options)


def _average_precision(true: np.ndarray, proba: np.ndarray, **weights: Any) -> float:
    """NaN where no row is positive."""
    from sklearn.metrics import average_precision_score

    return average_precision_score(true, proba[:, 1], **weights) if true.any() else float("nan")


def _log_loss(true: np.ndarray, proba: np.ndarray, **weights: Any) -> float:
    from sklearn.metrics import log_loss

    return log_loss(true, proba, labels=np.arange(proba.shape[1]), **weights)


def symmetric_errors(true: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Each row's error relative to the mean of both sizes, (rows,), 0 to 2; 0 where both are 0."""
    size = (np.abs(true) + np.abs(values)) / 2
    return np.divide(np.abs(true - values), size, out=np.zeros_like(size), where=size > 0)


def _smape(true: np.ndarray, values: np.ndarray, sample_weight: np.ndarray | None = None) -> float:
    return float(np.average(symmetric_errors(true, values), weights=sample_weight))


def _correlation(name: str, true: np.ndarray, values: np.ndarray, sample_weight: np.ndarray | None = None) -> float:
    """NaN where either side is constant: a correlation is not defined there."""
    from scipy import stats

    if np.ptp(true) == 0 or np.ptp(values) == 0:
        return float("nan")
    if sample_weight is not None:
        (own, shared), (_, other) = np.cov(true, values, aweights=sample_weight)
        return float(shared / np.sqrt(own * other))
    return float(getattr(stats, name)(true, values).statistic)


def pinball_losses(true: np.ndarray, values: np.ndarray, levels: tuple[float, ...]) -> np.ndarray:
    """Each row's pinball loss, the mean over quantile levels, (rows,); `values` are (rows, Q)."""
    errors = true[:, None] - values
    return np.maximum(np.array(levels) * errors, (np.array(levels) - 1) * errors).mean(axis=1)


def within(true: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Whether each row's number lies between its lowest and its highest quantile, (rows,)."""
    return (values[:, 0] <= true) & (true <= values[:, -1])


def _pinball(true: np.ndarray, values: np.ndarray, *, levels: Any, sample_weight: np.ndarray | None = None) -> float:
    return float(np.average(pinball_losses(true, values, levels), weights=sample_weight))


def _coverage(true: np.ndarray, values: np.ndarray, *, levels: Any, sample_weight: np.ndarray | None = None) -> float:
    return float(np.average(within(true, values), weights=sample_weight))


def _coverage_error(
    true: np.ndarray, values: np.ndarray, *, levels: Any, sample_weight: np.ndarray | None = None
) -> float:
    """How far the share of rows at or below each quantile is from its level, on average over levels."""
    shares = np.average(true[:, None] <= values, axis=0, weights=sample_weight)
    return float(np.abs(shares - np.array(levels)).mean())


def _all_right(true: np.ndarray, ids: np.ndarray, sample_weight: np.ndarray | None = None) -> float:
    return float(np.average((true == ids).all(axis=1), weights=sample_weight))


def _averaged(name: str) -> dict[str, Metric]:
    """Precision, recall or F1 and their averages; the plain one is of the positive class."""
    sk_name = f"{name}_score"
    metrics = {name: Metric(_sk(sk_name, zero_division=0), "ids", (BINARY,))}
    for average in ("macro", "micro", "weighted"):
        problems = CLASSES if average == "weighted" else (*CLASSES, MULTILABEL)
        metrics[f"{name}_{average}"] = Metric(_sk(sk_name, average=average, zero_division=0), "ids", problems)
    return metrics


_LOG_LOSS = Metric(_log_loss, "proba", (*CLASSES, MULTILABEL), False, 0.0)

METRICS: dict[str, Metric] = {
    "accuracy": Metric(_sk("accuracy_score"), "ids", CLASSES),
    "balanced_accuracy": Metric(_sk("balanced_accuracy_score"), "ids", CLASSES),
    "mcc": Metric(_sk("matthews_corrcoef"), "ids", CLASSES),
    "quadratic_kappa": Metric(_sk("cohen_kappa_score", weights="quadratic"), "ids", CLASSES),
    "log_loss": _LOG_LOSS,
    "nll": _LOG_LOSS,
    "roc_auc": Metric(_roc_auc, "proba", (BINARY, MULTILABEL)),
    "roc_auc_ovr": Metric(partial(_roc_auc, multi_class="ovr", average="macro"), "proba", (MULTI,)),
    "roc_auc_ovr_weighted": Metric(partial(_roc_auc, multi_class="ovr", average="weighted"), "proba", (MULTI,)),
    "roc_auc_ovo": Metric(partial(_roc_auc, multi_class="ovo", average="macro"), "proba", (MULTI,), weighs=False),
    "roc_auc_ovo_weighted": Metric(
        partial(_roc_auc, multi_class="ovo", average="weighted"), "proba", (MULTI,), weighs=False
    ),
    "average_precision": Metric(_average_precision, "proba", (BINARY, MULTILABEL)),
    "subset_accuracy": Metric(_all_right, "ids", (MULTILABEL,)),
    **_averaged("precision"),
    **_averaged("recall"),
    **_averaged("f1"),
    "r2": Metric(_sk("r2_score"), "values", (REGRESSION,)),
    "mse": Metric(_sk("mean_squared_error"), "values", (REGRESSION,), False, 0.0),
    "rmse": Metric(_sk("root_mean_squared_error"), "values", (REGRESSION,), False, 0.0),
    "mae": Metric(_sk("mean_absolute_error"), "values", (REGRESSION,), False, 0.0),
    "median_ae": Metric(_sk("median_absolute_error"), "values", (REGRESSION,), False, 0.0),
    "mape": Metric(_sk("mean_absolute_percentage_error"), "values", (REGRESSION,), False, 0.0),
    "smape": Metric(_smape, "values", (REGRESSION,), False, 0.0),
    "pearsonr": Metric(partial(_correlation, "pearsonr"), "values", (REGRESSION,)),
    "spearmanr": Metric(partial(_correlation, "spearmanr"), "values", (REGRESSION,), weighs=False),
    "pinball_loss": Metric(_pinball, "values", (QUANTILE,), False, 0.0),
    "coverage_error": Metric(_coverage_error, "values", (QUANTILE,), False, 0.0),
    "interval_coverage": Metric(_coverage, "values", (QUANTILE,), chooses=False),
}
ALIASES = {
    "acc": "accuracy",
    "root_mean_squared_error": "rmse",
    "mean_squared_error": "mse",
    "mean_absolute_error": "mae",
    "median_absolute_error": "median_ae",
    "mean_absolute_percentage_error": "mape",
    "negative_log_likelihood": "nll",
    "pinball": "pinball_loss",
    "mean_pinball_loss": "pinball_loss",
}
DEFAULTS: dict[str, str] = {
    BINARY: "roc_auc",
    MULTI: "accuracy",
    REGRESSION: "rmse",
    QUANTILE: "pinball_loss",
    MULTILABEL: "roc_auc",
}
OF_ONE_LABEL = {f"{name}_macro": name for name in ("precision", "recall", "f1")}
"""What a metric of several labels is of one, where that is called otherwise."""
POOLED = {f"{name}_micro": name for name in ("precision", "recall", "f1")}
"""Metrics that take all labels of all rows together, and what they are of them."""
OF_ROWS = ("subset_accuracy",)
"""Metrics that take all labels of a row together."""


def metric_name(
    name: Any, problem_type: ProblemType, argument: str, *, weighted: bool = False, chooses: bool = False
) -> str:
    """The standard name of a metric that fits the problem.

    Args:
        name: A name or alias, case and hyphens aside; or an object with a `name`, as AutoGluon's scorers have.
        problem_type: What the metric has to be for.
        argument: What the user called it, for messages.
        weighted: Whether rows have weights.
        chooses: Whether weights of the model are to be chosen by it.

    Raises:
        ConfigError: Unknown, for other problem types, or not for weighted rows or for choosing, where that is wanted.
    """
    given = name if isinstance(name, str) else getattr(name, "name", None)
    if not isinstance(given, str):
        raise ConfigError(f"{argument}={name!r} has to be the name of a metric.")
    key = given.strip().lower().replace("-", "_").replace(" ", "_")
    key = ALIASES.get(key, key)
    fitting = [
        metric
        for metric, entry in METRICS.items()
        if problem_type in entry.problems and entry.weighs >= weighted and entry.chooses >= chooses
    ]
    if key in fitting:
        return key
    what = "is unknown"
    if key in METRICS:
        what = f"is not for {problem_type} problems"
        if problem_type in METRICS[key].problems:
            weighs = METRICS[key].weighs >= weighted
            what = "says nothing about which model is better" if weighs else "is not defined for weighted rows"
    raise ConfigError(f"{argument}={given!r} {what}.{did_you_mean(key, fitting)} Allowed: {', '.join(fitting)}.")


def score(name: str, rows: Predicted) -> float:
    """The metric `name` of predicted rows, NaN where it is not defined."""
    if rows.several and name not in OF_ROWS:
        parts = [rows.cells()] if name in POOLED else rows.parts()
        own = POOLED.get(name) or OF_ONE_LABEL.get(name, name)
        defined = [value for value in (score(own, part) for part in parts) if not np.isnan(value)]
        return float(np.mean(defined)) if defined else float("nan")
    metric = METRICS[name]
    more: dict[str, Any] = {} if rows.weights is None else {"sample_weight": rows.weights}
    if rows.levels:
        more["levels"] = rows.levels
    return float(metric.function(rows.true, rows.given(metric.given), **more))
