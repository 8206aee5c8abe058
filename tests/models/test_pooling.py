"""Pooling against its formulas in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from featherfit.models.pooling import POOLINGS

LENGTHS = torch.tensor([1, 5, 2])
STATES = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("mode", POOLINGS)
def test_formula(mode):
    rows = np.split(STATES.numpy(), np.cumsum(LENGTHS.numpy())[:-1])
    by_hand = {
        "cls": [r[0] for r in rows],
        "mean": [r.sum(axis=0) / len(r) for r in rows],
        "last": [r[-1] for r in rows],
    }
    np.testing.assert_allclose(POOLINGS[mode](STATES, LENGTHS).numpy(), np.stack(by_hand[mode]), rtol=1e-6)


@pytest.mark.parametrize("mode", POOLINGS)
def test_gradients(mode):
    states = STATES.double().requires_grad_()
    pooled = POOLINGS[mode](states, LENGTHS)
    pooled.sum().backward()
    weights = {"cls": [1, 1, 0, 0, 0, 0, 1, 0], "mean": [1, *[0.2] * 5, 0.5, 0.5], "last": [1, 0, 0, 0, 0, 1, 0, 1]}
    np.testing.assert_allclose(states.grad[:, 0], weights[mode], rtol=1e-6)


@pytest.mark.parametrize("mode", POOLINGS)
def test_low_precision_states_are_summed_in_float32(mode):
    """The sum of 301 ones has no bfloat16: it would be 300 or 302."""
    states = torch.ones(301, 2, dtype=torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        pooled = POOLINGS[mode](states, torch.tensor([301]))
    assert pooled.dtype == torch.float32
    assert pooled.tolist() == [[1.0, 1.0]]
