"""DoRA (Liu et al., arXiv 2402.09353): a learned length times a direction that LoRA updates, for every output."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F

from featherfit.adapters.base import ADAPTERS, Adapter, Target, plain_linear
from featherfit.adapters.lora import low_rank_parameters, low_rank_product
from featherfit.models.linear import FrozenLinear, dense_weight

if TYPE_CHECKING:
    from featherfit.config.schema import LoraConfig


class DoRA(Adapter):
    """y = m / |W + s B A| * (W x + s B A drop(x)) + b, with the norm of every row (out,).

    m starts at |W|, so that y = base(x) at the start. The norm is a constant in the backward pass (section 4.3 of the
    paper). Dropout acts on the low-rank path only.
    """

    no_decay = ("magnitude",)

    def __init__(self, base: nn.Linear, *, rank: int, scale: float, dropout: float, generator: torch.Generator):
        """Adds A (rank, in), B (out, rank) and m (out,) to `base`; `scale` is s, `generator` draws A on the CPU."""
        super().__init__(base)
        self.scale = scale
        self.dropout = nn.Dropout(dropout)
        self.lora_a, self.lora_b = low_rank_parameters(base, rank, generator)
        self.magnitude = nn.Parameter(torch.linalg.vector_norm(self._direction(), dim=1).detach())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., in) to (..., out)."""
        base = self.base
        y = base.times(x, None) if isinstance(base, FrozenLinear) else F.linear(x, base.weight)
        update = low_rank_product(self.dropout(x), self.lora_a, self.lora_b, self.scale)
        with torch.autocast(x.device.type, enabled=False):
            gain = self._gain()
        out = (gain * (y + update)).to(y.dtype)
        return out if self.base.bias is None else out + self.base.bias.to(y.dtype)

    def merged(self) -> nn.Linear:
        """m / |W + s B A| * (W + s B A), and the bias as it is."""
        return plain_linear(self._gain().unsqueeze(1) * self._direction(), self.base.bias, self.base)

    def _direction(self) -> torch.Tensor:
        """W + s B A, (out, in) float32."""
        return dense_weight(self.base) + self.scale * (self.lora_b @ self.lora_a)

    def _gain(self) -> torch.Tensor:
        """m / |W + s B A|, (out,); zero rows stay zero."""
        with torch.no_grad():
            length = torch.linalg.vector_norm(self._direction(), dim=1)
        return self.magnitude / length.clamp(min=torch.finfo(length.dtype).tiny)


@ADAPTERS.register("dora")
def build_dora(target: Target, config: LoraConfig, generator: torch.Generator) -> DoRA:
    """DoRA with s = alpha / r."""
    scale = config.alpha / config.r
    return DoRA(target.linear, rank=config.r, scale=scale, dropout=config.dropout, generator=generator)
