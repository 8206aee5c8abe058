"""Linear layers that never train go in; the same layers, their weights kept in 32, 16, 8 or 4 bits, come out.

Kept are codes, and for every group of up to 128 or 64 neighbours in a row what they stand for, in bfloat16:

    int8    w = scale * code                code from -127 to 127, groups of 128: 8.125 bits a weight
    int4    w = scale * code + low          code from 0 to 15, groups of 64: 4.5 bits a weight, two codes a byte
    others  the weight itself in that type

A product turns the codes of one layer into numbers of the type it computes in, multiplies, and lets them go; so does the
gradient of its input. Only weights are rounded, so what trains on top, gradients and the optimiser's state included, is
float32 as ever (Dettmers et al., QLoRA, arXiv 2305.14314; their 4-bit codes need a look-up where these need one product
and one sum, which CPUs do many at a time).

Int8 is off by half a scale at most. Int4's scale and low are fitted by least squares, for which the ends of a group may be
off by more and all others are off by less. The codes depend on the weight alone, so a checkpoint gives the same ones
whenever it is read.

No library is needed for it: it is a few lines of torch, the same on CPUs and GPUs, and what a saved predictor computes
does not change with the version of another package, as it would with bitsandbytes or torchao.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from featherfit.errors import CheckpointError
from featherfit.models.linear import FrozenLinear
from featherfit.models.mapped import release_pages

GROUPS = {"int8": 128, "int4": 64}
"""Most neighbours in a row that share a scale."""

FLOATS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

_ROUNDED_AT_ONCE = 1 << 17
"""Numbers that are rounded at a time, which takes some 30 bytes each."""

_FITS = 2
"""Least squares for int4. Cosine of multilingual-e5-small's embeddings to the exact ones: 0.982 without, 0.990, 0.992."""

_LEAST_SCALE = 1e-30  # for groups of equal numbers, whose codes do not matter


@dataclass(frozen=True)
class BaseForm:
    """How a frozen weight is kept, and what it is multiplied in.

    Attributes:
        precision: `float32`, `bfloat16`, `float16`, `int8` or `int4`.
        dtype: Type of the products, and of what comes out.
    """

    precision: str
    dtype: torch.dtype

    def beyond_float16(self) -> BaseForm:
        """The form for a layer whose outputs, or weights, are too large for float16 (65,504)."""
        return BaseForm(
            "bfloat16" if self.precision == "float16" else self.precision,
            torch.float32 if self.dtype == torch.float16 else self.dtype,
        )


class QuantizedLinear(FrozenLinear):
    """A frozen linear layer whose weight is kept as codes.

    Attributes:
        weight: The codes as bytes, (out, bytes of a row) int8; a parameter that cannot train. It is int8 whatever the
            codes are, which is what `transformers` leaves alone: elsewhere it turns T5's states into the weight's type.
        scales: (out, groups, 1) scale, or (out, groups, 2) scale and low, in bfloat16; None for types that need none.
        precision: See `BaseForm`.
    """

    scales: torch.Tensor | None
    precision: str

    @classmethod
    def keeping(cls, linear: nn.Linear, form: BaseForm) -> QuantizedLinear:
        """The layer with the weight of `linear` in another form, and its very bias."""
        own = cls.of(linear, reorders=False)
        codes, scales = encoded(linear.weight.detach(), form.precision)
        own.weight = nn.Parameter(codes, requires_grad=False)
        own.register_buffer("scales", scales)
        own.precision, own._dtype = form.precision, form.dtype
        return own

    @property
    def kept_bytes(self) -> int:
        """Memory of codes and scales."""
        return self.weight.nbytes + (0 if self.scales is None else self.scales.nbytes)

    def dense(self, dtype: torch.dtype) -> torch.Tensor:
        """The weight as numbers, (out, in); made anew by every call."""
        return decoded(self.weight, self.scales, self.precision, self.in_features, dtype)

    def product(self, x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """x W^T + b, (..., in) to (..., out), outside autograd."""
        with torch.autocast(x.device.type, enabled=False):  # which would take another type than the layer's
            return super().product(x, bias)

    def input_gradient(self, gradient: torch.Tensor) -> torch.Tensor:
        """g W, (..., out) to (..., in), outside autograd."""
        with torch.autocast(gradient.device.type, enabled=False):
            return super().input_gradient(gradient)

    def extra_repr(self) -> str:
        """As for `nn.Linear`, and how the weight is kept."""
        return f"{super().extra_repr()}, kept={self.precision}, dtype={self.dtype}"


def keep_linears(model: nn.Module, form: BaseForm, large: Collection[str] = ()) -> int:
    """Puts a `QuantizedLinear` in the place of every `nn.Linear`, in place; layers that are shared stay shared.

    One weight at a time: what it took before is given back before the next one is read.

    Args:
        model: Its linear layers lose their weights. Subclasses of `nn.Linear` compute in a way of their own and stay.
        form: How weights are kept.
        large: Paths in `model` of the layers that need `BaseForm.beyond_float16`.

    Returns:
        How many layers that were.

    Raises:
        CheckpointError: A weight with numbers that are not finite, which no code stands for.
    """
    kept: dict[int, QuantizedLinear] = {}
    for path, linear in list(model.named_modules(remove_duplicate=False)):
        if type(linear) is not nn.Linear:
            continue
        if id(linear) not in kept:
            own = QuantizedLinear.keeping(linear, form.beyond_float16() if path in large else form)
            if own.scales is not None and not own.scales.is_meta and not bool(own.scales.isfinite().all()):
                raise CheckpointError(f"{path}.weight has numbers that are not finite; the checkpoint is damaged.")
            stored = linear.weight.data
            linear.weight = None  # type: ignore[assignment]
            release_pages([stored])
            del stored
            kept[id(linear)] = own
        model.set_submodule(path, kept[id(linear)])
    return len(kept)


def extra_numbers(module: nn.Module) -> tuple[int, int]:
    """How many more weights `module` has than its parameters count, and how many more bytes they take: the scales."""
    layers = [layer for layer in module.modules() if isinstance(layer, QuantizedLinear)]
    numbers = sum(layer.in_features * layer.out_features - layer.weight.numel() for layer in layers)
    return numbers, sum(layer.kept_bytes - layer.weight.nbytes for layer in layers)


def encoded(weight: torch.Tensor, precision: str) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Codes (out, bytes of a row), int8, and scales of a weight (out, in); see `QuantizedLinear`."""
    if precision in FLOATS:
        return weight.to(FLOATS[precision], copy=True).contiguous().view(torch.int8), None
    outputs, inputs = weight.shape
    groups, size = grouping(inputs, GROUPS[precision])
    width = groups * size if precision == "int8" else groups * size // 2
    codes = torch.empty(outputs, width, dtype=torch.int8, device=weight.device)
    parts = 1 if precision == "int8" else 2
    scales = torch.empty(outputs, groups, parts, dtype=torch.bfloat16, device=weight.device)
    rows, encode = max(1, _ROUNDED_AT_ONCE // inputs), _int8_codes if precision == "int8" else _int4_codes
    for start in range(0, outputs, rows):
        part = F.pad(weight[start : start + rows].float(), (0, groups * size - inputs))
        codes[start : start + rows], scales[start : start + rows] = encode(part.view(-1, groups, size))
    return codes, scales


def decoded(
    codes: torch.Tensor, scales: torch.Tensor | None, precision: str, inputs: int, dtype: torch.dtype
) -> torch.Tensor:
    """The weight (out, in) that `encoded` gave codes and scales for."""
    if scales is None:
        return codes.view(FLOATS[precision]).to(dtype)
    # Float16 is too narrow for scales, which are about a thousandth of the weights.
    work = torch.float32 if dtype == torch.float16 else dtype
    scales = scales.to(work)
    if precision == "int8":
        weight = codes.to(work)
        weight.view(len(codes), scales.shape[1], -1).mul_(scales)
    else:
        pairs, half = codes.view(torch.uint8), codes.shape[1]
        weight = torch.empty(len(codes), 2 * half, dtype=work, device=codes.device)
        weight[:, :half] = pairs & 15
        weight[:, half:] = pairs >> 4
        weight.view(len(codes), scales.shape[1], -1).mul_(scales[..., :1]).add_(scales[..., 1:])
    return weight[:, :inputs].to(dtype)


def grouping(inputs: int, most: int) -> tuple[int, int]:
    """Number and size of the groups of a row of `inputs` numbers: as few as can be, of equal and even size.

    Where that does not come out even, the last group is filled up with zeros.
    """
    groups = -(-inputs // most)
    size = -(-inputs // groups)
    return groups, size + size % 2


def _int8_codes(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(out, groups, size) to codes (out, groups * size) and scales (out, groups, 1)."""
    scales = (x.abs().amax(dim=-1, keepdim=True) / 127).clamp_min(_LEAST_SCALE).bfloat16()
    return (x / scales.float()).round_().clamp_(-127, 127).to(torch.int8).flatten(1), scales


def _int4_codes(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(out, groups, size) to bytes (out, groups * size / 2) and scales (out, groups, 2).

    The first half of a row is in the low bits, the second in the high ones, so that either is read and written in one run.
    """
    low, high = x.aminmax(dim=-1, keepdim=True)
    step = ((high - low) / 15).clamp_min_(_LEAST_SCALE)
    for _ in range(_FITS):
        step, low = _least_squares(_nearest(x, step, low), x, step)
    step, low = step.bfloat16(), low.bfloat16()
    first, second = _nearest(x, step.float(), low.float()).to(torch.uint8).flatten(1).chunk(2, dim=1)
    return (first | second << 4).view(torch.int8), torch.cat([step, low], dim=-1)


def _nearest(x: torch.Tensor, step: torch.Tensor, low: torch.Tensor) -> torch.Tensor:
    """The code from 0 to 15 whose number is nearest to each of `x`; float32."""
    return (x - low).div_(step).round_().clamp_(0, 15)


def _least_squares(codes: torch.Tensor, x: torch.Tensor, step: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The line step * code + low that is nearest to `x`, for every group; `step` as it was where all codes are equal.

    Sums are float64, so that their order, which differs between machines, does not decide a rounding later.
    """
    middle = codes.sum(dim=-1, keepdim=True) / codes.shape[-1]  # exact: codes are small whole numbers
    offsets = codes - middle
    spread = offsets.square().sum(dim=-1, keepdim=True, dtype=torch.float64)
    slope = (offsets * x).sum(dim=-1, keepdim=True, dtype=torch.float64) / spread.clamp_min(_LEAST_SCALE)
    step = torch.where(slope > 0, slope, step.double())
    low = x.sum(dim=-1, keepdim=True, dtype=torch.float64) / x.shape[-1] - step * middle
    return step.float(), low.float()
