"""A checkpoint goes in; a `MultiModalModel`, its encoder followed by a fresh head, comes out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from featherfit.models.backbone import build_backbone
from featherfit.models.heads import Head
from featherfit.models.quantized import BaseForm, extra_numbers
from featherfit.models.text import TextEncoder
from featherfit.types import ModelSize

if TYPE_CHECKING:
    from featherfit.checkpoints.resolve import Checkpoint
    from featherfit.types import Batch


class MultiModalModel(nn.Module):
    """An encoder and a head. Text is the only modality of this version."""

    def __init__(self, encoder: TextEncoder, head: Head):
        super().__init__()
        self.encoder = encoder
        self.head = head

    def embed(self, batch: Batch) -> torch.Tensor:
        """The pooled embedding of every row, (B, D) float32."""
        return self.encoder(batch)

    def forward(self, batch: Batch) -> torch.Tensor:
        """Logits (B, C) float32; for regression (B, 1), in the scaled units of the target."""
        return self.head(self.embed(batch))


def build_model(
    checkpoint: Checkpoint,
    *,
    outputs: int,
    pooling: str = "auto",
    seed: int,
    dtype: torch.dtype = torch.float32,
    attn: str | None = None,
    mapped: bool = False,
    form: BaseForm | None = None,
) -> MultiModalModel:
    """Loads the encoder and puts a new head on it.

    Args:
        checkpoint: The pretrained weights on disk.
        outputs: Number C of classes, or 1 for regression.
        pooling: `cls`, `mean`, `last`, or `auto`: what the checkpoint records, else the family's default.
        seed: Seed of the head's initial weight; nothing else here is random.
        dtype: Type of the encoder's matrices and states, see `build_backbone`. The head stays float32.
        attn: Attention implementation of `transformers`, or None for its choice.
        mapped: Leave large embedding tables in the file; they cannot train then.
        form: How the matrices of linear layers are kept, where that is not simply in `dtype`.

    Raises:
        CheckpointError: Weights are missing, unreadable or of an architecture that is no text encoder.
        ConfigError: A `form`, and no linear layer to keep so.
    """
    backbone = build_backbone(checkpoint, dtype=dtype, attn=attn, mapped=mapped, form=form)
    wanted = checkpoint.pooling if pooling == "auto" else pooling
    encoder = TextEncoder(backbone, pooling=wanted)
    return MultiModalModel(encoder, Head(encoder.out_dim, outputs, seed=seed))


def model_size(model: nn.Module) -> ModelSize:
    """Counts parameters, in all, trainable and per direct child of `model`; works on the meta device too.

    Megabytes are 1e6 bytes and count every parameter at its own element size, as AutoMM's `model_size` does. A weight that
    is kept as codes counts as the numbers it stands for, and as the memory of codes and scales. An adapter is a module whose
    class says `is_adapter = True` (see `adapters/base.py`).
    """

    def count(module: nn.Module) -> tuple[int, int]:
        sizes = [(parameter.numel(), parameter.requires_grad) for parameter in module.parameters()]
        return sum(size for size, trains in sizes if trains), sum(size for size, _ in sizes) + extra_numbers(module)[0]

    trainable, total = count(model)
    kept = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    return ModelSize(
        total=total,
        trainable=trainable,
        megabytes=(kept + extra_numbers(model)[1]) * 1e-6,
        adapters=sum(getattr(module, "is_adapter", False) for module in model.modules()),
        by_part={name: count(child) for name, child in model.named_children()},
    )
