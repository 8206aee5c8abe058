"""Weights kept as codes: exact packing, error bounds, products and gradients, bytes, and a backbone that loads so."""

from __future__ import annotations

import copy

import pytest
import torch
from tiny_models import TINY, save, tiny_backbone, tiny_batch, tiny_model
from torch import nn
from torch.nn import functional as F

from featherfit.checkpoints.resolve import resolve_checkpoint
from featherfit.errors import CheckpointError, ConfigError
from featherfit.models import quantized
from featherfit.models.backbone import build_backbone
from featherfit.models.build import build_model, model_size
from featherfit.models.linear import FrozenLinear, dense_weight, dtype_of, freeze_linears, lower_precision
from featherfit.models.quantized import (
    BaseForm,
    QuantizedLinear,
    decoded,
    encoded,
    extra_numbers,
    grouping,
    keep_linears,
)
from featherfit.types import Batch

PRECISIONS = ("float32", "bfloat16", "float16", "int8", "int4")
CODED = ("int8", "int4")
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}

every_precision = pytest.mark.parametrize("precision", PRECISIONS)
coded = pytest.mark.parametrize("precision", CODED)


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def plain(inputs: int = 70, outputs: int = 40, *, bias: bool = True) -> nn.Linear:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Linear(inputs, outputs, bias=bias).requires_grad_(False)


def kept(precision: str, dtype: torch.dtype = torch.float32, **shape) -> QuantizedLinear:
    return QuantizedLinear.keeping(plain(**shape), BaseForm(precision, dtype))


def numbers_kept(weight: torch.Tensor, precision: str, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return decoded(*encoded(weight, precision), precision, weight.shape[1], dtype)


@pytest.mark.parametrize(
    ("inputs", "most", "expected"),
    [
        (384, 128, (3, 128)),
        (5120, 64, (80, 64)),
        (129, 128, (2, 66)),
        (48, 64, (1, 48)),
        (33, 64, (1, 34)),
        (1, 64, (1, 2)),
    ],
)
def test_grouping(inputs, most, expected):
    assert grouping(inputs, most) == expected


class TestCodes:
    @pytest.mark.parametrize("inputs", [128, 300, 33, 1])
    def test_int8_numbers_come_back_exactly(self, inputs):
        """Whole numbers up to 127 times a power of two, with 127 in every group."""
        weight = torch.randint(-127, 128, (5, inputs), generator=torch.Generator().manual_seed(0)).float()
        _, size = grouping(inputs, 128)
        weight[:, ::size] = 127
        assert torch.equal(numbers_kept(weight / 1024, "int8"), weight / 1024)

    @pytest.mark.parametrize("inputs", [64, 200, 33])
    def test_int4_numbers_come_back_exactly(self, inputs):
        """Sixteen even steps, all of them in every group: there is nothing for least squares to improve."""
        groups, size = grouping(inputs, 64)
        weight = (torch.arange(groups * size) % size % 16).float().sub(8).expand(5, -1)
        weight = torch.stack(
            [row.roll(place) for place, row in enumerate(weight.view(5, groups, size).unbind())]
        ).flatten(1)
        full = weight.clone()
        codes, scales = encoded(full / 256, "int4")
        assert torch.equal(decoded(codes, scales, "int4", groups * size, torch.float32), full / 256)

    def test_two_codes_share_a_byte(self):
        codes, scales = encoded(torch.arange(16.0).view(1, 16), "int4")
        assert codes.shape == (1, 8) and scales.tolist() == [[[1.0, 0.0]]]
        assert codes.view(torch.uint8).tolist() == [[low + 16 * (low + 8) for low in range(8)]]

    @pytest.mark.parametrize(("inputs", "scale"), [(256, 1.0), (100, 1e-4), (33, 50.0)])
    def test_int8_is_off_by_half_a_step_at_most(self, inputs, scale):
        weight = scale * numbers(30, inputs)
        _, scales = encoded(weight, "int8")
        groups, size = grouping(inputs, 128)
        blocks = F.pad(weight, (0, groups * size - inputs)).view(30, groups, size)
        expected = (blocks.abs().amax(-1, keepdim=True) / 127).bfloat16()
        assert torch.equal(scales, expected)
        steps = expected.float().expand_as(blocks).flatten(1)[:, :inputs]
        error = (numbers_kept(weight, "int8") - weight).abs()
        assert (error <= 0.5001 * steps).all() and error.max() > 0.4 * steps.min()

    @pytest.mark.parametrize(("inputs", "scale"), [(256, 1.0), (100, 1e-4), (33, 50.0)])
    def test_int4_takes_the_nearest_code_and_beats_even_steps(self, inputs, scale):
        weight = scale * numbers(30, inputs)
        _, scales = encoded(weight, "int4")
        groups, size = grouping(inputs, 64)
        blocks = F.pad(weight, (0, groups * size - inputs)).view(30, groups, size)
        step, low = scales.float().split(1, dim=-1)
        grid = step.unsqueeze(-1) * torch.arange(16.0) + low.unsqueeze(-1)  # (30, groups, 1, 16)
        nearest = (blocks.unsqueeze(-1) - grid).abs().amin(-1).flatten(1)[:, :inputs]
        error = (numbers_kept(weight, "int4") - weight).abs()
        torch.testing.assert_close(error, nearest, rtol=1e-4, atol=1e-5 * scale)
        bottom, top = blocks.amin(-1, keepdim=True), blocks.amax(-1, keepdim=True)
        even = (top - bottom) / 15
        plain_error = ((blocks - bottom) / even).round() * even + bottom - blocks
        assert error.square().mean() < 0.97 * plain_error.flatten(1)[:, :inputs].square().mean()

    @pytest.mark.parametrize(("precision", "low", "high"), [("int8", 0.0062, 0.0068), ("int4", 0.083, 0.088)])
    def test_error_on_normal_numbers(self, precision, low, high):
        """Of int8: groups of 128 reach to 2.85 on average, and steps have the error 2.85 / 127 / sqrt(12) = 0.0065."""
        weight = numbers(500, 256)
        assert low < (numbers_kept(weight, precision) - weight).square().mean().sqrt() < high

    @coded
    def test_the_order_of_work_changes_nothing(self, precision, monkeypatch):
        weight = numbers(37, 200)
        whole = encoded(weight, precision)
        monkeypatch.setattr(quantized, "_ROUNDED_AT_ONCE", 1000)
        for one, other in zip(whole, encoded(weight, precision), strict=True):
            assert torch.equal(one, other)

    @coded
    @pytest.mark.parametrize("value", [0.0, 3.0, -1e-3])
    def test_equal_numbers(self, precision, value):
        weight = torch.full((3, 70), value)
        torch.testing.assert_close(numbers_kept(weight, precision), weight, rtol=2**-7, atol=0)

    @pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
    def test_other_types_are_the_weight_in_that_type(self, precision):
        weight = numbers(6, 10)
        codes, scales = encoded(weight, precision)
        dtype = getattr(torch, precision)
        assert scales is None and codes.dtype == torch.int8 and codes.nbytes == 60 * dtype.itemsize
        assert torch.equal(numbers_kept(weight, precision), weight.to(dtype).float())
        assert codes.data_ptr() != weight.data_ptr()  # a mapped weight has to go

    @coded
    def test_float16_is_rounded_once(self, precision):
        """Scales below float16's range must not be lost on the way."""
        weight = 1e-3 * numbers(20, 64)
        assert torch.equal(numbers_kept(weight, precision, torch.float16), numbers_kept(weight, precision).half())


class TestBytes:
    @pytest.mark.parametrize(
        ("precision", "inputs", "expected"),
        [
            ("float32", 384, 4.0),
            ("bfloat16", 384, 2.0),
            ("float16", 384, 2.0),
            ("int8", 384, 1 + 2 / 128),
            ("int4", 384, 0.5 + 4 / 64),
            ("int8", 100, 1 + 2 / 100),
            ("int4", 100, 0.5 + 4 / 50),
        ],
    )
    def test_of_a_weight(self, precision, inputs, expected):
        layer = kept(precision, inputs=inputs, outputs=10)
        assert layer.kept_bytes == pytest.approx(expected * inputs * 10)

    @every_precision
    def test_sizes_count_what_codes_stand_for(self, precision):
        model = tiny_model("bert")
        before, linears = model_size(model), [m for m in model.encoder.modules() if type(m) is nn.Linear]
        freed = sum(4 * linear.weight.numel() for linear in linears)
        keep_linears(model.encoder, BaseForm(precision, torch.float32))
        layers = [m for m in model.encoder.modules() if isinstance(m, QuantizedLinear)]
        after = model_size(model)
        assert (
            len(layers) == len(linears) == 12
            and after.total == before.total
            and after.by_part["head"] == before.by_part["head"]
        )
        assert after.by_part["encoder"][1] == before.by_part["encoder"][1]
        assert after.megabytes == pytest.approx(before.megabytes - (freed - sum(m.kept_bytes for m in layers)) / 1e6)
        assert extra_numbers(model.head) == (0, 0)


@every_precision
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
class TestProduct:
    @pytest.mark.parametrize("bias", [True, False])
    @pytest.mark.parametrize("shape", [(70,), (2, 3, 70), (0, 70)], ids=str)
    def test_is_that_of_the_numbers(self, precision, dtype, bias, shape):
        layer, x = kept(precision, dtype, bias=bias), numbers(*shape).to(dtype)
        y = layer(x)
        expected = F.linear(
            x.double(), layer.dense(torch.float32).double(), None if layer.bias is None else layer.bias.double()
        )
        assert y.dtype == dtype == layer.dtype and y.shape == (*shape[:-1], 40)
        if y.numel():
            limit = TOLERANCE[dtype]
            torch.testing.assert_close(y.double(), expected, rtol=limit, atol=limit)

    def test_gradients_are_those_of_a_dense_layer(self, precision, dtype):
        layer, dense = kept(precision, dtype), plain()
        dense.weight.data = layer.dense(torch.float32)
        dense.requires_grad_(False).bias.requires_grad_()
        layer.bias.requires_grad_()
        x, other = (numbers(2, 3, 70).requires_grad_() for _ in range(2))
        layer(x).float().square().sum().backward()
        dense(other).square().sum().backward()
        limit = TOLERANCE[dtype]
        torch.testing.assert_close(x.grad, other.grad, rtol=limit, atol=limit * float(other.grad.abs().max()))
        torch.testing.assert_close(
            layer.bias.grad, dense.bias.grad, rtol=limit, atol=limit * float(dense.bias.grad.abs().max())
        )
        assert layer.weight.grad is None and x.grad.dtype == layer.bias.grad.dtype == torch.float32

    def test_nothing_is_kept_for_the_backward_pass(self, precision, dtype):
        layer, found = kept(precision, dtype), []
        with torch.autograd.graph.saved_tensors_hooks(lambda x: found.append(x) or x, lambda x: x):
            y = layer(numbers(4, 70).requires_grad_())
        assert y.requires_grad and found == []

    def test_computes_in_its_own_type_under_autocast(self, precision, dtype):
        layer, x = kept(precision, dtype), numbers(4, 70)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = layer(x)
        assert torch.equal(y, layer(x)) and y.dtype == dtype


class TestLayer:
    def test_is_a_frozen_layer_whose_codes_cannot_train(self):
        layer = kept("int4")
        assert isinstance(layer, FrozenLinear) and list(layer.state_dict()) == ["weight", "bias", "scales"]
        assert layer.weight.dtype == torch.int8 and not layer.weight.requires_grad
        with pytest.raises(RuntimeError):
            layer.weight.requires_grad_()
        lower_precision(layer, torch.bfloat16)
        assert layer.weight.dtype == torch.int8 and "kept=int4" in repr(layer)

    @every_precision
    def test_copies_compute_the_same(self, precision):
        layer, x = kept(precision), numbers(4, 70)
        twin = copy.deepcopy(layer)
        assert torch.equal(twin(x), layer(x)) and twin.weight is not layer.weight

    def test_what_others_ask_a_linear_layer(self):
        layer = kept("int8", torch.bfloat16)
        assert dtype_of(layer) == torch.bfloat16 and dtype_of(plain()) == torch.float32
        assert torch.equal(dense_weight(layer), layer.dense(torch.float32))
        assert torch.equal(dense_weight(plain()), plain().weight)

    @pytest.mark.parametrize(
        ("form", "expected"),
        [
            (("float16", torch.float16), ("bfloat16", torch.float32)),
            (("float16", torch.bfloat16), ("bfloat16", torch.bfloat16)),
            (("int4", torch.float16), ("int4", torch.float32)),
            (("int8", torch.bfloat16), ("int8", torch.bfloat16)),
        ],
    )
    def test_beyond_float16(self, form, expected):
        assert BaseForm(*form).beyond_float16() == BaseForm(*expected)


class TestKeepLinears:
    def test_shared_layers_stay_shared_and_subclasses_stay(self):
        class Own(nn.Linear):
            pass

        one, own = plain(), Own(3, 3)
        model = nn.ModuleList([one, nn.Sequential(one), own, plain()])
        biases = [one.bias, model[3].bias]
        assert keep_linears(model, BaseForm("int8", torch.float32)) == 2
        assert model[0] is model[1][0] and model[2] is own and one.weight is None
        assert [model[0].bias, model[3].bias] == biases
        freeze_linears(model)
        assert isinstance(model[0], QuantizedLinear)

    @coded
    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_a_damaged_weight_is_refused(self, precision, value):
        model = nn.ModuleDict({"dense": plain()})
        model["dense"].weight.data[3, 5] = value
        with pytest.raises(CheckpointError, match=r"dense\.weight has numbers that are not finite"):
            keep_linears(model, BaseForm(precision, torch.float32))


@every_precision
@pytest.mark.parametrize("model_type", TINY)
def test_backbone_from_disk(model_type, precision, tmp_path):
    """Every linear layer is kept so, T5's `wo` never in float16, and states are those of the same numbers."""
    checkpoint = save(tiny_backbone(model_type), tmp_path)
    model = build_backbone(checkpoint, form=BaseForm(precision, torch.float32), mapped=True)
    exact = tiny_backbone(model_type)
    for path, layer in exact.named_modules(remove_duplicate=False):
        if type(layer) is nn.Linear:
            twin = model.get_submodule(path)
            large = model_type in ("t5", "mt5", "umt5") and path.endswith(".wo")
            assert twin.precision == ("bfloat16" if large and precision == "float16" else precision)
            layer.weight.data = numbers_kept(layer.weight.data, twin.precision)
            assert torch.equal(twin.dense(torch.float32), layer.weight)
    assert not any(type(layer) is nn.Linear for layer in model.modules())
    batch = tiny_batch()
    with torch.no_grad():
        states, expected = (
            m(input_ids=batch.input_ids, attention_mask=batch.attention_mask).last_hidden_state for m in (model, exact)
        )
    torch.testing.assert_close(states, expected, rtol=1e-4, atol=1e-4)


def test_a_model_without_linear_layers_is_refused(tmp_path):
    config = {"model_type": "gpt2", "n_embd": 32, "n_layer": 1, "n_head": 2, "vocab_size": 50, "n_positions": 24}
    from featherfit.models.backbone import build_backbone_from_config

    checkpoint = save(build_backbone_from_config(config), tmp_path)
    with pytest.raises(ConfigError, match=r"base_precision='int8' is for linear layers, and GPT2Model has none"):
        build_backbone(checkpoint, form=BaseForm("int8", torch.float32))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("precision", "least", "mean"), [("bfloat16", 0.99999, 0.99999), ("int8", 0.9998, 0.9999), ("int4", 0.985, 0.99)]
)
def test_embeddings_of_real_weights(precision, least, mean):
    """Cosine to the exact embeddings over 24 reviews; when written 0.99994 for int8, 0.9894 (mean 0.9924) for int4."""
    from transformers import AutoTokenizer

    from featherfit.demo import demo_table

    try:
        real = resolve_checkpoint("intfloat/multilingual-e5-small")
    except CheckpointError:
        pytest.skip("the weights are not on this computer")
    texts = [text for language in ("en", "ja", "de") for text in demo_table(language)["text"][:8]]
    tokens = AutoTokenizer.from_pretrained(real.folder)(
        texts, padding=True, truncation=True, max_length=48, return_tensors="pt"
    )
    batch = Batch(tokens["input_ids"], tokens["attention_mask"], None, None, None, torch.arange(len(texts)))
    found = []
    for form in (None, BaseForm(precision, torch.float32)):
        model = build_model(real, outputs=2, seed=0, mapped=True, form=form)
        with torch.inference_mode():
            found.append(model.embed(batch))
    cosine = F.cosine_similarity(*found)
    assert cosine.min() > least and cosine.mean() > mean
    assert cosine.min() < 0.9999999  # something was rounded
