"""Small transformer layers that are trained from random weights; vectors (B, N, D) in and out.

Pre-norm, as in the FT-Transformer (Gorishniy et al. 2021, arXiv 2106.11959): the norm before the first attention is left out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

if TYPE_CHECKING:
    from featherfit.config.columns import FtTransformerConfig, FusionTransformerConfig

ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "relu": functional.relu,
    "gelu": functional.gelu,
    "leaky_relu": functional.leaky_relu,
}

GATES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {"reglu": functional.relu, "geglu": functional.gelu}
"""Activations that multiply one half of what they get by the other (arXiv 2002.05202)."""


class Attention(nn.Module):
    """Attention of N vectors to each other, in `heads` heads."""

    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, N, D) to (B, N, D)."""
        q, k, v = (
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        mixed = functional.scaled_dot_product_attention(q, k, v, dropout_p=self.dropout if self.training else 0.0)
        return self.out(mixed.transpose(1, 2).flatten(-2))


class FeedForward(nn.Module):
    """Two products with an activation, or a gate, between them."""

    def __init__(self, width: int, hidden: int, activation: str, dropout: float):
        super().__init__()
        self.gate = GATES.get(activation)
        self.activation = self.gate or ACTIVATIONS[activation]
        self.up = nn.Linear(width, hidden * (2 if self.gate else 1))
        self.down = nn.Linear(hidden, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., D) to (..., D)."""
        x = self.up(x)
        if self.gate is not None:
            x, gated = x.chunk(2, dim=-1)
            x = x * self.activation(gated)
        else:
            x = self.activation(x)
        return self.down(self.dropout(x))


class Block(nn.Module):
    """Attention and a feed-forward unit, each of which adds to its input."""

    def __init__(
        self,
        width: int,
        *,
        heads: int,
        hidden: int,
        activation: str,
        attention_dropout: float,
        residual_dropout: float,
        ffn_dropout: float,
        first: bool,
    ):
        super().__init__()
        self.attention_norm = nn.Identity() if first else nn.LayerNorm(width)
        self.attention = Attention(width, heads, attention_dropout)
        self.norm = nn.LayerNorm(width)
        self.feed_forward = FeedForward(width, hidden, activation, ffn_dropout)
        self.dropout = nn.Dropout(residual_dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, N, D) to (B, N, D)."""
        x = x + self.dropout(self.attention(self.attention_norm(x)))
        return x + self.dropout(self.feed_forward(self.norm(x)))


def blocks(width: int, config: FtTransformerConfig | FusionTransformerConfig) -> nn.ModuleList:
    """As many blocks as the settings say, of vectors of `width` numbers."""
    return nn.ModuleList(
        Block(
            width,
            heads=config.attention_num_heads,
            hidden=config.ffn_hidden_size,
            activation=config.ffn_activation,
            attention_dropout=config.attention_dropout,
            residual_dropout=config.residual_dropout,
            ffn_dropout=config.ffn_dropout,
            first=place == 0,
        )
        for place in range(config.num_blocks)
    )
