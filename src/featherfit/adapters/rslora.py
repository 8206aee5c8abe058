"""Rank-stabilised LoRA (Kalajdzievski, arXiv 2312.03732): LoRA whose scale falls with the square root of the rank."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from featherfit.adapters.base import ADAPTERS, Target
from featherfit.adapters.lora import LoRA

if TYPE_CHECKING:
    from featherfit.config.schema import LoraConfig


@ADAPTERS.register("rslora")
def build_rslora(target: Target, config: LoraConfig, generator: torch.Generator) -> LoRA:
    """LoRA with s = alpha / sqrt(r), which keeps the size of activations and gradients steady as r grows."""
    scale = config.alpha / math.sqrt(config.r)
    return LoRA(target.linear, rank=config.r, scale=scale, dropout=config.dropout, generator=generator)
