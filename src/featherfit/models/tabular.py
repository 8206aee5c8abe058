"""Codes of categories and numbers go in; a `TableEncoder` makes one vector of every row.

An FT-Transformer (arXiv 2106.11959): every column is a token. Numbers are coded piecewise linearly between the edges that their
processor found (arXiv 2203.05556). Ours rather than the authors' packages, because shapes are needed on the meta device and
edges come from an artifact's JSON; the tests compare the numbers with the papers' formulas.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import nn

from featherfit.config.columns import FtTransformerConfig
from featherfit.errors import ConfigError
from featherfit.models.layers import ACTIVATIONS, blocks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from featherfit.data.processors.table import TableSpec
    from featherfit.types import Batch

NAME = "ft_transformer"


class PiecewiseLinear(nn.Module):
    """Numbers to tokens: each has its own edges, weights and bias.

    A number x between the edges e_0 < ... < e_T becomes T numbers, of which the t-th is (x - e_{t-1}) / (e_t - e_{t-1}), cut
    to 0 and 1 (but for the first below, and the last above); then a linear layer and a ReLU, as the paper's Q-LR.
    """

    low: torch.Tensor
    width: torch.Tensor
    floor: torch.Tensor
    ceiling: torch.Tensor
    used: torch.Tensor

    def __init__(self, edges: Sequence[Sequence[float]], dim: int):
        """Builds the layer.

        Args:
            edges: Of each number, at least two, rising.
            dim: Width D of a token.
        """
        super().__init__()
        pieces = max((len(own) - 1 for own in edges), default=0)
        # Numbers of fewer pieces fill theirs up with pieces that are always 0.
        low, width = torch.zeros(len(edges), pieces), torch.ones(len(edges), pieces)
        floor, ceiling = torch.zeros(len(edges), pieces), torch.ones(len(edges), pieces)
        used = torch.zeros(len(edges), pieces)
        if not low.is_meta:
            for place, own in enumerate(edges):
                held = torch.tensor(own, dtype=torch.float64)
                low[place, : len(own) - 1], width[place, : len(own) - 1] = held[:-1], held.diff()
                floor[place, 0], ceiling[place, len(own) - 2] = -math.inf, math.inf
                used[place, : len(own) - 1] = 1.0
        for name, values in {"low": low, "width": width, "floor": floor, "ceiling": ceiling, "used": used}.items():
            self.register_buffer(name, values, persistent=False)
        bound = 1 / math.sqrt(max(1, pieces))
        self.weight = nn.Parameter(torch.empty(len(edges), pieces, dim).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(len(edges), dim).uniform_(-bound, bound))

    def forward(self, numbers: torch.Tensor) -> torch.Tensor:
        """(B, numbers) to (B, numbers, D)."""
        return torch.relu(torch.einsum("bnp,npd->bnd", self.pieces(numbers), self.weight) + self.bias)

    def pieces(self, numbers: torch.Tensor) -> torch.Tensor:
        """The code of numbers (B, numbers), (B, numbers, T)."""
        inside = (numbers.unsqueeze(-1) - self.low) / self.width
        return torch.minimum(torch.maximum(inside, self.floor), self.ceiling) * self.used


class TableEncoder(nn.Module):
    """Columns of categories and numbers to one vector a row.

    Attributes:
        out_dim: Width D of the vector.
    """

    offsets: torch.Tensor

    def __init__(self, spec: TableSpec, config: FtTransformerConfig, *, seed: int):
        """Builds it with random weights; torch's global generator is left alone.

        Args:
            spec: What the columns are.
            config: Sizes and dropouts.
            seed: Seed of the weights.

        Raises:
            ConfigError: Heads that do not divide the width.
        """
        super().__init__()
        self.out_dim = config.hidden_size or config.token_dim
        if self.out_dim % config.attention_num_heads:
            key = "token_dim" if config.hidden_size is None else "hidden_size"
            raise ConfigError(
                f"model.ft_transformer.attention_num_heads={config.attention_num_heads} does not divide "
                f"model.ft_transformer.{key}={self.out_dim}. Choose numbers that go into each other."
            )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._build(spec, config)

    def _build(self, spec: TableSpec, config: FtTransformerConfig) -> None:
        dim, columns = config.token_dim, len(spec.codes)
        bound = 1 / math.sqrt(dim)
        offsets = torch.tensor([sum(spec.codes[:place]) for place in range(columns)], dtype=torch.int64)
        self.register_buffer("offsets", offsets, persistent=False)
        self.categories = nn.Embedding(sum(spec.codes), dim) if columns else None
        if self.categories is not None:
            nn.init.uniform_(self.categories.weight, -bound, bound)
            self.category_bias = nn.Parameter(torch.empty(columns, dim).uniform_(-bound, bound))
        self.numbers = PiecewiseLinear(spec.edges, dim) if spec.edges else None
        self.row = nn.Parameter(torch.empty(dim).uniform_(-bound, bound)) if config.pooling_mode == "cls" else None
        self.adapter = nn.Identity() if self.out_dim == dim else nn.Linear(dim, self.out_dim)
        self.blocks = blocks(self.out_dim, config)
        self.norm = nn.LayerNorm(self.out_dim)
        self.activation = ACTIVATIONS[config.head_activation]

    def forward(self, batch: Batch) -> torch.Tensor:
        """One vector a row, (B, D) float32, also under autocast."""
        given = batch.parts[NAME]
        with torch.autocast(given["numbers"].device.type, enabled=False):
            x = self.adapter(self.tokens(given["categories"], given["numbers"]))
            for block in self.blocks:
                x = block(x)
            pooled = x[:, 0] if self.row is not None else x.mean(dim=1)
            return self.activation(self.norm(pooled))

    def tokens(self, categories: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        """A token for every column, (B, N, token_dim), behind one that stands for the row where that is pooled."""
        parts = [] if self.row is None else [self.row.expand(len(numbers), 1, -1)]
        if self.categories is not None:
            parts.append(self.categories(categories + self.offsets) + self.category_bias)
        if self.numbers is not None:
            parts.append(self.numbers(numbers))
        return torch.cat(parts, dim=1)
