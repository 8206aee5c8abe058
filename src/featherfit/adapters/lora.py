"""LoRA (Hu et al., arXiv 2106.09685): W x + b becomes W x + b + s B A x, with A (r, in) and B (out, r)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional as F

from featherfit.adapters.base import ADAPTERS, Adapter, Target, in_type_of, plain_linear
from featherfit.models.linear import FrozenLinear, column_sums, dense_weight

if TYPE_CHECKING:
    from featherfit.config.schema import LoraConfig


class LoRA(Adapter):
    """y = base(x) + scale * B A drop(x).

    A starts Kaiming-uniform with a = sqrt(5), as `nn.Linear` does, and B at zero, so that y = base(x) at the start.
    """

    def __init__(self, base: nn.Linear, *, rank: int, scale: float, dropout: float, generator: torch.Generator):
        """Adds A (rank, in) and B (out, rank) to `base`; `scale` is s, `generator` draws A on the CPU."""
        super().__init__(base)
        self.scale = scale
        self.dropout = nn.Dropout(dropout)
        self.lora_a, self.lora_b = low_rank_parameters(base, rank, generator)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., in) to (..., out)."""
        frozen = isinstance(self.base, FrozenLinear) and not self.base.weight.requires_grad
        if frozen and not (self.training and self.dropout.p > 0):
            return _Updated.apply(x, self.base.bias, self.lora_a, self.lora_b, self.base, self.scale)
        y = self.base(x)
        return y + low_rank_product(self.dropout(x), self.lora_a, self.lora_b, self.scale).to(y.dtype)

    def merged(self) -> nn.Linear:
        """W + s B A, and the bias as it is."""
        weight = dense_weight(self.base) + self.scale * (self.lora_b @ self.lora_a)
        return plain_linear(weight, self.base.bias, self.base)


class _Updated(torch.autograd.Function):
    """W x + b + s B A x, the update accumulated by the products themselves: no pass over the activations of its own."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        bias: torch.Tensor | None,
        a: torch.Tensor,
        b: torch.Tensor,
        linear: FrozenLinear,
        scale: float,
    ) -> torch.Tensor:
        dtype = linear.dtype
        flat, low_a, low_b = x.to(dtype).reshape(-1, x.shape[-1]), a.to(dtype), (scale * b).to(dtype)
        with torch.autocast(x.device.type, enabled=False):  # all is in the layer's type, which may not be autocast's
            inner = flat @ low_a.t()
            out = linear.product(flat, bias).addmm_(inner, low_b.t())
        ctx.save_for_backward(flat if ctx.needs_input_grad[2] else None, inner, low_a, low_b)
        ctx.linear, ctx.scale, ctx.x_type = linear, scale, x.dtype
        return out.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        flat, inner, low_a, low_b = ctx.saved_tensors
        g = gradient.reshape(-1, gradient.shape[-1])
        for_inner = g @ low_b
        for_x = None
        if ctx.needs_input_grad[0]:
            for_x = ctx.linear.input_gradient(g).addmm_(for_inner, low_a)
            for_x = for_x.view(*gradient.shape[:-1], -1).to(ctx.x_type)
        for_bias = column_sums(g).float() if ctx.needs_input_grad[1] else None
        for_a = None if flat is None else (for_inner.t() @ flat).float()
        return for_x, for_bias, for_a, (g.t() @ inner).float() * ctx.scale, None, None


def low_rank_parameters(base: nn.Linear, rank: int, generator: torch.Generator) -> tuple[nn.Parameter, nn.Parameter]:
    """A (rank, in), drawn, and B (out, rank), zero; float32 on the device of `base`."""
    device = base.weight.device
    with torch.device("meta" if device.type == "meta" else "cpu"):
        start = torch.empty(rank, base.in_features)
        nn.init.kaiming_uniform_(start, a=math.sqrt(5), generator=generator)
    return nn.Parameter(start.to(device)), nn.Parameter(torch.zeros(base.out_features, rank, device=device))


def low_rank_product(x: torch.Tensor, a: torch.Tensor, b: torch.Tensor, scale: float) -> torch.Tensor:
    """scale * B A x for x (..., in)."""
    return F.linear(F.linear(in_type_of(x, a), a), b) * scale


@ADAPTERS.register("lora")
def build_lora(target: Target, config: LoraConfig, generator: torch.Generator) -> LoRA:
    """LoRA with s = alpha / r."""
    scale = config.alpha / config.r
    return LoRA(target.linear, rank=config.r, scale=scale, dropout=config.dropout, generator=generator)
