"""IA3 (Liu et al., arXiv 2205.05638): one learned factor for every output, or input, of a linear layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from featherfit.adapters.base import ADAPTERS, Adapter, Target, plain_linear
from featherfit.models.linear import column_sums, dense_weight

if TYPE_CHECKING:
    from featherfit.config.schema import LoraConfig


class IA3(Adapter):
    """y = v * base(x), or base(v * x) where the input is scaled; v starts at one.

    Scaling the output includes the bias, as in AutoMM. The paper scales keys, values and the input of the second
    feed-forward layer.
    """

    no_decay = ("vector",)

    def __init__(self, base: nn.Linear, *, scales_input: bool = False):
        """Adds v, of shape (in,) if `scales_input` and (out,) otherwise, to `base`."""
        super().__init__(base)
        self.scales_input = scales_input
        self.vector = scaling_vector(base, scales_input)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., in) to (..., out)."""
        if self.scales_input:
            return self.base(scaled(x, self.vector))
        return scaled(self.base(x), self.vector)

    def merged(self) -> nn.Linear:
        """The factors multiplied into rows and bias, or into columns."""
        return scaled_linear(dense_weight(self.base), self.base, self.vector, self.scales_input)


def scaling_vector(base: nn.Linear, scales_input: bool) -> nn.Parameter:
    """Ones for every input or output of `base`, float32 on its device."""
    size = base.in_features if scales_input else base.out_features
    return nn.Parameter(torch.ones(size, device=base.weight.device))


def scaled(x: torch.Tensor, vector: torch.Tensor) -> torch.Tensor:
    """x * vector in the type of x, as x + x * (vector - 1): bfloat16 would round factors near one to one."""
    return _Scaled.apply(x, vector)


class _Scaled(torch.autograd.Function):
    """One pass over x in either direction, where plain operations would take three and keep a float32 copy."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, vector: torch.Tensor) -> torch.Tensor:
        excess = (vector - 1).to(x.dtype)
        ctx.save_for_backward(x if ctx.needs_input_grad[1] else None, excess)
        return torch.addcmul(x, x, excess)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        x, excess = ctx.saved_tensors
        for_x = torch.addcmul(gradient, gradient, excess) if ctx.needs_input_grad[0] else None
        for_vector = None if x is None else column_sums(gradient * x).float()
        return for_x, for_vector


def scaled_linear(weight: torch.Tensor, base: nn.Linear, vector: torch.Tensor, scales_input: bool) -> nn.Linear:
    """A plain layer of `weight` (out, in) and the bias of `base` with the factors multiplied in."""
    if scales_input:
        return plain_linear(weight * vector, base.bias, base)
    bias = None if base.bias is None else base.bias.float() * vector
    return plain_linear(weight * vector.unsqueeze(1), bias, base)


@ADAPTERS.register("ia3")
def build_ia3(target: Target, config: LoraConfig, generator: torch.Generator) -> IA3:
    """IA3; it has no settings and draws nothing."""
    return IA3(target.linear, scales_input=target.scales_input)
