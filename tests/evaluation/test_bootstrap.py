"""Resampled metrics are scikit-learn's on the resampled rows; intervals hold the true value as often as they say."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from featherfit.evaluation import bootstrap
from featherfit.evaluation.bootstrap import interval, resampled, score_quietly
from featherfit.evaluation.metrics import METRICS
from featherfit.evaluation.predicted import Predicted
from featherfit.evaluation.slices import score_slices


def predicted(problem: str, rows: int = 40, seed: int = 0) -> Predicted:
    """Random labels, and predictions somewhat better than chance, with ties."""
    random = np.random.default_rng(seed)
    if problem == "regression":
        true = random.normal(size=rows) * 3
        return Predicted(true, values=true + random.normal(size=rows))
    if problem == "quantile":
        true = random.normal(size=rows) * 3
        values = np.sort(true[:, None] + random.normal(size=(rows, 3)) * 2, axis=1)
        return Predicted(true, values=values, levels=(0.1, 0.5, 0.9))
    if problem == "multilabel":
        true = (random.random((rows, 3)) < [0.5, 0.3, 0.6]).astype(np.int64)
        proba = np.clip(np.round(random.random((rows, 3)) * 0.8 + 0.2 * true, 1), 0.05, 0.95).astype(np.float32)
        return Predicted(true, (proba > 0.5).astype(np.int64), proba)
    classes = 2 if problem == "binary" else 4
    true = random.integers(0, classes, rows)
    proba = np.round(random.random((rows, classes)) + 0.5 * np.eye(classes)[true], 1) + 0.05
    proba = (proba / proba.sum(axis=1, keepdims=True)).astype(np.float32)
    return Predicted(true, proba.argmax(axis=1), proba)


@pytest.mark.parametrize(
    ("problem", "metric"), [(problem, name) for name, entry in METRICS.items() for problem in entry.problems]
)
def test_resamples_are_scored_as_rows_are(problem, metric, monkeypatch):
    monkeypatch.setattr(bootstrap, "_CELLS", 400)  # so that counts come in several pieces
    rows = predicted(problem)
    given = resampled(rows, [metric], 25, [3, 4])[metric]
    counts = np.concatenate(list(bootstrap._counts(len(rows), 25, [3, 4]))).astype(int)
    assert counts.shape == (25, 40) and (counts.sum(axis=1) == 40).all()
    drawn = [rows.at(np.repeat(np.arange(40), row)) for row in counts]
    with np.errstate(all="ignore"):
        np.testing.assert_allclose(given, [score_quietly(metric, one) for one in drawn], rtol=1e-6, atol=1e-9)
    assert len(np.unique(given)) > 5


@pytest.mark.parametrize(
    ("problem", "metric"),
    [(problem, name) for name, entry in METRICS.items() if entry.weighs for problem in entry.problems],
)
def test_weighted_resamples_are_scored_as_weighted_rows_are(problem, metric):
    rows = replace(predicted(problem), weights=np.random.default_rng(1).uniform(0, 3, 40))
    given = resampled(rows, [metric], 10, [3, 4])[metric]
    counts = np.concatenate(list(bootstrap._counts(len(rows), 10, [3, 4]))).astype(int)
    drawn = [rows.at(np.repeat(np.arange(40), row)) for row in counts]
    with np.errstate(all="ignore"):
        expected = [score_quietly(metric, one) for one in drawn]
        plain = [score_quietly(metric, replace(one, weights=None)) for one in drawn]
    np.testing.assert_allclose(given, expected, rtol=1e-6, atol=1e-9)
    assert not np.allclose(given, plain)


def test_several_targets_are_scored_one_by_one():
    random = np.random.default_rng(0)
    true = random.normal(size=(40, 2))
    rows = Predicted(true, values=true + random.normal(size=(40, 2)) * [1, 3])
    for metric in ("rmse", "r2", "mae", "pearsonr"):
        parts = [resampled(part, [metric], 20, [1])[metric] for part in rows.parts()]
        np.testing.assert_allclose(resampled(rows, [metric], 20, [1])[metric], np.mean(parts, axis=0))


def test_pieces_make_no_difference(monkeypatch):
    rows = predicted("binary")
    whole = resampled(rows, ["roc_auc"], 31, [0])["roc_auc"]
    monkeypatch.setattr(bootstrap, "_CELLS", 170)
    np.testing.assert_array_equal(resampled(rows, ["roc_auc"], 31, [0])["roc_auc"], whole)
    assert not np.array_equal(resampled(rows, ["roc_auc"], 31, [1])["roc_auc"], whole)


def test_rows_of_one_class_have_no_area():
    rows = predicted("binary")
    rows = rows.at(rows.true == 1)
    assert np.isnan(resampled(rows, ["roc_auc"], 5, [0])["roc_auc"]).all() and math.isnan(
        score_quietly("roc_auc", rows)
    )


class TestInterval:
    values = np.random.default_rng(0).normal(size=20_000)

    def test_of_many_rows_is_the_percentile_interval(self):
        expected = np.quantile(self.values, [0.025, 0.975])
        np.testing.assert_allclose(interval(self.values, [(self.values, 10**6)]), expected, rtol=1e-3)

    def test_of_few_rows_is_students(self):
        ends = interval(self.values, [(self.values, 10)])
        assert ends[1] == pytest.approx(math.sqrt(10 / 9) * stats.t.ppf(0.975, 9), rel=0.05)

    def test_of_several_parts_has_welchs_freedom(self):
        other = np.random.default_rng(1).normal(size=20_000) * 0.01
        ends = interval(self.values - other, [(self.values, 12), (other, 3)])
        assert ends[1] == pytest.approx(interval(self.values, [(self.values, 12)])[1], rel=0.02)

    @pytest.mark.parametrize(
        ("values", "rows"),
        [(np.ones(100), 50), (np.arange(100.0), 1), (np.where(np.arange(100) < 6, np.nan, np.arange(100.0)), 50)],
    )
    def test_none_where_resamples_cannot_tell(self, values, rows):
        assert all(map(math.isnan, interval(values, [(values, rows)])))

    def test_a_few_undefined_resamples_are_left_out(self):
        values = np.where(np.arange(20_000) < 500, np.nan, self.values)
        np.testing.assert_allclose(
            interval(values, [(values, 500)]), interval(self.values, [(self.values, 500)]), rtol=0.05
        )


@pytest.mark.slow
def test_intervals_hold_the_true_value_95_times_in_100():
    """1,500 draws of three languages; the standard error of a coverage of 95 % is 0.6 %."""
    rows, right, shift = (
        {"en": 150, "de": 80, "ja": 250},
        {"en": 0.9, "de": 0.7, "ja": 0.8},
        {"en": 1.8, "de": 0.8, "ja": 1.2},
    )
    values = [(name,) for name, size in rows.items() for _ in range(size)]
    area = {name: stats.norm.cdf(by / math.sqrt(2)) for name, by in shift.items()}
    mean = {"accuracy": np.mean(list(right.values())), "roc_auc": np.mean(list(area.values()))}
    held: dict[str, list[bool]] = {}
    random = np.random.default_rng(0)
    for seed in range(1500):
        true = random.integers(0, 2, len(values))
        chance = np.array([right[name] for (name,) in values])
        ids = np.where(random.random(len(values)) < chance, true, 1 - true)
        scores = stats.norm.cdf(random.normal(size=len(values)) + true * np.array([shift[name] for (name,) in values]))
        data = Predicted(true, ids, np.stack([1 - scores, scores], axis=1))
        found = score_slices(
            data, values, ["language"], ["accuracy", "roc_auc"], reference=("en", ""), resamples=800, seed=seed
        )
        for metric, truth in (("accuracy", right), ("roc_auc", area)):
            for name in rows:
                estimates = {metric: (found[name].scores[metric], truth[name])}
                if name != "en":
                    estimates[f"{metric}, gap"] = (found[name].gaps[metric], truth[name] - truth["en"])
                for what, (estimate, value) in estimates.items():
                    held.setdefault(f"{what} {name}", []).append(estimate.low <= value <= estimate.high)
            estimate = found.macro[metric]
            held.setdefault(f"{metric}, macro", []).append(estimate.low <= mean[metric] <= estimate.high)
    coverage = {what: float(np.mean(of)) for what, of in held.items()}
    assert len(coverage) == 12
    assert {what: share for what, share in coverage.items() if not 0.93 <= share <= 0.97} == {}, coverage
