"""Logits are read by a temperature and a threshold; neither disturbs what they should leave alone."""

from __future__ import annotations

import json

import numpy as np
import pytest

from featherfit.evaluation.decision import UNCALIBRATED, Decision, probabilities

LOGITS = np.random.default_rng(0).normal(size=(500, 2)).astype(np.float32) * 4


def test_probabilities_are_softmax_of_divided_logits():
    given = Decision(temperature=2.5).probabilities(LOGITS)
    powers = np.exp(LOGITS.astype(np.float64) / 2.5)
    np.testing.assert_allclose(given, powers / powers.sum(axis=1, keepdims=True), rtol=1e-6)
    assert probabilities(LOGITS, 2.5).tobytes() == given.tobytes()


@pytest.mark.parametrize("temperature", [0.05, 0.3, 1.0, 20.0])
def test_a_temperature_never_changes_a_label(temperature):
    close = np.array([[1.0, np.nextafter(np.float32(1), np.float32(2))], [3.0, 3.0]], dtype=np.float32)
    many = np.random.default_rng(1).normal(size=(300, 7)).astype(np.float32)
    for logits in (close, LOGITS, many):
        assert Decision(temperature).ids(logits).tolist() == logits.argmax(1).tolist()


def test_a_threshold_says_from_where_a_row_is_positive():
    decision = Decision(temperature=2.0, threshold=0.8)
    positive = decision.probabilities(LOGITS)[:, 1]
    ids = decision.ids(LOGITS)
    assert (
        ids.tolist()
        == (positive > 0.8).astype(int).tolist()
        == decision.ids_of(decision.probabilities(LOGITS)).tolist()
    )
    assert 0 < ids.sum() < UNCALIBRATED.ids(LOGITS).sum()
    assert Decision(threshold=0.0).ids(LOGITS).all() and not Decision(threshold=1.0).ids(LOGITS).any()


def test_goes_to_json_and_back():
    decision = Decision(0.1 + 0.2, 1 / 3)
    assert Decision.from_json(json.loads(json.dumps(decision.to_json()))) == decision


@pytest.mark.parametrize("state", [(0.0, 0.5), (float("nan"), 0.5), (float("inf"), 0.5), (1.0, 1.5)])
def test_a_damaged_state_is_refused(state):
    with pytest.raises(ValueError, match="out of range"):
        Decision.from_json(dict(zip(("temperature", "threshold"), state, strict=True)))
