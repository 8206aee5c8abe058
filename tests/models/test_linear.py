"""Frozen linear layers against `nn.Linear`: products, gradients, reordered copies, what is kept and what is not."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys

import pytest
import torch
from tiny_models import TINY, tiny_backbone
from torch import nn
from torch.nn import functional as F

from featherfit.models import linear
from featherfit.models.linear import FrozenLinear, column_sums, cpu_reorders, freeze_linears, lower_precision

IN, OUT = 24, 40
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 1e-2}

needs_reordering = pytest.mark.skipif(not cpu_reorders(), reason="this machine keeps no reordered weights")


def plain(dtype: torch.dtype = torch.float32, *, bias: bool = True) -> nn.Linear:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layer = nn.Linear(IN, OUT, bias=bias).requires_grad_(False)
    layer.weight.data = layer.weight.data.to(dtype)
    return layer


def frozen(dtype: torch.dtype = torch.float32, *, bias: bool = True, reorders: bool = True) -> FrozenLinear:
    return FrozenLinear.of(plain(dtype, bias=bias), reorders=reorders)


def numbers(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 1) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def reference(layer: nn.Linear, x: torch.Tensor) -> torch.Tensor:
    """x W^T + b in float64."""
    return F.linear(x.double(), layer.weight.double(), None if layer.bias is None else layer.bias.double())


def assert_near(given: torch.Tensor, expected: torch.Tensor, dtype: torch.dtype) -> None:
    limit = TOLERANCE[dtype]
    torch.testing.assert_close(
        given.double(), expected.double(), rtol=limit, atol=limit * float(expected.detach().abs().max())
    )


@pytest.mark.parametrize("reorders", [True, False])
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
class TestProduct:
    @pytest.mark.parametrize("bias", [True, False])
    @pytest.mark.parametrize("shape", [(IN,), (5, IN), (2, 3, IN), (0, IN)], ids=str)
    def test_values(self, dtype, reorders, bias, shape):
        layer, x = frozen(dtype, bias=bias, reorders=reorders), numbers(*shape, dtype=dtype)
        y = layer(x)
        assert y.dtype == dtype and y.shape == (*shape[:-1], OUT) and not y.requires_grad
        if y.numel():
            assert_near(y, reference(layer, x), dtype)

    @pytest.mark.parametrize("trains_bias", [True, False])
    def test_gradients(self, dtype, reorders, trains_bias):
        layer, above = frozen(dtype, reorders=reorders), numbers(2, 3, OUT, dtype=dtype, seed=2)
        layer.bias.requires_grad_(trains_bias)
        x = numbers(2, 3, IN, dtype=dtype).requires_grad_()
        layer(x).backward(above)
        assert x.grad.dtype == dtype and layer.weight.grad is None
        assert_near(x.grad, above.double() @ layer.weight.double(), dtype)
        if trains_bias:
            assert layer.bias.grad.dtype == torch.float32
            assert_near(layer.bias.grad, above.double().sum((0, 1)), dtype)
        else:
            assert layer.bias.grad is None

    def test_a_bias_alone_trains(self, dtype, reorders):
        layer = frozen(dtype, reorders=reorders)
        layer.bias.requires_grad_()
        layer(numbers(3, IN, dtype=dtype)).sum().backward()
        assert layer.bias.grad.tolist() == [3.0] * OUT

    @pytest.mark.parametrize("layout", ["transposed", "every other", "repeated"])
    def test_any_layout_of_memory(self, dtype, reorders, layout):
        layer = frozen(dtype, reorders=reorders)

        def laid(width: int) -> torch.Tensor:
            return {
                "transposed": lambda: numbers(width, 7, dtype=dtype).t(),
                "every other": lambda: numbers(7, 2 * width, dtype=dtype)[:, ::2],
                "repeated": lambda: numbers(1, width, dtype=dtype).expand(7, width),
            }[layout]()

        assert_near(layer(laid(IN)), reference(layer, laid(IN)), dtype)
        assert_near(layer.input_gradient(laid(OUT)), laid(OUT).double() @ layer.weight.double(), dtype)

    def test_input_of_another_type(self, dtype, reorders):
        """The product is in the weight's type, the gradient in the input's."""
        layer, other = frozen(dtype, reorders=reorders), ({*TOLERANCE} - {dtype}).pop()
        x = numbers(3, IN, dtype=other).requires_grad_()
        y = layer(x)
        assert y.dtype == dtype
        assert_near(y, reference(layer, x.to(dtype)), dtype)
        y.sum().backward()
        assert x.grad.dtype == other
        assert_near(x.grad, layer.weight.double().sum(0).expand(3, IN), torch.bfloat16)

    def test_under_autocast(self, dtype, reorders):
        layer = frozen(dtype, reorders=reorders)
        x = numbers(3, IN).requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = layer(x)
        assert y.dtype == torch.bfloat16
        assert_near(y, reference(layer, x), torch.bfloat16)
        y.backward(numbers(3, OUT, dtype=torch.bfloat16, seed=2))
        assert_near(x.grad, numbers(3, OUT, seed=2).double() @ layer.weight.double(), torch.bfloat16)


def test_a_weight_that_trains_gets_its_gradient():
    layer, same = frozen(), plain().requires_grad_()
    layer.requires_grad_()
    x = numbers(4, IN)
    layer(x).square().sum().backward()
    same(x).square().sum().backward()
    assert layer.weight.grad.abs().max() > 0
    torch.testing.assert_close(layer.weight.grad, same.weight.grad)
    torch.testing.assert_close(layer.bias.grad, same.bias.grad)


@pytest.mark.parametrize("trains_bias", [True, False])
def test_no_activation_is_kept(trains_bias):
    """`nn.Linear` keeps its weight, and its input where the weight trains; this one nothing."""
    layer, kept = frozen(), []
    layer.bias.requires_grad_(trains_bias)
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        y = layer(numbers(4, IN).requires_grad_())
        assert kept == []
        layer.weight.requires_grad_()
        layer(numbers(4, IN))
    assert y.requires_grad and len(kept) > 0


@needs_reordering
class TestCopies:
    @pytest.fixture
    def reordered(self, monkeypatch) -> list[int]:
        """One entry for every copy that is made."""
        made: list[int] = []
        copy_of = FrozenLinear._copy

        def spy(layer, direction, matrix):
            before = layer._copies.get(direction)
            found = copy_of(layer, direction, matrix)
            if layer._copies[direction] is not before:
                made.append(1)
            return found

        monkeypatch.setattr(FrozenLinear, "_copy", spy)
        return made

    def test_one_for_each_direction(self, reordered):
        layer, x = frozen(torch.bfloat16), numbers(4, IN, dtype=torch.bfloat16).requires_grad_()
        for _ in range(3):
            layer(x).sum().backward()
        assert len(reordered) == 2 and layer._copies.keys() == {"forward", "backward"}

    def test_none_where_they_are_not_wanted(self, reordered):
        frozen(torch.bfloat16, reorders=False)(numbers(4, IN, dtype=torch.bfloat16))
        frozen()(numbers(4, IN))
        assert reordered == []

    @pytest.mark.parametrize("how", ["in place", "loaded", "another tensor", "other data"])
    def test_renewed_when_the_weight_changes(self, how, reordered):
        layer, x = frozen(torch.bfloat16), numbers(4, IN, dtype=torch.bfloat16).requires_grad_()
        layer(x).sum().backward()
        new = numbers(OUT, IN, dtype=torch.bfloat16, seed=5)
        with torch.no_grad():
            if how == "in place":
                layer.weight.copy_(new)
            elif how == "loaded":
                layer.load_state_dict({**layer.state_dict(), "weight": new})
            elif how == "another tensor":
                layer.weight = nn.Parameter(new, requires_grad=False)
            else:
                layer.weight.data = new  # which no version counts
        x.grad = None
        y = layer(x)
        assert_near(y, reference(layer, x), torch.bfloat16)
        y.sum().backward()
        assert_near(x.grad, new.double().sum(0).expand(4, IN), torch.bfloat16)
        assert len(reordered) == 4

    def test_of_a_layer_made_in_inference_mode(self):
        with torch.inference_mode():
            layer, x = frozen(torch.bfloat16), numbers(4, IN, dtype=torch.bfloat16)
            assert_near(layer(x), reference(layer, x), torch.bfloat16)

    @pytest.mark.parametrize("way", ["deepcopy", "pickle"])
    def test_stay_behind_when_the_layer_is_copied(self, way):
        layer, x = frozen(torch.bfloat16), numbers(4, IN, dtype=torch.bfloat16)
        before = layer(x)
        twin = copy.deepcopy(layer) if way == "deepcopy" else pickle.loads(pickle.dumps(layer))
        assert twin._copies == {} and len(layer._copies) == 1 and twin.weight is not layer.weight
        assert torch.equal(twin(x), before)
        with torch.no_grad():
            twin.weight.zero_()
        assert torch.equal(layer(x), before)

    def test_no_parameters_and_no_buffers(self):
        layer = frozen(torch.bfloat16)
        layer(numbers(4, IN, dtype=torch.bfloat16))
        assert list(layer.state_dict()) == ["weight", "bias"] == [name for name, _ in layer.named_parameters()]
        assert list(layer.buffers()) == []


def test_machines_without_native_bfloat16_do_without_copies():
    """oneDNN is told to be an older processor, which it can be told only before it starts."""
    code = """
import torch
from featherfit.models.linear import FrozenLinear, cpu_reorders
layer = FrozenLinear.of(torch.nn.Linear(24, 40).requires_grad_(False), reorders=True)
layer.weight.data = layer.weight.data.bfloat16()
x = torch.randn(4, 24).bfloat16().requires_grad_()
layer(x).sum().backward()
torch.testing.assert_close(x.grad.float(), layer.weight.float().sum(0).expand(4, 24), rtol=0.01, atol=0.01)
assert not cpu_reorders()
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_column_sums_are_summed_in_float32(dtype):
    """In bfloat16, 3,000 ones one after another come to 256."""
    assert column_sums(torch.ones(30, 100, 2, dtype=dtype)).float().tolist() == pytest.approx([3000, 3000], rel=0.004)


class TestFreezeLinears:
    @pytest.mark.parametrize("model_type", TINY)
    def test_names_and_numbers_stay(self, model_type):
        backbone, before = tiny_backbone(model_type), tiny_backbone(model_type)
        freeze_linears(backbone)
        state, expected = backbone.state_dict(), before.state_dict()
        assert list(state) == list(expected) and all(torch.equal(state[name], expected[name]) for name in state)
        assert not [module for module in backbone.modules() if type(module) is nn.Linear]
        assert [p.requires_grad for p in backbone.parameters()] == [p.requires_grad for p in before.parameters()]
        ids = torch.arange(4, 12).view(2, 4)
        with torch.no_grad():
            outs = [model(input_ids=ids).last_hidden_state for model in (backbone, before)]
        torch.testing.assert_close(*outs)

    def test_shared_layers_stay_shared(self):
        shared = plain()
        model = nn.ModuleDict({"one": shared, "deep": nn.Sequential(nn.ReLU(), shared), "other": plain()})
        freeze_linears(model)
        assert isinstance(model["one"], FrozenLinear)
        assert model["one"] is model["deep"][1] and model["one"] is not model["other"]
        assert model["one"].weight is shared.weight and model["one"].bias is shared.bias

    def test_a_layer_with_two_names_in_one_parent(self):
        shared = plain()
        model = nn.ModuleDict({"one": shared, "other": shared})
        freeze_linears(model)
        assert isinstance(model["one"], FrozenLinear) and model["one"] is model["other"]

    def test_subclasses_and_the_mode_are_left_alone(self):
        own = nn.modules.linear.NonDynamicallyQuantizableLinear(IN, OUT)
        model = nn.Sequential(own, plain().eval(), plain().train())
        freeze_linears(model)
        assert model[0] is own
        assert [model[1].training, model[2].training] == [False, True]

    def test_large_models_keep_no_copies(self, monkeypatch):
        """Shared layers count once."""
        for limit, expected in ((2 * IN * OUT, True), (2 * IN * OUT - 1, False)):
            monkeypatch.setattr(linear, "REORDER_LIMIT", limit)
            one = plain()
            model = nn.ModuleList([one, nn.Sequential(one), plain()])
            freeze_linears(model)
            assert model[0].reorders == model[1][0].reorders == model[2].reorders == expected


def test_lower_precision_is_for_frozen_matrices_only():
    model = nn.ModuleDict(
        {
            "frozen": plain(),
            "trained": plain().requires_grad_(),
            "biased": plain(),
            "table": nn.Embedding(5, 3).requires_grad_(False),
            "norm": nn.LayerNorm(3).requires_grad_(False),
        }
    )
    model["biased"].bias.requires_grad_()
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    lower_precision(model, torch.bfloat16)
    low = {name for name, parameter in model.named_parameters() if parameter.dtype == torch.bfloat16}
    assert low == {"frozen.weight", "biased.weight"}
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name].to(parameter.dtype)), name
