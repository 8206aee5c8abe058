"""8-bit layers against float32 formulas, and what `optimize_for_inference` does with them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from featherfit.errors import ConfigError, QualityError, UnsupportedError
from featherfit.inference.int8 import GELU_LOW, Int8Down, Int8Linear, Int8Up, Quantizer, Range, multiplies_int8
from featherfit.inference.optimize import outlying_channels

needs_int8 = pytest.mark.skipif(not multiplies_int8(), reason="this torch has no int8 products")
TEXTS = pd.DataFrame({"text": ["a good book", "a bad film, and a long one", "so so", "the best of all of them"]})


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


class TestRange:
    def test_codes_by_hand(self):
        range = Range.of(-1.0, 1.55)  # a step of 0.01
        codes = range.codes(torch.tensor([-1.0, 0.0, 0.5, 1.55, 9.0, -9.0]))
        assert codes.tolist() == [0, 100, 150, 255, 255, 0]
        np.testing.assert_allclose(range.numbers(codes)[:3], [-1.0, 0.0, 0.5], atol=1e-6)

    def test_both_ways_to_write_codes_agree(self):
        x, range = 3 * random(64, 33), Range.of(-4.0, 5.0)
        for given in (x, x.bfloat16()):
            apart = (range.codes(given).int() - range.codes_by_steps(given).int()).abs()
            assert apart.max() <= 1  # what lies halfway between two codes may go either way
            assert apart.float().mean() < 0.01


@needs_int8
class TestLayers:
    def test_linear_is_off_by_rounding_only(self):
        linear, x = nn.Linear(64, 32), random(50, 64)
        range = Range.of(float(x.min()), float(x.max()))
        with torch.no_grad():
            given, exact = Int8Linear(linear, Quantizer(range), torch.float32)(x), linear(x)
            # Half a step in every input and every weight, all errors in the same direction.
            weight = linear.weight.abs()
            bound = range.scale / 2 * weight.sum(1) + (weight.amax(1) / 254) * (x.abs() + range.scale).sum(
                1, keepdim=True
            )
        assert ((given - exact).abs() <= bound + 1e-4).all()
        assert 0 < (given - exact).abs().mean() < 0.02

    def test_outliers_count_beyond_the_range(self):
        """Channel 3 reaches 40 where the others stay below 3; its excess goes round the codes."""
        up, down, x = nn.Linear(16, 24), nn.Linear(24, 8), random(30, 16)
        with torch.no_grad():
            up.weight[3] *= 40
            outliers, quantizer = torch.tensor([3]), Quantizer(Range.of(float(x.min()), float(x.max())))
            exact = down(F.gelu(up(x)))
            first = Int8Up(up, quantizer, 3.0, outliers, torch.float32)
            second = Int8Down(down, first, outliers, torch.float32)
            error = (second(first(x)) - exact).abs().max()
            cut = Int8Up(up, quantizer, 3.0, torch.tensor([], dtype=torch.int64), torch.float32)
            without = (
                (Int8Down(down, cut, torch.tensor([], dtype=torch.int64), torch.float32)(cut(x)) - exact).abs().max()
            )
        assert error < 0.15 < 1 < without

    def test_layers_that_read_one_tensor_share_its_codes(self):
        quantizer, x = Quantizer(Range.of(-3, 3)), random(4, 8)
        codes = quantizer(x)
        assert quantizer(x) is codes
        x.mul_(2)
        assert quantizer(x) is not codes
        assert quantizer(x.clone()) is not codes


def test_outlying_channels_are_as_few_as_rounding_allows():
    highs = torch.tensor([1.0, 100.0, 1.2, 0.9])
    high, outliers = outlying_channels(highs, torch.tensor([0.1, 9.0, 0.1, 0.1]))
    assert (round(high, 3), outliers.tolist()) == (1.2, [1])
    assert outlying_channels(torch.full((100,), 1000.0), torch.full((100,), 1e-6)) is None
    assert GELU_LOW < float(F.gelu(torch.linspace(-3, 3, 10001)).min()) + 1e-4


@needs_int8
class TestPredictor:
    def test_close_repeatable_and_undone(self, fitted):
        before = fitted.predict_proba(TEXTS).to_numpy()
        report = fitted.optimize_for_inference(data=TEXTS, max_loss=0.02)
        try:
            after = fitted.predict_proba(TEXTS).to_numpy()
            assert report.layers == 12 and report.kept == 0
            assert 0 < np.abs(after - before).max() < 0.05
            assert np.abs(after - before).max() == pytest.approx(report.largest_difference, abs=1e-6)
            assert after.tobytes() == fitted.predict_proba(TEXTS).to_numpy().tobytes()
        finally:
            assert fitted.optimize_for_inference(precision=None) is None
        assert fitted.predict_proba(TEXTS).to_numpy().tobytes() == before.tobytes()

    def test_a_model_that_differs_too_much_is_refused(self, fitted, monkeypatch):
        before = fitted.predict_proba(TEXTS).to_numpy()
        monkeypatch.setattr("featherfit.inference.quality.AGREEMENT_FACTOR", -1)  # asks for an agreement of 150 %
        with pytest.raises(QualityError, match=r"agrees with the trained model in .* Nothing was changed"):
            fitted.optimize_for_inference(data=TEXTS, max_loss=0.5)
        assert fitted.predict_proba(TEXTS).to_numpy().tobytes() == before.tobytes()

    @pytest.mark.parametrize(
        ("given", "error", "text"),
        [
            ({"providers": ["CPU"]}, UnsupportedError, "providers is not supported"),
            ({"precision": "int4"}, ConfigError, "precision='int4' is unknown. Allowed: 'int8'"),
            ({"max_loss": 2}, ConfigError, "max_loss=2 has to be a number from 0 to 1"),
        ],
    )
    def test_refusals(self, fitted, given, error, text):
        with pytest.raises(error, match=text):
            fitted.optimize_for_inference(**given)
