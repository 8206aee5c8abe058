"""Embeddings (B, D) go in, logits (B, C) come out."""

from __future__ import annotations

import torch
from torch import nn


class Head(nn.Module):
    """A linear layer from an embedding to the outputs, always computed in float32.

    The weight starts Xavier-uniform and the bias at zero, as in AutoMM; the numbers depend on `seed` alone.
    """

    def __init__(self, in_dim: int, outputs: int, *, seed: int):
        """Builds the layer.

        Args:
            in_dim: Width D of the embedding.
            outputs: Number C of classes, or 1 for regression.
            seed: Seed of the initial weight; torch's global generator is neither read nor advanced.
        """
        super().__init__()
        self.linear = nn.utils.skip_init(
            nn.Linear, in_dim, outputs, dtype=torch.float32, device=torch.get_default_device()
        )
        with torch.device("meta" if self.linear.weight.is_meta else "cpu"):
            start = torch.empty(outputs, in_dim)
            nn.init.xavier_uniform_(start, generator=torch.Generator().manual_seed(seed))
        with torch.no_grad():
            self.linear.weight.copy_(start)
            self.linear.bias.zero_()

    def forward(self, embedding: torch.Tensor) -> torch.Tensor:
        """(B, D) of any float type to (B, C) float32, also under autocast."""
        with torch.autocast(embedding.device.type, enabled=False):
            return self.linear(embedding.float())
