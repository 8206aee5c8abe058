"""The record of scores slice by slice: its numbers, its forms, and what it says where there is no number."""

from __future__ import annotations

import json
import math
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, log_loss, roc_auc_score

from featherfit.errors import ConfigError
from featherfit.evaluation.calibration import expected_calibration_error
from featherfit.evaluation.predicted import Predicted
from featherfit.evaluation.slices import SlicedScores, score_slices

ROWS = {"de": 60, "en": 100, "xx": 20, "one": 1}
LARGE = ("de", "en", "xx")
NAMES = [name for name, rows in ROWS.items() for _ in range(rows)]
RANDOM = np.random.default_rng(0)
TRUE = RANDOM.integers(0, 2, len(NAMES))
TRUE[160:] = 1  # xx and one are of one class
POSITIVE = np.clip(0.35 * TRUE + 0.6 * RANDOM.random(len(NAMES)), 0.01, 0.99)
POSITIVE[160:180] = 0.8  # all of xx is right
DATA = Predicted(TRUE, (POSITIVE > 0.5).astype(int), np.stack([1 - POSITIVE, POSITIVE], axis=1))
METRICS = ["accuracy", "roc_auc", "log_loss"]


@pytest.fixture(scope="module")
def scores() -> SlicedScores:
    values = [(name,) for name in NAMES]
    return score_slices(DATA, values, ["language"], METRICS, reference=None, resamples=300, seed=0)


def rows_of(name: str) -> np.ndarray:
    return np.array([name == own for own in NAMES])


@pytest.mark.parametrize("name", ["de", "en"])
def test_scores_are_scikit_learns(scores, name):
    at = rows_of(name)
    expected = {
        "accuracy": accuracy_score(TRUE[at], DATA.ids[at]),
        "roc_auc": roc_auc_score(TRUE[at], POSITIVE[at]),
        "log_loss": log_loss(TRUE[at], DATA.proba[at]),
    }
    part = scores[name]
    assert {metric: estimate.value for metric, estimate in part.scores.items()} == pytest.approx(expected)
    assert part.rows == ROWS[name]
    assert part.calibration_error == expected_calibration_error(TRUE[at], DATA.proba[at])
    for estimate in part.scores.values():
        assert estimate.low < estimate.value < estimate.high


def test_the_largest_slice_is_the_reference_unless_one_is_named(scores):
    assert scores.reference == "en" and "most rows" in scores.reference_reason
    assert [part.name for part in scores.slices] == ["en", "de", "xx", "one"]
    assert scores["en"].gaps["accuracy"].value == 0
    gap = scores["de"].gaps["accuracy"]
    assert gap.value == scores["de"].scores["accuracy"].value - scores["en"].scores["accuracy"].value
    assert gap.high - gap.low > scores["de"].scores["accuracy"].high - scores["de"].scores["accuracy"].low
    other = score_slices(
        DATA, [(name,) for name in NAMES], ["language"], ["accuracy"], reference=("de", "so"), resamples=100, seed=0
    )
    assert other.slices[0].name == other.reference == "de" and other["en"].gaps["accuracy"].value == -gap.value


def test_average_worst_and_overall(scores):
    own = {name: {metric: scores[name].scores[metric].value for metric in METRICS} for name in ROWS}
    assert scores.macro["accuracy"].value == pytest.approx(np.mean([own[name]["accuracy"] for name in LARGE]))
    assert scores.macro["roc_auc"].value == pytest.approx((own["de"]["roc_auc"] + own["en"]["roc_auc"]) / 2)
    assert scores.overall["accuracy"] == pytest.approx(accuracy_score(TRUE, DATA.ids))
    assert own[scores.worst["accuracy"]]["accuracy"] == min(own[name]["accuracy"] for name in LARGE)
    assert own[scores.worst["log_loss"]]["log_loss"] == max(own[name]["log_loss"] for name in LARGE)
    width = scores.macro["roc_auc"].high - scores.macro["roc_auc"].low
    assert width < scores["de"].scores["roc_auc"].high - scores["de"].scores["roc_auc"].low


def test_what_is_not_defined_is_said(scores):
    assert math.isnan(scores["xx"].scores["roc_auc"].value) and math.isnan(scores["xx"].gaps["roc_auc"].value)
    assert math.isnan(scores["xx"].scores["accuracy"].low) and scores["xx"].scores["accuracy"].value == 1
    said = scores.verdict()
    assert "roc_auc is not defined on 'xx', 'one'" in said and "accuracy has no interval on 'xx', 'one'" in said
    assert "'one': fewer than 10 rows, so neither in the macro average" in said
    assert "Gaps are to 'en'" in said and "Worst accuracy" in said


def test_nothing_defined_anywhere():
    at = rows_of("xx")
    alone = score_slices(
        DATA.at(at), [("xx",)] * at.sum(), ["language"], ["roc_auc"], reference=None, resamples=100, seed=0
    )
    assert math.isnan(alone.macro["roc_auc"].value) and alone.worst == {"roc_auc": None}
    assert "not defined" in str(alone)


def test_a_slices_interval_does_not_depend_on_the_others(scores):
    at = rows_of("de")
    alone = score_slices(
        DATA.at(at), [("de",)] * at.sum(), ["language"], METRICS, reference=None, resamples=300, seed=0
    )
    assert alone["de"].scores == scores["de"].scores
    reseeded = score_slices(
        DATA.at(at), [("de",)] * at.sum(), ["language"], METRICS, reference=None, resamples=300, seed=1
    )
    assert reseeded["de"].scores["accuracy"] != alone["de"].scores["accuracy"]


def test_forms(scores):
    frame = scores.to_frame()
    assert frame["language"].tolist() == ["en", "de", "xx", "one"] and frame["rows"].tolist() == [100, 60, 20, 1]
    row = frame.set_index("language").loc["de"]
    part = scores["de"]
    assert row["roc_auc"] == part.scores["roc_auc"].value and row["roc_auc_low"] == part.scores["roc_auc"].low
    assert row["log_loss_gap_high"] == part.gaps["log_loss"].high and row["calibration_error"] == part.calibration_error
    state = scores.to_json()
    assert json.loads(json.dumps(state))["slices"][1]["scores"]["accuracy"]["value"] == part.scores["accuracy"].value
    lines = scores.rows_to_show()
    assert [line["language"] for line in lines] == ["en", "de", "xx", "one", "macro average"]
    assert lines[0]["accuracy, gap"] == "reference" and len({tuple(line) for line in lines}) == 1
    assert str(part.scores["accuracy"]) in str(scores) and scores.verdict() in str(scores)
    with pytest.raises(FrozenInstanceError):
        scores.reference = "de"


def test_regression_and_several_columns():
    random = np.random.default_rng(0)
    true = random.normal(size=60)
    data = Predicted(true, values=true + random.normal(size=60))
    values = [("de", "books"), ("de", "films"), ("en", "books")] * 20
    found = score_slices(data, values, ["language", "of"], ["rmse"], reference=None, resamples=100, seed=0)
    assert found.slices[0].name == "de / books" and found.slices[0].calibration_error is None
    assert found.to_frame().columns[:3].tolist() == ["language", "of", "rows"]
    assert "calibration_error" not in found.to_frame()
    at = np.arange(60) % 3 == 1
    assert found["de / films"].scores["rmse"].value == pytest.approx(np.sqrt(np.mean((true - data.values)[at] ** 2)))


def test_plot(scores, tmp_path):
    pytest.importorskip("matplotlib")
    scores.plot(tmp_path / "scores.svg")
    drawn = (tmp_path / "scores.svg").read_text()
    assert drawn.startswith("<?xml") and "de (60)" in drawn
    scores.plot(str(tmp_path / "scores.png"))
    with pytest.raises(ConfigError, match=r"has to end in one of .png"):
        scores.plot(tmp_path / "scores.txt")
    with pytest.raises(ConfigError, match="there is no folder"):
        scores.plot(tmp_path / "none" / "scores.png")
