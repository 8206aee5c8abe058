"""Linear layers and the ranges of their inputs go in; layers that multiply 8-bit integers on a CPU come out.

A tensor is written as uint8 codes with one scale and zero point, x = scale * (code - zero), in a range that was measured
beforehand; a weight as int8 with one scale per output, w = scale * code. The product of the codes is exact in int32, and
oneDNN rescales it (post-training static quantisation: Jacob et al., arXiv 1712.05877).

A few channels of the states between layers are ten times as large as all others and would make the steps coarse for all.
They are written smaller, and the weight's columns larger by the same factors (Xiao et al., arXiv 2211.10438).

A feed-forward layer's activations, too, have a few channels ten times as large as all others (Dettmers et al., arXiv
2208.07339). The range ends where the others do, and what those channels exceed it by goes on in the model's own type.
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import torch
from torch import nn

GELU_LOW = -0.16998
"""What GELU never falls below."""

_OUTLIERS_STEP = 4
"""Outlying channels are filled up to a multiple of these, so that most layers share oneDNN's kernels."""

_TYPICAL_ROWS = 1024  # oneDNN picks the weight's blocked order for a number of rows; any large one gives the same


@dataclass(frozen=True)
class Range:
    """How numbers become uint8 codes: code = round(x / scale) + zero, from 0 to 255.

    Attributes:
        scale: What one code step is worth, above 0.
        zero: The code of 0.0, from 0 to 255.
    """

    scale: float
    zero: int

    @classmethod
    def of(cls, low: float, high: float) -> Range:
        """The range from `low` to `high`, widened to hold 0, which every range has to represent exactly."""
        low, high = min(low, 0.0), max(high, 0.0)
        scale = torch.tensor(max((high - low) / 255, 1e-8), dtype=torch.float32).item()
        return cls(scale, min(255, max(0, round(-low / scale))))

    def codes(self, x: torch.Tensor) -> torch.Tensor:
        """Codes of `x`, of the same shape, uint8; numbers outside the range get its ends."""
        in_one_pass = _one_pass()
        if in_one_pass is None:
            return self.codes_by_steps(x)
        written = in_one_pass(x.float().contiguous(), self.scale, self.zero, torch.quint8)
        # Its bytes are the codes; `int_repr`, which copies them, takes twice as long as writing them did.
        return torch.empty(0, dtype=torch.uint8).set_(written.untyped_storage(), 0, written.shape, written.stride())

    def codes_by_steps(self, x: torch.Tensor) -> torch.Tensor:
        """The same by plain operations, at a quarter of the speed; halfway between two codes it may choose the other."""
        inverse = torch.tensor(self.scale, dtype=torch.float32).reciprocal().item()
        return (x.float() * inverse).round_().add_(self.zero).clamp_(0, 255).to(torch.uint8)

    def numbers(self, codes: torch.Tensor) -> torch.Tensor:
        """What the codes stand for, float32."""
        return (codes.float() - self.zero) * self.scale


@cache
def _one_pass() -> Callable[..., torch.Tensor] | None:
    """torch's quantisation, four times as fast as plain operations, where this torch still has it.

    torch 2.13 says once per process that quantised tensors, its result, will go; we only look at their bytes.
    """
    quantize = getattr(torch, "quantize_per_tensor", None)
    if quantize is not None:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*quantize_per_tensor.* deprecated")
            quantize(torch.zeros(1), 1.0, 0, torch.quint8)
    return quantize


def multiplies_int8() -> bool:
    """Whether this torch has oneDNN's product of 8-bit integers."""
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.onednn, "qlinear_pointwise")


class Quantizer:
    """Writes tensors as codes; layers that read one tensor in turn share its codes.

    Nothing is held beyond the life of that tensor.

    Attributes:
        range: The range of the codes.
        factors: What every channel is multiplied by before it is written, (in,) float32; None for 1.
    """

    def __init__(self, range: Range, factors: torch.Tensor | None = None):
        """Takes the range of the multiplied numbers, and the factors."""
        self.range, self.factors = range, factors
        self._held: tuple[weakref.ref[torch.Tensor], int | None, torch.Tensor] | None = None

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Codes of `x`, of the same shape, uint8."""
        held = self._held  # read once: another thread may put its own there
        if held is not None and held[0]() is x and held[1] == _version(x):
            return held[2]
        codes = self.range.codes(x if self.factors is None else x.to(torch.float32, copy=True).mul_(self.factors))
        self._held = (weakref.ref(x, self._forget), _version(x), codes)
        return codes

    def matrix(self, weight: torch.Tensor, bias: torch.Tensor | None) -> Int8Matrix:
        """The matrix of a layer that gets these codes, (out, in), which takes the factors back."""
        return Int8Matrix(weight if self.factors is None else weight / self.factors, bias)

    def _forget(self, reference: weakref.ref[torch.Tensor]) -> None:
        held = self._held
        if held is not None and held[0] is reference:
            self._held = None


def _version(x: torch.Tensor) -> int | None:
    """Counts changes in place; tensors of inference mode have no such counter."""
    return None if x.is_inference() else x._version


class Int8Matrix:
    """Weight and bias of a linear layer, written for the product of 8-bit integers.

    Attributes:
        codes: The weight (out, in), int8 codes from -127 to 127, in oneDNN's order.
        scales: What a step of each output's codes is worth, (out,) float32.
        bias: (out,) float32, or None.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None):
        """Takes the float32 numbers (out, in) and (out,)."""
        self.out_features, self.in_features = weight.shape
        self.scales, codes = int8_rows(weight)
        self.bias = None if bias is None else bias.detach().float().contiguous()
        self.codes = torch.ops.onednn.qlinear_prepack(codes.contiguous(), [_TYPICAL_ROWS, self.in_features])
        self._zeros = torch.zeros(self.out_features, dtype=torch.int64)

    def times(
        self, codes: torch.Tensor, range: Range, dtype: torch.dtype, *, gelu: bool = False, out: Range | None = None
    ) -> torch.Tensor:
        """x W^T + b, (..., in) to (..., out).

        Args:
            codes: Codes of x.
            range: Their range.
            dtype: Type of the result: float32, bfloat16, or uint8 for codes in the range `out`.
            gelu: Whether GELU is applied, before the result is written in its type.
            out: The range of a result in codes.
        """
        flat = torch.ops.onednn.qlinear_pointwise(
            codes.reshape(-1, self.in_features), range.scale, range.zero, self.codes, self.scales, self._zeros, self.bias,
            1.0 if out is None else out.scale, 0 if out is None else out.zero, dtype, "gelu" if gelu else "none", [], "none",
        )  # fmt: skip
        return flat.view(*codes.shape[:-1], self.out_features)


def int8_rows(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Scales (out,), float32, and codes (out, in), int8 from -127 to 127, of a weight: w = scale * code."""
    weight = weight.detach().float()
    scales = (weight.abs().amax(dim=1) / 127).clamp_min(1e-12)
    return scales, (weight / scales.unsqueeze(1)).round().to(torch.int8)


class Int8Linear(nn.Module):
    """A linear layer whose input is written as codes first."""

    def __init__(self, linear: nn.Linear, quantizer: Quantizer, dtype: torch.dtype):
        """Writes the layer.

        Args:
            linear: Weight and bias, float32.
            quantizer: Of its inputs; layers that read the same tensor may share it.
            dtype: Type of what comes out: float32 or bfloat16.
        """
        super().__init__()
        self.matrix = quantizer.matrix(linear.weight, linear.bias)
        self.quantizer, self.dtype = quantizer, dtype

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., in) to (..., out)."""
        return self.matrix.times(self.quantizer(x), self.quantizer.range, self.dtype)


class Activations(NamedTuple):
    """GELU activations on their way between the two feed-forward layers.

    Attributes:
        codes: (..., F) uint8, every channel cut at the end of the range.
        excess: (..., k): by how much the outlying channels exceed it, 0 where they do not; None if there are none. As many
            zeros follow as make k a multiple of `_OUTLIERS_STEP`.
    """

    codes: torch.Tensor
    excess: torch.Tensor | None


class Int8Up(nn.Module):
    """The first feed-forward layer and GELU; `Activations` come out."""

    def __init__(
        self, linear: nn.Linear, quantizer: Quantizer, high: float, outliers: torch.Tensor, dtype: torch.dtype
    ):
        """Writes the layer.

        Args:
            linear: Weight and bias, float32.
            quantizer: Of its inputs.
            high: Where the range of the activations ends.
            outliers: The channels that are to count beyond it, (k,).
            dtype: Type of their excess.
        """
        super().__init__()
        self.matrix, self.quantizer = quantizer.matrix(linear.weight, linear.bias), quantizer
        self.high, self.out, self.dtype = high, Range.of(GELU_LOW, high), dtype
        self.outlying = None
        if len(outliers):
            weight = _filled_up(linear.weight.detach()[outliers])
            bias = None if linear.bias is None else _filled_up(linear.bias.detach()[outliers])
            self.outlying = quantizer.matrix(weight, bias)

    def forward(self, x: torch.Tensor) -> Activations:
        """(..., in) to activations of (..., F)."""
        read, range = self.quantizer(x), self.quantizer.range
        codes = self.matrix.times(read, range, torch.uint8, gelu=True, out=self.out)
        if self.outlying is None:
            return Activations(codes, None)
        excess = self.outlying.times(read, range, self.dtype, gelu=True).sub_(self.high).relu_()
        return Activations(codes, excess)


class Int8Down(nn.Module):
    """The second feed-forward layer, of `Activations`."""

    def __init__(self, linear: nn.Linear, up: Int8Up, outliers: torch.Tensor, dtype: torch.dtype):
        """Writes the layer.

        Args:
            linear: Weight and bias, float32.
            up: The layer before it.
            outliers: The channels whose excess it gives, (k,).
            dtype: Type of what comes out: float32 or bfloat16.
        """
        super().__init__()
        self.matrix, self.range, self.dtype = Int8Matrix(linear.weight, linear.bias), up.out, dtype
        self.columns = _filled_up(linear.weight.detach()[:, outliers].t()).to(dtype)

    def forward(self, x: Activations) -> torch.Tensor:
        """Activations of (..., F) to (..., out)."""
        y = self.matrix.times(x.codes, self.range, self.dtype)
        if x.excess is not None:
            y.view(-1, y.shape[-1]).addmm_(x.excess.view(-1, x.excess.shape[-1]), self.columns)
        return y


def _filled_up(rows: torch.Tensor) -> torch.Tensor:
    """(k, ...), with zeros below up to the next multiple of `_OUTLIERS_STEP`."""
    missing = -len(rows) % _OUTLIERS_STEP
    return torch.cat([rows, rows.new_zeros(missing, *rows.shape[1:])])
