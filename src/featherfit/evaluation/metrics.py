"""True labels and predictions go in, a number comes out: scikit-learn's metrics under AutoMM's names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from featherfit.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from featherfit.types import ProblemType

BINARY, MULTI, REGRESSION = "binary", "multiclass", "regression"
CLASSES = (BINARY, MULTI)


@dataclass(frozen=True)
class Metric:
    """How to compute one metric.

    Attributes:
        function: (true, given) -> number; `true` are class ids or targets.
        given: What it wants: `ids` (rows,), `proba` (rows, C), or `values` (rows,).
        problems: Problem types it is for.
        greater_is_better: False for errors and losses.
        optimum: The best possible value.
    """

    function: Callable[[np.ndarray, np.ndarray], float]
    given: str
    problems: tuple[str, ...]
    greater_is_better: bool = True
    optimum: float = 1.0


def _sk(name: str, **options: Any) -> Callable[[np.ndarray, np.ndarray], float]:
    """scikit-learn's function of that name, imported when first called."""

    def call(true: np.ndarray, given: np.ndarray) -> float:
        import sklearn.metrics

        return getattr(sklearn.metrics, name)(true, given, **options)

    return call


def _roc_auc(true: np.ndarray, proba: np.ndarray, **options: Any) -> float:
    """NaN where the rows hold one class only (or not all of them): the area is not defined there."""
    from sklearn.metrics import roc_auc_score

    if len(np.unique(true)) < proba.shape[1]:
        return float("nan")
    if proba.shape[1] == 2:
        return roc_auc_score(true, proba[:, 1])
    return roc_auc_score(true, proba, labels=np.arange(proba.shape[1]), **options)


def _average_precision(true: np.ndarray, proba: np.ndarray) -> float:
    from sklearn.metrics import average_precision_score

    return average_precision_score(true, proba[:, 1])


def _log_loss(true: np.ndarray, proba: np.ndarray) -> float:
    from sklearn.metrics import log_loss

    return log_loss(true, proba, labels=np.arange(proba.shape[1]))


def symmetric_errors(true: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Each row's error relative to the mean of both sizes, (rows,), 0 to 2; 0 where both are 0."""
    size = (np.abs(true) + np.abs(values)) / 2
    return np.divide(np.abs(true - values), size, out=np.zeros_like(size), where=size > 0)


def _smape(true: np.ndarray, values: np.ndarray) -> float:
    return float(np.mean(symmetric_errors(true, values)))


def _correlation(name: str, true: np.ndarray, values: np.ndarray) -> float:
    """NaN where either side is constant: a correlation is not defined there."""
    from scipy import stats

    if np.ptp(true) == 0 or np.ptp(values) == 0:
        return float("nan")
    return float(getattr(stats, name)(true, values).statistic)


def _averaged(name: str) -> dict[str, Metric]:
    """Precision, recall or F1 and their averages; the plain one is of the positive class."""
    sk_name = f"{name}_score"
    metrics = {name: Metric(_sk(sk_name, zero_division=0), "ids", (BINARY,))}
    for average in ("macro", "micro", "weighted"):
        metrics[f"{name}_{average}"] = Metric(_sk(sk_name, average=average, zero_division=0), "ids", CLASSES)
    return metrics


_LOG_LOSS = Metric(_log_loss, "proba", CLASSES, False, 0.0)

METRICS: dict[str, Metric] = {
    "accuracy": Metric(_sk("accuracy_score"), "ids", CLASSES),
    "balanced_accuracy": Metric(_sk("balanced_accuracy_score"), "ids", CLASSES),
    "mcc": Metric(_sk("matthews_corrcoef"), "ids", CLASSES),
    "quadratic_kappa": Metric(_sk("cohen_kappa_score", weights="quadratic"), "ids", CLASSES),
    "log_loss": _LOG_LOSS,
    "nll": _LOG_LOSS,
    "roc_auc": Metric(_roc_auc, "proba", (BINARY,)),
    "roc_auc_ovr": Metric(partial(_roc_auc, multi_class="ovr", average="macro"), "proba", (MULTI,)),
    "roc_auc_ovr_weighted": Metric(partial(_roc_auc, multi_class="ovr", average="weighted"), "proba", (MULTI,)),
    "roc_auc_ovo": Metric(partial(_roc_auc, multi_class="ovo", average="macro"), "proba", (MULTI,)),
    "roc_auc_ovo_weighted": Metric(partial(_roc_auc, multi_class="ovo", average="weighted"), "proba", (MULTI,)),
    "average_precision": Metric(_average_precision, "proba", (BINARY,)),
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
    "spearmanr": Metric(partial(_correlation, "spearmanr"), "values", (REGRESSION,)),
}
ALIASES = {
    "acc": "accuracy",
    "root_mean_squared_error": "rmse",
    "mean_squared_error": "mse",
    "mean_absolute_error": "mae",
    "median_absolute_error": "median_ae",
    "mean_absolute_percentage_error": "mape",
    "negative_log_likelihood": "nll",
}
DEFAULTS: dict[str, str] = {BINARY: "roc_auc", MULTI: "accuracy", REGRESSION: "rmse"}


def metric_name(name: Any, problem_type: ProblemType, argument: str) -> str:
    """The standard name of a metric that fits the problem.

    Args:
        name: A name or alias, case and hyphens aside; or an object with a `name`, as AutoGluon's scorers have.
        problem_type: What the metric has to be for.
        argument: What the user called it, for messages.

    Raises:
        ConfigError: Unknown, or for other problem types.
    """
    given = name if isinstance(name, str) else getattr(name, "name", None)
    if not isinstance(given, str):
        raise ConfigError(f"{argument}={name!r} has to be the name of a metric.")
    key = given.strip().lower().replace("-", "_").replace(" ", "_")
    key = ALIASES.get(key, key)
    fitting = [metric for metric, entry in METRICS.items() if problem_type in entry.problems]
    if key in fitting:
        return key
    what = f"is not for {problem_type} problems" if key in METRICS else "is unknown"
    raise ConfigError(f"{argument}={given!r} {what}.{did_you_mean(key, fitting)} Allowed: {', '.join(fitting)}.")


def score(name: str, true: np.ndarray, ids: np.ndarray | None, proba: np.ndarray | None, values: np.ndarray | None):
    """The metric `name` of predictions in whichever form it wants, as a float."""
    metric = METRICS[name]
    given = {"ids": ids, "proba": proba, "values": values}[metric.given]
    assert given is not None
    return float(metric.function(true, given))
