"""Pooling against its formulas in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from featherfit.models.pooling import POOLINGS

STATES = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0))
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [1, 0, 0, 0, 0]])


def by_hand(mode: str) -> np.ndarray:
    rows = []
    for states, mask in zip(STATES.numpy(), MASK.numpy(), strict=True):
        real = states[: mask.sum()]
        rows.append({"cls": real[0], "mean": real.sum(axis=0) / len(real), "last": real[-1]}[mode])
    return np.stack(rows)


@pytest.mark.parametrize("mode", POOLINGS)
def test_formula(mode):
    pooled = POOLINGS[mode](STATES, MASK)
    np.testing.assert_allclose(pooled.numpy(), by_hand(mode), rtol=1e-6)


@pytest.mark.parametrize("mode", POOLINGS)
def test_padding_does_not_count(mode):
    other = STATES.masked_fill(MASK.unsqueeze(-1) == 0, 1e6)
    np.testing.assert_allclose(POOLINGS[mode](other, MASK).numpy(), by_hand(mode), rtol=1e-6)


@pytest.mark.parametrize("mode", POOLINGS)
def test_low_precision_states_are_summed_in_float32(mode):
    """The sum of 301 ones has no bfloat16: it would be 300 or 302."""
    states = torch.ones(1, 301, 2, dtype=torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        pooled = POOLINGS[mode](states, torch.ones(1, 301, dtype=torch.int64))
    assert pooled.dtype == torch.float32
    assert torch.equal(pooled, torch.ones(1, 2))


def test_a_row_without_tokens_is_a_number():
    empty = torch.zeros(3, 5, dtype=torch.int64)
    assert torch.equal(POOLINGS["mean"](STATES, empty), torch.zeros(3, 4))
    assert torch.equal(POOLINGS["last"](STATES, empty), STATES[:, 0])
