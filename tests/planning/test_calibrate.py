"""Extrapolation is exact for what is bilinear, and near enough for what is run."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_copies import replace_config
from tiny_models import TINY

from featherfit.planning.calibrate import Grid, _batch, _measure, calibrate, heaviest, size_of
from featherfit.planning.copies import small_copy


def test_a_grid_gives_back_what_is_bilinear():
    def value(layers: int, tokens: int) -> int:
        return 100 + 7 * layers + 3 * tokens + 2 * layers * tokens

    grid = Grid((64, 128), ((value(1, 64), value(1, 128)), (value(2, 64), value(2, 128))))
    for layers, tokens in [(1, 64), (2, 128), (12, 1024), (24, 96)]:
        assert grid.at(layers, tokens) == pytest.approx(value(layers, tokens))


def test_one_size_of_batch_is_taken_as_proportional():
    grid = Grid((50, 50), ((10.0, 10.0), (14.0, 14.0)))
    assert grid.at(3, 100) == 36


def test_a_value_is_never_below_zero():
    assert Grid((100, 200), ((10.0, 30.0), (10.0, 30.0))).at(5, 10) == 0


def test_the_heaviest_forward():
    lengths = np.array([5, 9, 3, 20, 7])
    assert size_of(lengths, padded=True) == 100
    assert size_of(lengths, padded=False) == 44
    assert heaviest(lengths, 5, 12, padded=False).tolist() == [20]
    assert sorted(heaviest(lengths, 5, 1000, padded=True).tolist()) == [3, 5, 7, 9, 20]


@pytest.mark.parametrize("model_type", ["bert", "t5", "llama"])
def test_deeper_models_take_what_shallow_ones_foretell(model_type):
    architecture = replace_config(model_type)
    lengths = np.full(40, 20)
    found = calibrate(architecture, lengths, problem_type="multiclass", reorders=False, padded=True, layer_size=1000)
    deep = small_copy(architecture, 6, reorders=False)
    batch = _batch(lengths[:30], "multiclass")
    in_training, _, _ = _measure(deep, batch, architecture, "multiclass")
    assert found.training.at(6, 600) == pytest.approx(in_training, rel=0.05)


def test_gradients_are_dropped(monkeypatch):
    architecture = replace_config("bert")
    model = small_copy(architecture, 1, reorders=False)
    _measure(model, _batch(np.array([4, 6]), "multiclass"), architecture, "multiclass")
    assert all(parameter.grad is None for parameter in model.parameters())
    assert isinstance(model.encoder.backbone, torch.nn.Module) and TINY
