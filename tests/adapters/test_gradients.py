"""The adapters' own backward passes against autograd of the plain formulas, and their arithmetic in bfloat16."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from featherfit.adapters.ia3 import IA3, scaled
from featherfit.adapters.lora import LoRA
from featherfit.models.linear import FrozenLinear

IN, OUT, RANK = 12, 20, 3


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def base(dtype: torch.dtype = torch.float32, *, bias: bool = True, trains_bias: bool = False) -> FrozenLinear:
    layer = FrozenLinear.of(nn.Linear(IN, OUT, bias=bias).requires_grad_(False), reorders=True)
    layer.weight.data = numbers(OUT, IN, seed=1).to(dtype)
    if bias:
        layer.bias.data = numbers(OUT, seed=2).float()
        layer.bias.requires_grad_(trains_bias)
    return layer


def lora(layer: nn.Linear, *, scale: float = 1.5, dropout: float = 0.0) -> LoRA:
    adapter = LoRA(layer, rank=RANK, scale=scale, dropout=dropout, generator=torch.Generator().manual_seed(0))
    adapter.lora_b.data = numbers(OUT, RANK, seed=3).float()
    return adapter


class TestScaled:
    @pytest.mark.parametrize(("of_x", "of_vector"), [(True, True), (True, False), (False, True)])
    def test_gradcheck(self, of_x, of_vector):
        """In float64 up to the gradient of the vector, which is float32."""
        x, vector = numbers(2, 3, OUT).requires_grad_(of_x), numbers(OUT, seed=1).requires_grad_(of_vector)
        torch.testing.assert_close(scaled(x, vector), x * vector)
        above = numbers(2, 3, OUT, seed=2)
        inputs = [tensor for tensor in (x, vector) if tensor.requires_grad]
        given = torch.autograd.grad(scaled(x, vector), inputs, above)
        for one, other in zip(given, torch.autograd.grad(x * vector, inputs, above), strict=True):
            torch.testing.assert_close(one.double(), other, rtol=1e-6, atol=1e-6)

    def test_bfloat16_is_rounded_once(self):
        """The product with the exact factor, rounded. With a factor rounded first, a quarter is off."""
        x, vector = numbers(4000, 8).bfloat16(), 1 + 0.02 * numbers(8, seed=1).float()
        expected = (x.float() * vector).bfloat16()
        given = scaled(x, vector)
        assert given.dtype == torch.bfloat16
        assert (given == expected).float().mean() > 0.99
        assert (x * vector.bfloat16() == expected).float().mean() < 0.8
        torch.testing.assert_close(given, expected, rtol=2.0**-7, atol=0)  # one step

    def test_factors_near_one_count(self):
        """1.003 has no bfloat16 but 1; numbers of at least 1.3 times a power of two move all the same."""
        x = numbers(4000, 1).bfloat16()
        assert torch.equal(x * torch.tensor([1.003]).bfloat16(), x)
        mantissa = 2 * torch.frexp(x.float())[0].abs()
        assert torch.equal(scaled(x, torch.tensor([1.003])) != x, mantissa * 0.003 > 2.0**-8)

    @pytest.mark.parametrize("factor", [1.001, 0.999])
    def test_float32_stays_exact(self, factor):
        x = numbers(1000, 4).float()
        torch.testing.assert_close(scaled(x, torch.full((4,), factor)), x * factor, rtol=1e-6, atol=0)

    def test_bfloat16_gradients(self):
        x, vector = numbers(50, 8).bfloat16().requires_grad_(), (1 + 0.1 * numbers(8, seed=1)).float().requires_grad_()
        above = numbers(50, 8, seed=2).bfloat16()
        for_x, for_vector = torch.autograd.grad(scaled(x, vector), [x, vector], above)
        assert (for_x.dtype, for_vector.dtype) == (torch.bfloat16, torch.float32)
        torch.testing.assert_close(for_x.double(), above.double() * vector.double(), rtol=0.01, atol=0.01)
        torch.testing.assert_close(for_vector.double(), (above.double() * x.double()).sum(0), rtol=0.02, atol=0.1)

    def test_nothing_is_kept_where_the_vector_is_frozen(self):
        kept = []
        x = numbers(5, 8).requires_grad_()
        with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.shape) or t, lambda t: t):
            scaled(x, torch.ones(8))
            assert kept == [(8,)]
            scaled(x, torch.ones(8, requires_grad=True))
        assert kept == [(8,), (5, 8), (8,)]

    @pytest.mark.parametrize("scales_input", [False, True])
    def test_the_adapter(self, scales_input):
        layer = base(trains_bias=True)
        adapter = IA3(layer, scales_input=scales_input)
        layer.bias.requires_grad_()
        adapter.vector.data = numbers(IN if scales_input else OUT, seed=4).float()
        x, above = numbers(5, IN).float().requires_grad_(), numbers(5, OUT, seed=5).float()
        inputs = [x, adapter.vector, layer.bias]

        def formula() -> torch.Tensor:
            if scales_input:
                return (x * adapter.vector) @ layer.weight.t() + layer.bias
            return (x @ layer.weight.t() + layer.bias) * adapter.vector

        torch.testing.assert_close(adapter(x), formula(), rtol=1e-5, atol=1e-5)
        given, expected = (torch.autograd.grad(y, inputs, above) for y in (adapter(x), formula()))
        for one, other in zip(given, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


class TestUpdated:
    @pytest.mark.parametrize("shape", [(IN,), (5, IN), (2, 3, IN)], ids=str)
    @pytest.mark.parametrize("of_x", [True, False])
    @pytest.mark.parametrize("bias", ["none", "frozen", "trains"])
    def test_gradients_are_those_of_the_formula(self, bias, of_x, shape):
        layer = base(bias=bias != "none")
        adapter = lora(layer)
        if bias == "trains":
            layer.bias.requires_grad_()
        x = numbers(*shape).float().requires_grad_(of_x)
        above = numbers(*shape[:-1], OUT, seed=5).float()
        inputs = [
            t
            for t in (x, adapter.lora_a, adapter.lora_b, *([layer.bias] if bias == "trains" else []))
            if t.requires_grad
        ]

        def formula() -> torch.Tensor:
            y = x @ layer.weight.t() + 1.5 * (x @ adapter.lora_a.t() @ adapter.lora_b.t())
            return y if layer.bias is None else y + layer.bias

        assert type(adapter(x).grad_fn).__name__ == ("_UpdatedBackward" if len(shape) else "")
        torch.testing.assert_close(adapter(x), formula(), rtol=1e-5, atol=1e-5)
        given, expected = (torch.autograd.grad(y, inputs, above) for y in (adapter(x), formula()))
        assert len(given) == 2 + of_x + (bias == "trains")
        for one, other in zip(given, expected, strict=True):
            assert one.dtype == torch.float32
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)

    def test_bfloat16(self):
        low, exact = lora(base(torch.bfloat16)), lora(base())
        x, above = numbers(9, IN), numbers(9, OUT, seed=5)
        results = []
        for adapter, dtype in ((low, torch.bfloat16), (exact, torch.float32)):
            own = x.to(dtype).requires_grad_()
            y = adapter(own)
            assert y.dtype == dtype
            results.append([y, *torch.autograd.grad(y, [own, adapter.lora_a, adapter.lora_b], above.to(dtype))])
        assert [t.dtype for t in results[0]] == [torch.bfloat16, torch.bfloat16, torch.float32, torch.float32]
        for one, other in zip(*results, strict=True):
            torch.testing.assert_close(one.float(), other, rtol=0.03, atol=0.03 * float(other.detach().abs().max()))

    def test_a_frozen_float32_layer_under_autocast(self):
        """As on a GPU in float16, where frozen weights are kept in float32."""
        adapter, x = lora(base()), numbers(5, IN).float()
        expected = adapter(x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = adapter(x.bfloat16())
        torch.testing.assert_close(y.float(), expected, rtol=0.03, atol=0.1)
        y.sum().backward()
        assert torch.isfinite(adapter.lora_b.grad).all()

    def test_a_base_weight_that_trains_gets_its_gradient(self):
        """As `optim.extra_trainable_params` may ask for."""
        layer = base()
        adapter = lora(layer)
        layer.weight.requires_grad_()
        adapter(numbers(5, IN).float()).sum().backward()
        torch.testing.assert_close(layer.weight.grad, numbers(5, IN).float().sum(0).expand(OUT, IN))

    def test_dropout_drops_while_training_only(self):
        adapter, x = lora(base(), dropout=0.5), numbers(5, IN).float()
        plain = lora(base())(x)
        assert torch.equal(adapter.eval()(x), plain)
        assert not torch.allclose(adapter.train()(x), plain)
