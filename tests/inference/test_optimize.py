"""From a trained model to its int8 form: what is measured, what is chosen, what is shared, and what is refused."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_checkpoints import quick_fit, reviews, same, weights, write_checkpoint
from tiny_models import TINY, tiny_model
from torch import nn

from featherfit import MultiModalPredictor
from featherfit.adapters.ia3 import IA3
from featherfit.errors import ConfigError, QualityError, UnsupportedError
from featherfit.inference import optimize as module
from featherfit.inference.int8 import Int8Down, Int8Linear, Quantizer, Range, int8_rows, multiplies_int8
from featherfit.inference.optimize import int8_model, optimize, smoothing_factors, with_modules
from featherfit.inference.predict import outputs, table_rows
from featherfit.inference.quality import AGREEMENT_FACTOR, Optimized, refuse_worse
from featherfit.training.device import Device

needs_int8 = pytest.mark.skipif(not multiplies_int8(), reason="this torch has no int8 products")
ACTIVATED = ("bert", "electra", "roberta", "distilbert")


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def rounded_product(x: torch.Tensor, weight: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
    """The product after rounding x * factors to 256 steps and weight / factors to 255, in float32."""
    small = x * factors
    codes = Range.of(small.min().item(), small.max().item())
    scales, integers = int8_rows(weight / factors)
    return codes.numbers(codes.codes(small)) @ (integers * scales.unsqueeze(1)).t()


class TestSmoothing:
    def test_one_large_channel_no_longer_coarsens_all(self):
        x, weight = random(400, 64), random(32, 64)
        x[:, 5] *= 40
        factors = smoothing_factors(x.amin(0), x.amax(0), x.square().mean(0), weight)
        with_it, without = ((rounded_product(x, weight, f) - x @ weight.t()).std() for f in (factors, torch.ones(64)))
        assert factors[5] < 0.3 and with_it < without / 2

    def test_the_least_error_of_all_limits_is_taken(self):
        x, weight = random(300, 48) * random(48).exp(), random(16, 48)
        sizes = x.abs().amax(0)
        taken = smoothing_factors(x.amin(0), x.amax(0), x.square().mean(0), weight)
        limits = [(sizes.max() * 2 ** (-halves / 2) / sizes).clamp_max(1) for halves in range(13)]
        errors = [(rounded_product(x, weight, f) - x @ weight.t()).std().item() for f in limits]
        assert (rounded_product(x, weight, taken) - x @ weight.t()).std().item() < 1.1 * min(errors) < 0.5 * errors[0]

    @needs_int8
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_layer_takes_the_factors_back(self, dtype):
        linear, x, factors = nn.Linear(64, 32), random(50, 64), random(64).sigmoid()
        linear = linear.requires_grad_(False)
        small = x * factors
        given = x.to(dtype)
        layer = Int8Linear(linear, Quantizer(Range.of(small.min().item(), small.max().item()), factors), torch.float32)
        assert (layer(given) - linear(x)).abs().mean() < 0.02
        assert torch.equal(given, x.to(dtype)), "the input is not written to"


@needs_int8
class TestModel:
    @pytest.mark.parametrize("model_type", sorted(TINY))
    def test_every_family_stays_close(self, fitted, model_type):
        trained = replace(fitted._fitted, model=tiny_model(model_type, outputs=2))
        rows = table_rows(trained, reviews(30))
        faster = replace(trained, model=int8_model(trained, module._ranges(trained, rows)))
        exact, given = outputs(trained, rows), outputs(faster, rows)
        assert 0 < np.abs(given - exact).max() < 0.1 * exact.std() + 0.02
        assert given.tobytes() == outputs(faster, rows).tobytes()
        downs = sum(isinstance(child, Int8Down) for child in faster.model.modules())
        assert downs == (2 if model_type in ACTIVATED else downs)

    def test_other_activations_keep_the_second_layer(self, checkpoint, tmp_path, monkeypatch):
        monkeypatch.setitem(TINY, "bert", {**TINY["bert"], "hidden_act": "relu"})
        predictor = quick_fit(write_checkpoint(tmp_path / "relu"), tmp_path / "artifact")
        report = predictor.optimize_for_inference(data=reviews(20), max_loss=0.5)
        assert (report.layers, report.kept) == (10, 2)

    def test_the_rest_is_shared_and_the_trained_model_untouched(self, fitted):
        trained = fitted._fitted
        before, modules = weights(fitted), list(trained.model.modules())
        faster, _ = optimize(trained, reviews(20), precision="int8", max_loss=0.5)
        own = {id(p) for p in trained.model.parameters()}
        assert all(id(p) in own for p in faster.model.parameters())
        assert faster.model.encoder.backbone.embeddings is trained.model.encoder.backbone.embeddings
        assert faster.model.head is trained.model.head
        assert list(trained.model.modules()) == modules and same(before, weights(fitted))
        assert not any(child._forward_pre_hooks for child in trained.model.modules())

    def test_float32_rest(self, fitted):
        """Both types of the layers around."""
        trained = fitted._fitted
        rows = table_rows(trained, reviews(20))
        exact = outputs(trained, rows)
        for precision in ("no", "bf16"):
            device = Device(torch.device("cpu"), precision)
            changed = replace(trained, device=device)
            faster = replace(changed, model=int8_model(changed, module._ranges(changed, rows)))
            layer = next(child for child in faster.model.modules() if isinstance(child, Int8Linear))
            assert layer.dtype == (torch.float32 if precision == "no" else torch.bfloat16)
            assert np.abs(outputs(faster, rows) - exact).max() < 0.1 * exact.std() + 0.02


def test_adapters_are_folded_in_before_anything_is_rounded():
    base = nn.Linear(8, 6).to(torch.bfloat16)
    adapter = IA3(base)
    adapter.vector.data = 1 + 0.001 * random(6)
    holder = nn.ModuleDict({"linear": adapter})
    linear = module._float32_linear(holder, "linear")
    assert torch.equal(linear.weight, base.weight.float() * adapter.vector.unsqueeze(1))
    assert not torch.equal(linear.weight, linear.weight.bfloat16().float())
    assert adapter.base is base and base.weight.dtype == torch.bfloat16


def test_with_modules_replaces_in_the_copy_only():
    inner = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    outer = nn.Sequential(inner, nn.Linear(2, 2))
    own = with_modules(outer, {"0.1": nn.Identity()})
    assert isinstance(own[0][1], nn.Identity) and isinstance(outer[0][1], nn.ReLU)
    assert own[0][0] is inner[0] and own[1] is outer[1]


def test_quantizer_holds_nothing_beyond_its_tensor():
    quantizer, x = Quantizer(Range.of(-3, 3)), random(4, 8)
    quantizer(x)
    assert quantizer._held is not None
    del x
    assert quantizer._held is None


@needs_int8
def test_fit_and_save_go_on_with_the_trained_weights(checkpoint, tmp_path):
    predictor, rows = quick_fit(checkpoint, tmp_path / "artifact"), reviews(20, seed=3)
    before = predictor.predict_proba(rows, as_pandas=False)
    predictor.optimize_for_inference(data=rows, max_loss=0.5)
    faster = predictor.predict_proba(rows, as_pandas=False)
    assert faster.tobytes() != before.tobytes()
    assert predictor.extract_embedding(rows).shape == (20, 32)
    predictor.save(tmp_path / "saved")
    loaded = MultiModalPredictor.load(tmp_path / "saved", verbosity=0)
    assert loaded.predict_proba(rows, as_pandas=False).tobytes() == before.tobytes()
    loaded.optimize_for_inference(data=rows, max_loss=0.5)
    assert loaded.predict_proba(rows, as_pandas=False).tobytes() == faster.tobytes(), "made anew, to the bit"
    predictor.fit(reviews(), save_path=tmp_path / "again", seed=1)
    assert not any(isinstance(child, Int8Linear) for child in predictor._serving().model.modules())


def report(**given) -> Optimized:
    values = {"metric": "roc_auc", "before": 0.9, "after": 0.9, "agreement": 1.0, **given}
    return Optimized("int8", 100, 10, 2, **values, largest_difference=0.01, rows_per_second_before=100.0,
                     rows_per_second_after=160.0)  # fmt: skip


class TestQuality:
    @pytest.mark.parametrize(
        ("given", "fine"),
        [
            ({"after": 0.8971}, True),
            ({"after": 0.8969}, False),
            ({"after": 0.95}, True),
            ({"after": math.nan}, False),
            ({"metric": "rmse", "before": 200.0, "after": 200.5}, True),
            ({"metric": "rmse", "before": 200.0, "after": 201.0}, False),
            ({"metric": None, "agreement": 1 - AGREEMENT_FACTOR * 0.003 + 0.001}, True),
            ({"metric": None, "agreement": 1 - AGREEMENT_FACTOR * 0.003 - 0.001}, False),
        ],
    )
    def test_what_is_refused(self, given, fine):
        if fine:
            refuse_worse(report(**given), 0.003)
        else:
            with pytest.raises(QualityError, match="Nothing was changed. Give data like the rows to predict"):
                refuse_worse(report(**given), 0.003)

    def test_figures_are_told(self):
        text = str(report(after=0.8, agreement=0.97))
        assert "roc_auc 0.9000 before, 0.8000 after; same label for 97.00% of 100 rows" in text
        assert "int8 in 10 of 12 linear layers" in text and "100 rows/s before, 160 after" in text


class TestRefusals:
    def test_graphics_card(self, fitted):
        there = replace(fitted._fitted, device=Device(torch.device("cuda"), "bf16"))
        with pytest.raises(UnsupportedError, match="is for CPUs, and this predictor runs on 'cuda'"):
            optimize(there, None, precision="int8", max_loss=0.003)

    def test_torch_without_the_product(self, fitted, monkeypatch):
        monkeypatch.setattr(module, "multiplies_int8", lambda: False)
        with pytest.raises(UnsupportedError, match="qlinear_pointwise"):
            optimize(fitted._fitted, None, precision="int8", max_loss=0.003)

    @needs_int8
    def test_old_processors_are_warned(self, fitted, monkeypatch):
        monkeypatch.setattr(module, "cpu_has_int8", lambda: False)
        with pytest.warns(UserWarning, match="may be no faster"):
            optimize(fitted._fitted, reviews(20), precision="int8", max_loss=0.5)

    def test_no_rows(self, fitted):
        with pytest.raises(ConfigError, match="data has no rows"):
            optimize(fitted._fitted, reviews(20)[:0], precision="int8", max_loss=0.003)
