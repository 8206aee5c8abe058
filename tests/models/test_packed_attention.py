"""Attention over packed rows against PyTorch's own, row by row: values, gradients, windows, dropout."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
from torch.nn import functional as F

from featherfit.models import attention
from featherfit.models.attention import packed_attention
from featherfit.models.packing import pack, tokens_of

LENGTHS = [5, 40, 1, 17, 33, 64, 12, 90]
HEADS, SIZE = 4, 8


def packing_of(lengths: list[int], heads: int = HEADS):
    return pack((torch.arange(max(lengths)) < torch.tensor(lengths).unsqueeze(1)).long(), heads)


def inputs(lengths: list[int], dtype: torch.dtype = torch.float32, *, keys: int = HEADS) -> list[torch.Tensor]:
    """Query, key and value of all tokens and the repeated ones, and a gradient of the output without these.

    Keys and values have `keys` heads.
    """
    random = torch.Generator().manual_seed(0)
    tokens = tokens_of(sum(lengths))
    shapes = [(1, HEADS, tokens, SIZE), *[(1, keys, tokens, SIZE)] * 2, (1, sum(lengths), HEADS, SIZE)]
    return [torch.randn(shape, generator=random, dtype=torch.float64).to(dtype) for shape in shapes]


def ours(lengths, q, k, v, *, causal: bool = False, **options: Any) -> torch.Tensor:
    """The output (1, T, H, d) of the tokens, without the repeated ones."""
    module: Any = SimpleNamespace(is_causal=causal)
    out, weights = packed_attention(module, q, k, v, None, packing=packing_of(lengths), **options)
    assert weights is None and out.shape == (1, q.shape[2], HEADS, SIZE)
    return out[:, : sum(lengths)]


def by_row(lengths, q, k, v, *, causal: bool = False, sliding_window: int | None = None, scaling: float | None = None):
    """Each row alone, shortest first as they are packed, in float64."""
    q, k, v = (x.double() for x in (q, k, v))
    parts, start = [], 0
    for length in sorted(lengths):
        own = [x[:, :, start : start + length] for x in (q, k, v)]
        distance = torch.arange(length).unsqueeze(1) - torch.arange(length)
        seen = torch.ones(length, length, dtype=torch.bool)
        if causal:
            seen &= distance >= 0
        if sliding_window is not None:
            seen &= distance.abs() < sliding_window
        parts.append(F.scaled_dot_product_attention(*own, attn_mask=seen, scale=scaling, enable_gqa=True))
        start += length
    return torch.cat(parts, dim=2).transpose(1, 2)


def with_gradients(function, states: list[torch.Tensor], lengths=LENGTHS, **options) -> list[torch.Tensor]:
    """The output and the gradients of query, key and value."""
    *own, above = states
    own = [x.detach().clone().requires_grad_() for x in own]
    out = function(lengths, *own, **options)
    return [out.detach(), *torch.autograd.grad(out, own, above.to(out.dtype))]


OPTIONS = [
    {},
    {"causal": True},
    {"sliding_window": 3},
    {"sliding_window": 1},
    {"sliding_window": 500},
    {"causal": True, "sliding_window": 4},
    {"scaling": 0.7},
]
TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-5, torch.bfloat16: 3e-2}
"""Of a softmax in float32, as it is in every type; bfloat16 holds 8 bits."""


@pytest.fixture(params=["products", "sdpa"])
def kernel(request, monkeypatch) -> str:
    """Both ways to compute it; the second is for devices other than this one."""
    if request.param == "sdpa":
        monkeypatch.setattr(attention, "_by_products", attention._by_sdpa)
    return request.param


@pytest.mark.parametrize("keys", [4, 2, 1])
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_values_and_gradients(options, dtype, keys, kernel):
    states = inputs(LENGTHS, dtype, keys=keys)
    given = with_gradients(ours, states, **options)
    expected = with_gradients(by_row, states, **options)
    for one, other in zip(given, expected, strict=True):
        assert one.dtype == dtype and one.shape == other.shape
        limit = TOLERANCE[dtype] * max(1.0, float(other.abs().max()))
        torch.testing.assert_close(one.double(), other.double(), rtol=TOLERANCE[dtype], atol=limit)


@pytest.mark.parametrize("lengths", [[1], [16], [32, 32, 32], [3] * 11, [1, 300]], ids=str)
@pytest.mark.parametrize("causal", [False, True])
def test_other_rows(lengths, causal, kernel):
    """One row, full rows without any padding, rows that come with empty ones, a row too wide to keep."""
    states = inputs(lengths)
    given = with_gradients(ours, states, lengths, causal=causal)
    for one, other in zip(given, with_gradients(by_row, states, lengths, causal=causal), strict=True):
        torch.testing.assert_close(one.double(), other.double(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("longest", "dtype", "fused"),
    [(256, torch.float32, False), (257, torch.float32, True), (257, torch.bfloat16, False)],
    ids=str,
)
def test_the_kernel_follows_type_and_width(longest, dtype, fused, monkeypatch):
    called = []

    def spy(name: str) -> None:
        own = getattr(attention, name)
        monkeypatch.setattr(attention, name, lambda *given: called.append(name) or own(*given))

    spy("_by_products")
    spy("_by_sdpa")
    lengths = [3, longest]
    states = inputs(lengths, dtype)
    given, expected = with_gradients(ours, states, lengths), with_gradients(by_row, states, lengths)
    assert called == ["_by_sdpa" if fused else "_by_products"]
    for one, other in zip(given, expected, strict=True):
        limit = TOLERANCE[dtype] * max(1.0, float(other.abs().max()))
        torch.testing.assert_close(one.double(), other.double(), rtol=TOLERANCE[dtype], atol=limit)


@pytest.mark.parametrize("lengths", [LENGTHS, [1], [32] * 3, [3] * 11, [1, 300]], ids=str)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("size", [1.0, 3e3], ids=str)
def test_powers_of_two_are_the_softmax_whatever_the_size_of_the_scores(lengths, causal, size, monkeypatch):
    """Scores of some thousands leave bfloat16's range and are computed by a softmax."""
    sums, own = [], attention._within_reach
    monkeypatch.setattr(attention, "_within_reach", lambda given: sums.append(own(given)) or sums[-1])
    q, k, v, _ = inputs(lengths, torch.bfloat16)
    q = q * size
    with torch.no_grad():
        given, expected = (function(lengths, q, k, v, causal=causal) for function in (ours, by_row))
    by_softmax = ours(lengths, q.requires_grad_(), k, v, causal=causal).detach()
    whole, *groups = sums
    assert whole == (size == 1.0) and bool(groups) != whole
    if whole:
        torch.testing.assert_close(given.double(), expected.double(), rtol=3e-2, atol=3e-2)
    else:
        assert given.isfinite().all() and (any(groups) or torch.equal(given, by_softmax))


def test_a_row_whose_scores_are_out_of_range_changes_no_other_group():
    lengths = [5, 5, 300]
    q, k, v, _ = inputs(lengths, torch.bfloat16)
    large = q.clone()
    large[:, :, 10:] *= 3e3
    with torch.no_grad():
        before, after = (ours(lengths, x, k, v) for x in (q, large))
        expected = ours(lengths, large.requires_grad_(), k, v).detach()
    assert torch.equal(after[:, :10], before[:, :10])
    assert torch.equal(after[:, 10:], expected[:, 10:]) and after.isfinite().all()


def test_outside_autograd_it_is_the_same():
    q, k, v, _ = inputs(LENGTHS)
    with torch.no_grad():
        alone = ours(LENGTHS, q, k, v)
    assert torch.equal(alone, ours(LENGTHS, q.clone().requires_grad_(), k, v).detach())


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_recomputed_probabilities_are_the_kept_ones(dropout, monkeypatch):
    states = inputs(LENGTHS)

    def run(kept_width: int) -> tuple[list[torch.Tensor], int]:
        monkeypatch.setattr(attention, "_KEPT_WIDTH", kept_width)
        held: list[torch.Tensor] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x: held.append(x) or x, lambda x: x):
            torch.manual_seed(0)
            results = with_gradients(ours, states, dropout=dropout, causal=True)
        return results, sum(x.numel() for x in held)

    kept, numbers = run(10**6)
    recomputed, fewer = run(0)
    assert fewer < numbers
    for one, other in zip(recomputed, kept, strict=True):
        assert torch.equal(one, other)


class TestDropout:
    rate = 0.4

    lengths: ClassVar = [20, 32, 7]

    def output(self, q, k, v, seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return ours(self.lengths, q, k, v, dropout=self.rate)

    def test_expectation_is_the_output_without_it(self, kernel):
        q, k, v, _ = inputs(self.lengths)
        many = torch.stack([self.output(q, k, v, seed) for seed in range(300)])
        plain = ours(self.lengths, q, k, v)
        error = (many.mean(0) - plain) / (many.std(0) / 300**0.5 + 1e-6)
        assert many.std(0).mean() > 0.05
        assert error.abs().mean() == pytest.approx((2 / torch.pi) ** 0.5, rel=0.1)  # of a standard normal

    def test_gradients_are_those_of_the_mask_that_was_drawn(self):
        """Central differences along random directions, in float64, with rows that the kernels take 32 wide."""
        self.lengths = lengths = [30, 32, 20, 60]
        q, k, v, above = inputs(lengths, torch.float64)
        own = [x.requires_grad_() for x in (q, k, v)]
        gradients = torch.autograd.grad(self.output(*own, seed=5), own, above)
        for place, gradient in enumerate(gradients):
            step = torch.randn(gradient.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(place))
            moved = [
                self.output(*(x.detach() + sign * 1e-5 * step * (at == place) for at, x in enumerate(own)), seed=5)
                for sign in (1, -1)
            ]
            numeric = float(((moved[0] - moved[1]) * above).sum() / 2e-5)
            assert float((gradient * step).sum()) == pytest.approx(numeric, rel=1e-6)

    def test_the_same_seed_drops_the_same(self):
        q, k, v, _ = inputs(self.lengths)
        assert torch.equal(self.output(q, k, v, 1), self.output(q, k, v, 1))
        assert not torch.equal(self.output(q, k, v, 1), self.output(q, k, v, 2))


def test_padded_it_is_pytorchs_own():
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    module = torch.nn.Module()
    module.is_causal = False
    q, k, v = torch.randn(3, 2, HEADS, 6, SIZE, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(2, 1, 6, 6).masked_fill_(torch.arange(6) > 3, -1e9)
    expected, _ = sdpa_attention_forward(module, q, k, v, mask, scaling=0.3)
    given, _ = packed_attention(module, q, k, v, mask, scaling=0.3)
    assert torch.equal(given, expected)
