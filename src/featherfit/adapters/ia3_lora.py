"""IA3 on top of LoRA, AutoMM's combination: the low-rank update first, then a factor for every output."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from featherfit.adapters.base import ADAPTERS, Adapter, Target
from featherfit.adapters.ia3 import scaled, scaled_linear, scaling_vector
from featherfit.adapters.lora import low_rank_parameters, low_rank_product
from featherfit.models.linear import dense_weight

if TYPE_CHECKING:
    from featherfit.config.schema import LoraConfig


class IA3LoRA(Adapter):
    """y = v * (base(x) + s B A drop(x)), with v on x instead where the IA3 paper scales the input."""

    no_decay = ("vector",)

    def __init__(
        self,
        base: nn.Linear,
        *,
        rank: int,
        scale: float,
        dropout: float,
        generator: torch.Generator,
        scales_input: bool = False,
    ):
        """Adds A (rank, in), B (out, rank) and v to `base`; see `LoRA` and `IA3`."""
        super().__init__(base)
        self.scale = scale
        self.scales_input = scales_input
        self.dropout = nn.Dropout(dropout)
        self.lora_a, self.lora_b = low_rank_parameters(base, rank, generator)
        self.vector = scaling_vector(base, scales_input)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., in) to (..., out)."""
        if self.scales_input:
            x = scaled(x, self.vector)
        y = self.base(x)
        y = y + low_rank_product(self.dropout(x), self.lora_a, self.lora_b, self.scale).to(y.dtype)
        return y if self.scales_input else scaled(y, self.vector)

    def merged(self) -> nn.Linear:
        """The factors multiplied into W + s B A."""
        weight = dense_weight(self.base) + self.scale * (self.lora_b @ self.lora_a)
        return scaled_linear(weight, self.base, self.vector, self.scales_input)


@ADAPTERS.register("ia3_lora")
def build_ia3_lora(target: Target, config: LoraConfig, generator: torch.Generator) -> IA3LoRA:
    """IA3 on LoRA with s = alpha / r."""
    return IA3LoRA(
        target.linear,
        rank=config.r,
        scale=config.alpha / config.r,
        dropout=config.dropout,
        generator=generator,
        scales_input=target.scales_input,
    )
