"""What the speed benchmarks are made of still fits the library: they train, predict, and count what they should."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from measure import Setup, Work, set_up
from quick import Plain

from featherfit.demo import demo_table


@pytest.fixture(scope="module")
def setup() -> Setup:
    return set_up(demo_table("en", "train")[["text", "label"]], env__batch_size=8, env__precision="32")


def test_ours_and_the_plain_baseline_are_the_same_model(setup):
    """Before training: the same head and checkpoint, padded or not; so their speeds may be compared."""
    dataset = setup.dataset(demo_table("de")[["text", "label"]].head(8))
    _, expected = Plain(setup).predict(dataset)
    np.testing.assert_allclose(setup.predict(dataset), expected, rtol=1e-3, atol=1e-4)


def test_steps_come_in_the_order_of_their_rows(setup):
    dataset = setup.dataset(demo_table("en", "train")[["text", "label"]].head(40))
    reports, rows = setup.steps(dataset), setup.rows_of_steps(dataset)
    seen = [(next(reports), next(rows)) for _ in range(3)]
    assert all(np.isfinite(report.loss) and len(own) == 8 for report, own in seen)


def test_work_is_two_operations_a_weight_and_token(setup):
    work, lengths = Work.of(setup.model.text), np.array([3, 5])
    linear = 2 * 12 * (4 * 384**2 + 2 * 384 * 1536) * 8
    assert work.flops(lengths, training=False) == linear + 12 * 4 * 384 * (9 + 25)
