"""Encoders go in; a `MultiModalModel`, with what joins them and a fresh head, comes out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from featherfit.config.schema import FUSIONS, Config
from featherfit.models.backbone import build_backbone
from featherfit.models.fusion import LATE, LateFusion, aux_weight, build_fusion, left_out
from featherfit.models.heads import Head
from featherfit.models.quantized import BaseForm, extra_numbers
from featherfit.models.text import TextEncoder
from featherfit.types import ModelSize

if TYPE_CHECKING:
    from featherfit.checkpoints.resolve import Checkpoint
    from featherfit.types import Batch

TEXT = "hf_text"
"""Name of the text encoder."""


class MultiModalModel(nn.Module):
    """One encoder and a head; or several, what joins their vectors, and a head.

    Attributes:
        encoder: The text encoder; None where no text is read.
        others: The other encoders, by name. Each has `out_dim` and gives (B, out_dim) float32 for a `Batch`.
        fusion: What joins the vectors of several; None where there is one encoder.
        head: What makes logits of the embedding.
        heads: A head for each encoder, where logits are joined or encoders have losses of their own.
        order: Names of the encoders, in the order of `model.names`.
        modality_dropout: Share of the rows that lose a vector, each time, while training.
        aux_loss_weight: Weight of the loss of each of the `heads`; None where only the joint one counts.
    """

    encoder: TextEncoder | None
    head: Head

    def __init__(
        self,
        encoder: TextEncoder | None,
        head: Head | None = None,
        *,
        others: Mapping[str, nn.Module] | None = None,
        fusion: nn.Module | None = None,
        heads: Mapping[str, Head] | None = None,
        order: Sequence[str] = (TEXT,),
        modality_dropout: float = 0.0,
        aux_loss_weight: float | None = None,
    ):
        super().__init__()
        self.encoder = encoder
        if others:
            self.others = nn.ModuleDict(others)
        self.fusion = fusion
        if heads:
            self.heads = nn.ModuleDict(heads)
        if head is not None:
            self.head = head
        self.order = tuple(order)
        self.modality_dropout, self.aux_loss_weight = modality_dropout, aux_loss_weight

    def encoders(self) -> dict[str, nn.Module]:
        """All encoders by name, in the order of `model.names`."""
        others = dict(self.others.items()) if "others" in self._modules else {}
        return {name: self.encoder if name == TEXT else others[name] for name in self.order}  # type: ignore[misc]

    def pretrained(self) -> dict[str, TextEncoder]:
        """The encoders with pretrained weights, which adapters apply to, by name."""
        return {name: encoder for name, encoder in self.encoders().items() if hasattr(encoder, "backbone")}  # type: ignore[misc]

    def from_checkpoints(self) -> set[int]:
        """`id` of every parameter of an encoder with pretrained weights; the others begin with random ones."""
        return {id(parameter) for encoder in self.pretrained().values() for parameter in encoder.parameters()}

    @property
    def padded(self) -> bool:
        """Whether padding is computed, and so counts into the size of a forward."""
        return self.encoder is not None and not self.encoder.family.packs

    @property
    def outputs(self) -> int:
        """Number C of logits."""
        return self.probed()[0][0].out_features

    @property
    def out_dim(self) -> int:
        """Width D of an embedding."""
        joined = self.fusion if self.fusion is not None else next(iter(self.encoders().values()))
        return joined.out_dim  # type: ignore[return-value]

    def probed(self) -> list[tuple[nn.Linear, int]]:
        """The layers a linear probe can be put into, each with the place in an embedding where what it reads begins."""
        if "head" in self._modules:
            return [(self.head.linear, 0)]
        linears = [head.linear for head in self.own_heads().values()]
        return [(linear, sum(one.in_features for one in linears[:place])) for place, linear in enumerate(linears)]

    def own_heads(self) -> dict[str, Head]:
        """The heads of single encoders by name; none where only the joint vector has one."""
        return dict(self.heads.items()) if "heads" in self._modules else {}  # type: ignore[arg-type]

    @property
    def text(self) -> TextEncoder:
        """The text encoder of a model that has one."""
        assert self.encoder is not None
        return self.encoder

    def vectors(self, batch: Batch) -> dict[str, torch.Tensor]:
        """What every encoder makes of the rows, (B, D_name) float32 by name."""
        found = {name: encoder(batch) for name, encoder in self.encoders().items()}
        if batch.mix is not None:
            found = {name: own if name in batch.mix.done else batch.mix(own) for name, own in found.items()}
        drops = self.training and self.modality_dropout > 0 and len(found) > 1
        return left_out(found, self.modality_dropout) if drops else found

    def embed(self, batch: Batch) -> torch.Tensor:
        """The embedding of every row that the head works on, (B, D) float32."""
        return self._joined(self.vectors(batch))

    def forward(self, batch: Batch) -> torch.Tensor:
        """Logits (B, C) float32; for regression (B, 1), in the scaled units of the target."""
        return self.all_logits(batch)[0]

    def all_logits(self, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Logits (B, C) float32 of the model, and of the head of each encoder that has one, by its name."""
        vectors = self.vectors(batch)
        own = {name: head(vectors[name]) for name, head in self.own_heads().items()}
        if "head" not in self._modules:
            return torch.stack(list(own.values())).mean(dim=0), own
        return self.head(self._joined(vectors)), own

    def _joined(self, vectors: dict[str, torch.Tensor]) -> torch.Tensor:
        if self.fusion is None:
            return next(iter(vectors.values()))
        with torch.autocast(next(iter(vectors.values())).device.type, enabled=False):
            return self.fusion(vectors)


def assemble(
    encoder: TextEncoder | None, others: Mapping[str, nn.Module], config: Config, *, outputs: int, seed: int
) -> MultiModalModel:
    """Puts a fusion, where there are several encoders, and fresh heads on encoders.

    Args:
        encoder: The text encoder, if text is read.
        others: The other encoders, by name.
        config: `model` and `data.modality_dropout` are read.
        outputs: Number C of classes, or 1 for regression.
        seed: Seed of the new weights.
    """
    found: dict[str, Any] = {**({} if encoder is None else {TEXT: encoder}), **others}
    widths: dict[str, int] = {name: found[name].out_dim for name in config.model.names if name in found}
    order = list(widths)
    if len(order) == 1:
        return MultiModalModel(encoder, Head(widths[order[0]], outputs, seed=seed), others=others, order=order)
    joined = next(name for name in config.model.names if name in FUSIONS)
    fusion, weight = build_fusion(joined, widths, config.model, seed=seed), aux_weight(joined, config.model)
    own = joined == LATE or weight is not None
    heads = {name: Head(width, outputs, seed=seed + place) for place, (name, width) in enumerate(widths.items(), 1)}
    return MultiModalModel(
        encoder,
        None if joined == LATE else Head(fusion.out_dim, outputs, seed=seed),  # type: ignore[arg-type]
        others=others,
        fusion=fusion,
        heads=heads if own else None,
        order=order,
        modality_dropout=config.data.modality_dropout,
        aux_loss_weight=weight,
    )


def build_text_encoder(
    checkpoint: Checkpoint,
    *,
    pooling: str = "auto",
    dtype: torch.dtype = torch.float32,
    attn: str | None = None,
    mapped: bool = False,
    form: BaseForm | None = None,
) -> TextEncoder:
    """Loads a text encoder.

    Args:
        checkpoint: The pretrained weights on disk.
        pooling: `cls`, `mean`, `last`, or `auto`: what the checkpoint records, else the family's default.
        dtype: Type of the encoder's matrices and states, see `build_backbone`.
        attn: Attention implementation of `transformers`, or None for its choice.
        mapped: Leave large embedding tables in the file; they cannot train then.
        form: How the matrices of linear layers are kept, where that is not simply in `dtype`.

    Raises:
        CheckpointError: Weights are missing, unreadable or of an architecture that is no text encoder.
        ConfigError: A `form`, and no linear layer to keep so.
    """
    backbone = build_backbone(checkpoint, dtype=dtype, attn=attn, mapped=mapped, form=form)
    return TextEncoder(backbone, pooling=checkpoint.pooling if pooling == "auto" else pooling)


def build_model(checkpoint: Checkpoint, *, outputs: int, seed: int, **how: Any) -> MultiModalModel:
    """A text encoder with a new head on it.

    Args:
        checkpoint: The pretrained weights on disk.
        outputs: Number C of classes, or 1 for regression.
        seed: Seed of the head's initial weight; nothing else here is random. The head is float32.
        how: As for `build_text_encoder`.
    """
    encoder = build_text_encoder(checkpoint, **how)
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
        by_part={name: count(child) for name, child in _parts(model)},
    )


def _parts(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Direct children by name; those that only hold others are replaced by what they hold."""
    for name, child in model.named_children():
        if isinstance(child, LateFusion):
            continue
        if isinstance(child, nn.ModuleDict):
            yield from ((f"{own} head" if name == "heads" else own, inner) for own, inner in child.items())
        else:
            yield name, child
