"""Vectors of several encoders go in, by name; one vector (B, D) comes out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise

import torch
from torch import nn

from featherfit.config.columns import FusionMlpConfig, FusionTransformerConfig
from featherfit.config.schema import ModelConfig
from featherfit.errors import ConfigError
from featherfit.models.layers import ACTIVATIONS, blocks

LATE = "fusion_logits"
"""The fusion that joins no vectors: each encoder has a head, and their logits are averaged."""


class FusionMlp(nn.Module):
    """Vectors brought to one width, one after another, through layers of norm, product, activation and dropout.

    Attributes:
        out_dim: Width D of what comes out.
    """

    def __init__(self, widths: Mapping[str, int], config: FusionMlpConfig):
        """Args are the widths of the vectors by name, and sizes."""
        super().__init__()
        common = (
            {"max": max, "min": min}[config.adapt_in_features](widths.values()) if config.adapt_in_features else None
        )
        self.adapters = nn.ModuleDict(
            {name: nn.Linear(width, common) if common else nn.Identity() for name, width in widths.items()}
        )
        sizes = [common * len(widths) if common else sum(widths.values()), *config.hidden_sizes]
        self.norms = nn.ModuleList(nn.LayerNorm(size) for size in sizes[:-1])
        self.layers = nn.ModuleList(nn.Linear(size, after) for size, after in pairwise(sizes))
        self.activation, self.dropout = ACTIVATIONS[config.activation], nn.Dropout(config.dropout)
        self.out_dim = sizes[-1]

    def forward(self, vectors: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Vectors (B, D_name) by name to (B, D)."""
        x = torch.cat([adapter(vectors[name]) for name, adapter in self.adapters.items()], dim=1)
        for norm, layer in zip(self.norms, self.layers, strict=True):
            x = self.dropout(self.activation(layer(norm(x))))
        return x


class FusionTransformer(nn.Module):
    """Vectors as tokens, behind one of the fusion's own, whose state comes out.

    Attributes:
        out_dim: Width D of what comes out.
    """

    def __init__(self, widths: Mapping[str, int], config: FusionTransformerConfig):
        """Args are the widths of the vectors by name, and sizes.

        Raises:
            ConfigError: Heads that do not divide the width.
        """
        super().__init__()
        width = self.out_dim = config.hidden_size
        if width % config.attention_num_heads:
            raise ConfigError(
                f"model.fusion_transformer.attention_num_heads={config.attention_num_heads} does not divide "
                f"model.fusion_transformer.hidden_size={width}. Choose numbers that go into each other."
            )
        self.adapters = nn.ModuleDict({name: nn.Linear(own, width) for name, own in widths.items()})
        self.row = nn.Parameter(torch.empty(width).uniform_(-(width**-0.5), width**-0.5))
        self.blocks = blocks(width, config)
        self.norm, self.activation = nn.LayerNorm(width), ACTIVATIONS[config.head_activation]

    def forward(self, vectors: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Vectors (B, D_name) by name to (B, D)."""
        tokens = [adapter(vectors[name]) for name, adapter in self.adapters.items()]
        x = torch.stack([self.row.expand(len(tokens[0]), -1), *tokens], dim=1)
        for block in self.blocks:
            x = block(x)
        return self.activation(self.norm(x[:, 0]))


class LateFusion(nn.Module):
    """The vectors one after another, for whoever asks for an embedding; logits are averaged elsewhere.

    Attributes:
        out_dim: Width D of all of them together.
    """

    def __init__(self, widths: Mapping[str, int]):
        super().__init__()
        self.names, self.out_dim = list(widths), sum(widths.values())

    def forward(self, vectors: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Vectors (B, D_name) by name to (B, D)."""
        return torch.cat([vectors[name] for name in self.names], dim=1)


_BUILDERS: dict[str, Callable[[Mapping[str, int], ModelConfig], nn.Module]] = {
    "fusion_mlp": lambda widths, config: FusionMlp(widths, config.fusion_mlp),
    "fusion_transformer": lambda widths, config: FusionTransformer(widths, config.fusion_transformer),
    LATE: lambda widths, _: LateFusion(widths),
}


def build_fusion(name: str, widths: Mapping[str, int], config: ModelConfig, *, seed: int) -> nn.Module:
    """A fusion with random weights that depend on `seed` alone.

    Args:
        name: `fusion_mlp`, `fusion_transformer` or `fusion_logits`.
        widths: Of the encoders' vectors, by name, in their order.
        config: The fusion's block is read.
        seed: Seed of the weights.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _BUILDERS[name](widths, config)


def aux_weight(name: str | None, config: ModelConfig) -> float | None:
    """Weight of the loss of each encoder's own head; None where they have none."""
    if name == "fusion_mlp":
        return config.fusion_mlp.aux_loss_weight
    return config.fusion_transformer.aux_loss_weight if name == "fusion_transformer" else None


def left_out(vectors: Mapping[str, torch.Tensor], share: float) -> dict[str, torch.Tensor]:
    """The vectors, with some of a row's put to zero at random, each with probability `share`, but never all of a row.

    Draws from torch's global generator, as dropout does.
    """
    names, first = list(vectors), next(iter(vectors.values()))
    kept = torch.rand(len(first), len(names), device=first.device) >= share
    spared = torch.randint(len(names), (len(first),), device=first.device)
    none = ~kept.any(dim=1)
    kept[none, spared[none]] = True
    return {name: vectors[name] * kept[:, place : place + 1] for place, name in enumerate(names)}
