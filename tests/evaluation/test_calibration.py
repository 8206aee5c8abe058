"""Temperatures are found again where they are known, and are left alone where rows cannot say."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import log_loss

from featherfit.evaluation.calibration import (
    DOUBT,
    calibrate,
    expected_calibration_error,
    fit_temperature,
    log_losses,
)
from featherfit.evaluation.decision import probabilities


def drawn(
    rows: int, classes: int = 2, temperature: float = 1.0, seed: int = 0, size: float = 2.0
) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and classes drawn from their probabilities at `temperature`, which is then the right one."""
    random = np.random.default_rng(seed)
    logits = (random.normal(size=(rows, classes)) * size).astype(np.float32)
    proba = probabilities(logits, temperature).astype(np.float64)
    true = (random.random((rows, 1)) > proba.cumsum(axis=1)).sum(axis=1)
    return logits, np.minimum(true, classes - 1)


def test_log_losses_are_scikit_learns():
    logits, true = drawn(60, 3)
    proba = probabilities(logits, 1.7).astype(np.float64)
    proba /= proba.sum(axis=1, keepdims=True)
    assert log_losses(logits, true, 1.7).mean() == pytest.approx(log_loss(true, proba, labels=[0, 1, 2]), rel=1e-6)


def test_doubt_is_a_mixture_of_labels():
    logits, true = drawn(20, 3)
    others = [log_losses(logits, (true + shift) % 3) for shift in (1, 2)]
    expected = 0.8 * log_losses(logits, true) + 0.1 * others[0] + 0.1 * others[1]
    np.testing.assert_allclose(log_losses(logits, true, doubt=0.2), expected)


def test_calibration_error_by_hand():
    proba = np.array([[0.95, 0.05], [0.06, 0.94], [0.07, 0.93], [0.52, 0.48], [0.0, 1.0]], dtype=np.float32)
    true = np.array([0, 0, 1, 1, 1])
    # Bins of width 1/15: 0.94, 0.95 and 1.0 in the last, 0.93 in the one before, 0.52 in the eighth.
    by_bin = [abs(2 - (0.95 + 0.94 + 1.0)), abs(1 - 0.93), abs(0 - 0.52)]
    assert expected_calibration_error(true, proba) == pytest.approx(sum(by_bin) / 5, rel=1e-6)
    assert math.isnan(expected_calibration_error(true[:0], proba[:0]))


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_the_temperature_of_the_draw_is_found(temperature, classes):
    logits, true = drawn(20_000, classes, temperature)
    assert fit_temperature(logits, true, transfer=False) == pytest.approx(temperature, rel=0.05)


@pytest.mark.parametrize("temperature", [0.3, 0.8, 2.5])
def test_transfer_sharpens_less_and_softens_as_much(temperature):
    logits, true = drawn(5000, temperature=temperature)
    plain, careful = (fit_temperature(logits, true, transfer=transfer) for transfer in (False, True))
    if temperature > 1:
        assert careful == plain > 1
    else:
        assert plain < careful <= 1


def test_transfer_is_right_where_that_share_of_labels_is_otherwise():
    logits, true = drawn(20_000, temperature=0.1, size=0.2)
    elsewhere = np.where(np.random.default_rng(1).random(len(true)) < DOUBT, 1 - true, true)
    careful = fit_temperature(logits, true, transfer=True)
    assert careful < 0.9
    assert careful == pytest.approx(fit_temperature(logits, elsewhere, transfer=False), rel=0.05)


@pytest.mark.parametrize("temperature", [0.4, 2.5])
def test_calibrate_lowers_log_loss_and_error_of_other_rows(temperature):
    logits, true = drawn(200, temperature=temperature)
    found = calibrate(logits, true, transfer=False)
    assert "before" in found.reason
    fresh, classes = drawn(5000, temperature=temperature, seed=1)
    assert log_losses(fresh, classes, found.temperature).mean() < log_losses(fresh, classes).mean() - 0.02
    errors = [expected_calibration_error(classes, probabilities(fresh, value)) for value in (found.temperature, 1.0)]
    assert errors[0] < errors[1]


def test_calibrate_leaves_good_probabilities_alone():
    """By the gain's standard error, chance alone changes less than a sixth of calibrated models."""
    changed = [calibrate(*drawn(100, seed=seed), transfer=False).temperature != 1 for seed in range(60)]
    assert np.mean(changed) < 0.16


@pytest.mark.parametrize(("rows", "said"), [(29, "29 held-out rows are fewer"), (40, "of one class")])
def test_too_few_rows_or_classes(rows, said):
    logits, true = drawn(rows, temperature=0.3)
    found = calibrate(logits, true * 0 if rows == 40 else true, transfer=False)
    assert found.temperature == 1 and said in found.reason


def test_perfectly_separated_rows_stay_within_bounds():
    logits, _ = drawn(100)
    true = logits.argmax(1)
    assert 0.05 <= calibrate(logits, true, transfer=False).temperature < 0.06
    assert calibrate(logits, true, transfer=True).temperature > 0.1


def test_the_labels_of_a_row_count_as_one():
    """Rows copied three times say no more than once."""
    for seed in range(20):
        logits, true = drawn(60, temperature=0.8, seed=seed)
        once = calibrate(logits, true, transfer=False)
        three = calibrate(np.repeat(logits, 3, axis=0), np.repeat(true, 3), transfer=False, of_row=3)
        assert (three.temperature == 1) == (once.temperature == 1)
        assert three.temperature == pytest.approx(once.temperature, rel=1e-3)
    with_copies = [
        calibrate(np.repeat(logits, 3, axis=0), np.repeat(true, 3), transfer=False).temperature != 1
        for logits, true in (drawn(60, seed=seed) for seed in range(30))
    ]
    alone = [calibrate(*drawn(60, seed=seed), transfer=False).temperature != 1 for seed in range(30)]
    assert sum(with_copies) > sum(alone)  # what `of_row` is for
