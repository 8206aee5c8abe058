"""Every metric against its formula, written out by hand or by scikit-learn's and SciPy's other routes."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    f1_score,
    mean_pinball_loss,
    precision_score,
    recall_score,
    roc_auc_score,
)

from featherfit.errors import ConfigError
from featherfit.evaluation.metrics import ALIASES, DEFAULTS, METRICS, metric_name
from featherfit.evaluation.metrics import score as score_rows
from featherfit.evaluation.predicted import Predicted

TRUE2 = np.array([0, 0, 1, 1, 1, 0, 1, 0, 1, 1])
POSITIVE = np.array([0.1, 0.6, 0.8, 0.4, 0.9, 0.2, 0.7, 0.5, 0.3, 0.95])
PROBA2 = np.stack([1 - POSITIVE, POSITIVE], axis=1)
IDS2 = (POSITIVE > 0.5).astype(int)
TP, FP, FN, TN = 4, 1, 2, 3  # of IDS2 against TRUE2

TRUE3 = np.array([0, 0, 0, 1, 1, 2, 2, 2, 2])
PROBA3 = np.array(
    [
        [0.7, 0.2, 0.1], [0.2, 0.5, 0.3], [0.5, 0.3, 0.2], [0.3, 0.6, 0.1], [0.1, 0.3, 0.6],
        [0.2, 0.2, 0.6], [0.1, 0.1, 0.8], [0.4, 0.35, 0.25], [0.25, 0.45, 0.3],
    ]
)  # fmt: skip
IDS3 = PROBA3.argmax(1)

TARGETS = np.array([1.0, 2.0, 4.0, 7.0])
VALUES = np.array([1.5, 1.0, 4.0, 9.0])


def score(
    name: str, true: np.ndarray, ids: np.ndarray | None, proba: np.ndarray | None, values: np.ndarray | None
) -> float:
    return score_rows(name, Predicted(true, ids, proba, values))


def binary(name: str) -> float:
    return score(name, TRUE2, IDS2, PROBA2, None)


def multi(name: str) -> float:
    return score(name, TRUE3, IDS3, PROBA3, None)


def regression(name: str) -> float:
    return score(name, TARGETS, None, None, VALUES)


LEVELS = (0.25, 0.5, 0.75)
QUANTILES = VALUES[:, None] + np.array([-1.0, 0.0, 1.5])
FLAGS = np.array([[1, 0, 0], [0, 0, 1], [1, 1, 1], [0, 1, 0], [1, 0, 1], [0, 0, 0]])
OF_LABELS = np.array(
    [[0.9, 0.2, 0.1], [0.4, 0.6, 0.8], [0.45, 0.7, 0.6], [0.3, 0.4, 0.2], [0.8, 0.1, 0.7], [0.6, 0.3, 0.55]]
)
IDS_OF_LABELS = (OF_LABELS > 0.5).astype(int)


def quantile(name: str, values: np.ndarray = QUANTILES, true: np.ndarray = TARGETS) -> float:
    return score_rows(name, Predicted(true, values=values, levels=LEVELS))


def multilabel(name: str, ids: np.ndarray = IDS_OF_LABELS, proba: np.ndarray = OF_LABELS) -> float:
    return score_rows(name, Predicted(FLAGS, ids, proba))


def area(positive: np.ndarray, negative: np.ndarray) -> float:
    """Share of (positive, negative) pairs in the right order; ties count half."""
    difference = positive[:, None] - negative[None, :]
    return float(((difference > 0) + 0.5 * (difference == 0)).mean())


PRECISION, RECALL = TP / (TP + FP), TP / (TP + FN)
NEGATIVE_PRECISION, NEGATIVE_RECALL = TN / (TN + FN), TN / (TN + FP)


def f1(precision: float, recall: float) -> float:
    return 2 * precision * recall / (precision + recall)


BINARY = {
    "accuracy": (TP + TN) / 10,
    "balanced_accuracy": (RECALL + NEGATIVE_RECALL) / 2,
    "mcc": (TP * TN - FP * FN) / math.sqrt((TP + FP) * (TP + FN) * (TN + FP) * (TN + FN)),
    "quadratic_kappa": (0.7 - (0.6 * 0.5 + 0.4 * 0.5)) / (1 - (0.6 * 0.5 + 0.4 * 0.5)),
    "log_loss": float(-np.log(PROBA2[np.arange(10), TRUE2]).mean()),
    "nll": float(-np.log(PROBA2[np.arange(10), TRUE2]).mean()),
    "roc_auc": area(POSITIVE[TRUE2 == 1], POSITIVE[TRUE2 == 0]),
    # Precision at the rank of each true row: 0.95, 0.9, 0.8, 0.7 first, then 0.4 as 7th and 0.3 as 8th.
    "average_precision": (1 + 1 + 1 + 1 + 5 / 7 + 6 / 8) / 6,
    "precision": PRECISION,
    "recall": RECALL,
    "f1": f1(PRECISION, RECALL),
    "precision_macro": (PRECISION + NEGATIVE_PRECISION) / 2,
    "recall_macro": (RECALL + NEGATIVE_RECALL) / 2,
    "f1_macro": (f1(PRECISION, RECALL) + f1(NEGATIVE_PRECISION, NEGATIVE_RECALL)) / 2,
    "precision_micro": 0.7,
    "recall_micro": 0.7,
    "f1_micro": 0.7,
    "precision_weighted": 0.6 * PRECISION + 0.4 * NEGATIVE_PRECISION,
    "recall_weighted": 0.7,
    "f1_weighted": 0.6 * f1(PRECISION, RECALL) + 0.4 * f1(NEGATIVE_PRECISION, NEGATIVE_RECALL),
}


@pytest.mark.parametrize("name", BINARY)
def test_binary(name):
    assert binary(name) == pytest.approx(BINARY[name], rel=1e-9)


def confusion() -> np.ndarray:
    table = np.zeros((3, 3))
    np.add.at(table, (TRUE3, IDS3), 1)
    return table


def kappa(table: np.ndarray) -> float:
    weight = (np.arange(3)[:, None] - np.arange(3)) ** 2
    chance = np.outer(table.sum(1), table.sum(0)) / table.sum()
    return 1 - (weight * table).sum() / (weight * chance).sum()


def multiclass_mcc(table: np.ndarray) -> float:
    rows, right, given, true = table.sum(), np.trace(table), table.sum(0), table.sum(1)
    return (right * rows - given @ true) / math.sqrt((rows**2 - given @ given) * (rows**2 - true @ true))


PRECISIONS = np.diag(confusion()) / confusion().sum(0)
RECALLS = np.diag(confusion()) / confusion().sum(1)
F1S = 2 * PRECISIONS * RECALLS / (PRECISIONS + RECALLS)
SHARES = np.array([3, 2, 4]) / 9
AREAS = np.array([area(PROBA3[TRUE3 == c, c], PROBA3[TRUE3 != c, c]) for c in range(3)])
PAIRS = [(0, 1), (0, 2), (1, 2)]
PAIR_AREAS = np.array(
    [
        (area(PROBA3[TRUE3 == a, a], PROBA3[TRUE3 == b, a]) + area(PROBA3[TRUE3 == b, b], PROBA3[TRUE3 == a, b])) / 2
        for a, b in PAIRS
    ]
)
PAIR_SHARES = np.array([SHARES[a] + SHARES[b] for a, b in PAIRS])
MULTICLASS = {
    "accuracy": float((IDS3 == TRUE3).mean()),
    "balanced_accuracy": RECALLS.mean(),
    "mcc": multiclass_mcc(confusion()),
    "quadratic_kappa": kappa(confusion()),
    "log_loss": float(-np.log(PROBA3[np.arange(9), TRUE3]).mean()),
    "nll": float(-np.log(PROBA3[np.arange(9), TRUE3]).mean()),
    "roc_auc_ovr": AREAS.mean(),
    "roc_auc_ovr_weighted": SHARES @ AREAS,
    "roc_auc_ovo": PAIR_AREAS.mean(),
    "roc_auc_ovo_weighted": PAIR_SHARES @ PAIR_AREAS / PAIR_SHARES.sum(),
    "precision_macro": PRECISIONS.mean(),
    "recall_macro": RECALLS.mean(),
    "f1_macro": F1S.mean(),
    "precision_micro": 5 / 9,
    "recall_micro": 5 / 9,
    "f1_micro": 5 / 9,
    "precision_weighted": SHARES @ PRECISIONS,
    "recall_weighted": SHARES @ RECALLS,
    "f1_weighted": SHARES @ F1S,
}


@pytest.mark.parametrize("name", MULTICLASS)
def test_multiclass(name):
    assert multi(name) == pytest.approx(MULTICLASS[name], rel=1e-9)


def pearson(one: np.ndarray, other: np.ndarray) -> float:
    one, other = one - one.mean(), other - other.mean()
    return float(one @ other / math.sqrt((one @ one) * (other @ other)))


REGRESSION = {
    "r2": 1 - (0.25 + 1 + 0 + 4) / (6.25 + 2.25 + 0.25 + 12.25),
    "mse": 5.25 / 4,
    "rmse": math.sqrt(5.25 / 4),
    "mae": 3.5 / 4,
    "median_ae": 0.75,
    "mape": (0.5 / 1 + 1 / 2 + 0 + 2 / 7) / 4,
    "smape": (0.5 / 1.25 + 1 / 1.5 + 0 + 2 / 8) / 4,
    "pearsonr": pearson(TARGETS, VALUES),
    "spearmanr": pearson(np.array([1.0, 2, 3, 4]), np.array([2.0, 1, 3, 4])),
}


@pytest.mark.parametrize("name", REGRESSION)
def test_regression(name):
    assert regression(name) == pytest.approx(REGRESSION[name], rel=1e-9)


BELOW = (TARGETS[:, None] <= QUANTILES).mean(axis=0)
QUANTILE = {
    "pinball_loss": np.mean([mean_pinball_loss(TARGETS, QUANTILES[:, q], alpha=LEVELS[q]) for q in range(3)]),
    "coverage_error": np.abs(BELOW - LEVELS).mean(),
    "interval_coverage": 0.75,  # 7 lies below 9 - 1
}
MULTILABEL = {
    **{f"{name}_{average}": call(FLAGS, IDS_OF_LABELS, average=average)
       for name, call in (("precision", precision_score), ("recall", recall_score), ("f1", f1_score))
       for average in ("macro", "micro")},
    "roc_auc": roc_auc_score(FLAGS, OF_LABELS, average="macro"),
    "average_precision": average_precision_score(FLAGS, OF_LABELS, average="macro"),
    "subset_accuracy": accuracy_score(FLAGS, IDS_OF_LABELS),
    "log_loss": -np.mean(np.log(np.where(FLAGS, OF_LABELS, 1 - OF_LABELS))),
    "nll": -np.mean(np.log(np.where(FLAGS, OF_LABELS, 1 - OF_LABELS))),
}  # fmt: skip


@pytest.mark.parametrize("name", QUANTILE)
def test_quantiles(name):
    assert quantile(name) == pytest.approx(QUANTILE[name], rel=1e-9)


@pytest.mark.parametrize("name", MULTILABEL)
def test_several_labels(name):
    assert multilabel(name) == pytest.approx(MULTILABEL[name], rel=1e-9)


@pytest.mark.parametrize("name", ["rmse", "mse", "r2", "mae", "median_ae", "mape"])
def test_several_targets_are_scikit_learns_uniform_average(name):
    import sklearn.metrics

    true = np.stack([TARGETS, TARGETS[::-1] * 10], axis=1)
    values = np.stack([VALUES, VALUES[::-1] * 8], axis=1)
    names = {"rmse": "root_mean_squared_error", "mse": "mean_squared_error", "r2": "r2_score", "mae": "mean_absolute_error",
             "median_ae": "median_absolute_error", "mape": "mean_absolute_percentage_error"}  # fmt: skip
    expected = getattr(sklearn.metrics, names[name])(true, values)
    assert score_rows(name, Predicted(true, values=values)) == pytest.approx(expected)


def test_a_label_without_both_sides_does_not_count():
    flags = FLAGS.copy()
    flags[:, 1] = 0
    expected = np.mean([roc_auc_score(FLAGS[:, at], OF_LABELS[:, at]) for at in (0, 2)])
    assert score_rows("roc_auc", Predicted(flags, IDS_OF_LABELS, OF_LABELS)) == pytest.approx(expected)
    none = Predicted(flags[:, [1]], IDS_OF_LABELS[:, [1]], OF_LABELS[:, [1]])
    assert math.isnan(score_rows("roc_auc", none)) and math.isnan(score_rows("average_precision", none))


@pytest.mark.parametrize("name", [name for name, metric in METRICS.items() if metric.weighs])
def test_a_weight_of_two_is_the_row_twice(name):
    rows = {
        "regression": lambda: Predicted(TARGETS, values=VALUES),
        "binary": lambda: Predicted(TRUE2, IDS2, PROBA2),
        "multiclass": lambda: Predicted(TRUE3, IDS3, PROBA3),
        "quantile": lambda: Predicted(TARGETS, values=QUANTILES, levels=LEVELS),
        "multilabel": lambda: Predicted(FLAGS, IDS_OF_LABELS, OF_LABELS),
    }[METRICS[name].problems[-1]]()
    times = np.arange(len(rows)) % 3 + 1
    expected = score_rows(name, rows.at(np.repeat(np.arange(len(rows)), times)))
    assert score_rows(name, replace(rows, weights=times.astype(float))) == pytest.approx(expected)


def test_what_cannot_be_weighted_or_chosen_by_is_refused():
    assert metric_name("spearmanr", "regression", "metrics") == "spearmanr"
    with pytest.raises(ConfigError, match="'spearmanr' is not defined for weighted rows"):
        metric_name("spearmanr", "regression", "metrics", weighted=True)
    assert metric_name("interval_coverage", "quantile", "metrics") == "interval_coverage"
    with pytest.raises(ConfigError, match="'interval_coverage' says nothing about which model is better"):
        metric_name("interval_coverage", "quantile", "eval_metric", chooses=True)


def test_no_metric_is_left_out():
    tested = {
        "binary": BINARY,
        "multiclass": MULTICLASS,
        "regression": REGRESSION,
        "quantile": QUANTILE,
        "multilabel": MULTILABEL,
    }
    for problem, names in tested.items():
        assert set(names) == {name for name, metric in METRICS.items() if problem in metric.problems}


@pytest.mark.parametrize("name", METRICS)
def test_direction_and_optimum(name):
    """Perfect predictions reach the optimum and beat the ones above."""
    metric = METRICS[name]
    if "regression" in metric.problems:
        best, other = score(name, TARGETS, None, None, TARGETS), regression(name)
    elif "binary" in metric.problems:
        best, other = score(name, TRUE2, TRUE2, np.eye(2)[TRUE2], None), binary(name)
    elif "quantile" in metric.problems:
        # Nothing can be right about shares of four rows but quarters of them.
        true = np.arange(4.0)
        ends = np.tile([0.0, 1.0, 2.0], (4, 1)) if name == "coverage_error" else np.tile(true[:, None], 3)
        best, other = quantile(name, ends, true), quantile(name)
    elif "multilabel" in metric.problems:
        best, other = multilabel(name, FLAGS, FLAGS.astype(float)), multilabel(name)
    else:
        best, other = score(name, TRUE3, TRUE3, np.eye(3)[TRUE3], None), multi(name)
    assert best == pytest.approx(metric.optimum, abs=1e-9)
    assert (best > other) == metric.greater_is_better and best != other


@pytest.mark.parametrize("name", ["roc_auc", "roc_auc_ovr", "roc_auc_ovo_weighted"])
def test_area_of_one_class_is_not_a_number(name):
    proba = PROBA2 if name == "roc_auc" else PROBA3
    ids = np.zeros(len(proba), dtype=int)
    assert math.isnan(score(name, ids, ids, proba, None))


def test_area_without_one_of_three_classes_is_not_a_number():
    rows = TRUE3 != 1
    assert math.isnan(score("roc_auc_ovr", TRUE3[rows], IDS3[rows], PROBA3[rows], None))


@pytest.mark.parametrize("name", ["pearsonr", "spearmanr"])
def test_correlation_of_a_constant_is_not_a_number(name):
    assert math.isnan(score(name, TARGETS, None, None, np.ones(4)))


def test_smape_of_zeros():
    assert score("smape", np.zeros(2), None, None, np.array([0.0, 1.0])) == 1.0  # (0 + 2) / 2


def test_log_loss_of_rows_of_one_class():
    rows = TRUE2 == 1
    expected = -np.log(POSITIVE[rows]).mean()
    assert score("log_loss", TRUE2[rows], IDS2[rows], PROBA2[rows], None) == pytest.approx(expected)


def test_precision_of_no_positive_is_zero_without_a_warning():
    assert score("precision", TRUE2, np.zeros(10, dtype=int), PROBA2, None) == 0.0


class TestNames:
    @pytest.mark.parametrize("alias", ALIASES)
    def test_aliases(self, alias):
        problem = METRICS[ALIASES[alias]].problems[0]
        assert metric_name(alias, problem, "eval_metric") == ALIASES[alias]

    def test_case_and_hyphens(self):
        assert metric_name(" ROC-AUC ", "binary", "metrics") == "roc_auc"
        assert metric_name("Log Loss", "binary", "metrics") == "log_loss"

    def test_objects_with_a_name(self):
        class Scorer:
            name = "balanced_accuracy"

        assert metric_name(Scorer(), "multiclass", "eval_metric") == "balanced_accuracy"

    def test_did_you_mean(self):
        with pytest.raises(ConfigError) as caught:
            metric_name("acuracy", "binary", "eval_metric")
        assert str(caught.value).startswith("eval_metric='acuracy' is unknown. Did you mean 'accuracy'? Allowed: acc")

    @pytest.mark.parametrize(("name", "problem"), [("rmse", "binary"), ("roc_auc", "multiclass"), ("f1", "regression")])
    def test_wrong_problem(self, name, problem):
        with pytest.raises(ConfigError, match=rf"^metrics='{name}' is not for {problem} problems\."):
            metric_name(name, problem, "metrics")

    @pytest.mark.parametrize("name", [3, None, ["accuracy"]])
    def test_no_name(self, name):
        with pytest.raises(ConfigError, match="has to be the name of a metric"):
            metric_name(name, "binary", "metrics")

    def test_defaults_are_automms(self):
        assert DEFAULTS == {
            "binary": "roc_auc",
            "multiclass": "accuracy",
            "regression": "rmse",
            "quantile": "pinball_loss",
            "multilabel": "roc_auc",
        }
