"""A Hugging Face image backbone goes in; a `VisionEncoder`, images to one vector a row, comes out."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from featherfit.checkpoints.families import Family
from featherfit.checkpoints.vision import vision_family_of
from featherfit.errors import ConfigError
from featherfit.memory import Tidier
from featherfit.models.generic import generic_vision_family
from featherfit.models.recompute import recompute, turn_off_dropout

if TYPE_CHECKING:
    from featherfit.types import Batch

PART = "timm_image"
"""Name of the encoder, and of what it reads of a batch."""

POOLINGS = ("pooler", "cls", "mean")

_DRAWN_POSITIONS = ("pos_embed_shift", "pos_embed_jitter", "pos_embed_rescale")
"""Settings of DINOv3 by which its positions are changed at random, for all rows of a batch, while it trains."""

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.SyncBatchNorm)


class VisionEncoder(nn.Module):
    """Images to one vector a row.

    Batch norms keep the statistics of pretraining whatever trains, so that a row's vector does not depend on the rows
    beside it.

    Attributes:
        backbone: The image model, without a classifier.
        family: Names inside the backbone.
        pooling: How a model's output becomes one vector: by its own `pooler`, the `cls` token, or the `mean`.
        out_dim: Width D of the vector.
        missing: The vector (D,) of a row without images, which trains; None for a vector of zeros.
    """

    def __init__(self, backbone: nn.Module, *, pooling: str = "auto", learnable_missing: bool = False):
        """Wraps a backbone.

        Args:
            backbone: A model of `build_backbone(..., images=True)`.
            pooling: One of `POOLINGS`, or `auto` for what suits the family.
            learnable_missing: Learn the vector of rows without images.

        Raises:
            CheckpointError: An architecture without a list of layers.
            ConfigError: A pooling that the model cannot give.
        """
        super().__init__()
        self.backbone = backbone
        self.family: Family = _family(backbone)
        self.pooling = ("pooler" if self.family.pooler else self.family.pooling) if pooling == "auto" else pooling
        if pooling == "cls" and not self.family.query:
            raise ConfigError(
                f"model.timm_image.pooling_mode='cls': {self.model_type!r} has no such token. Give 'mean' or 'auto'."
            )
        self.out_dim: int = self._width()
        self._settings = _any_size(backbone)
        self.missing = nn.Parameter(torch.zeros(self.out_dim)) if learnable_missing else None

    @property
    def model_type(self) -> str:
        """The architecture, in the words of transformers."""
        return self.backbone.config.model_type  # type: ignore[union-attr, return-value]

    def forward(self, batch: Batch) -> torch.Tensor:
        """(B, D) float32: the mean over a row's images; of rows without any, `missing` or zeros."""
        part = batch.parts[PART]
        return self.rows(part["pixels"], part["image_rows"], len(batch))

    def rows(self, pixels: torch.Tensor, image_rows: torch.Tensor, count: int) -> torch.Tensor:
        """Vectors of rows.

        Args:
            pixels: (N, 3, H, W) float32.
            image_rows: Row of each image, (N,) int64.
            count: Rows B.
        """
        sums = torch.zeros(count, self.out_dim, device=pixels.device)
        images = torch.zeros(count, device=pixels.device)
        if len(pixels):
            sums = sums.index_add(0, image_rows, self.vectors(pixels))
            images = images.index_add(0, image_rows, torch.ones(len(pixels), device=pixels.device))
        vectors = sums / images.clamp(min=1).unsqueeze(1)
        if self.missing is None:
            return vectors
        return torch.where((images > 0).unsqueeze(1), vectors, self.missing.float())

    def vectors(self, pixels: torch.Tensor) -> torch.Tensor:
        """Images (N, 3, H, W) to vectors (N, D) float32."""
        if not self.family.query:  # convolutions, and linear layers over channels, are quickest so
            pixels = pixels.contiguous(memory_format=torch.channels_last)
        output = self.backbone(pixel_values=pixels, **self._settings)
        return _pooled(output, self.pooling).float()

    def layers(self) -> dict[str, nn.Module]:
        """The layers by their name in the backbone, from the input up."""
        return layers_at(self.backbone, self.family.layers)

    def layer_ids(self) -> dict[str, int]:
        """Depth of every parameter, by its name in this encoder, counted as for text.

        The norm after the layers, and the vector of missing images, are 0; the last of L layers is 1, the first is L. What
        stands between layers, such as what merges patches, counts to the layer before it; what stands before all, L + 1.
        """
        names = list(self.layers())
        final = self.family.final_norm
        depths, current = {}, len(names) + 1
        for name, _ in self.named_parameters():
            own = name.removeprefix("backbone.")
            inside = next((place for place, layer in enumerate(names) if own.startswith(f"{layer}.")), None)
            if inside is not None:
                current = len(names) - inside
            is_final = name == "missing" or (final is not None and own.startswith(f"{final}."))
            depths[name] = 0 if is_final else current
        return depths

    def disable_dropout(self) -> None:
        """Turns off every dropout of the backbone, and what else is random: stochastic depth, and positions that are drawn."""
        turn_off_dropout(self.backbone, "drop_prob")
        for name in _DRAWN_POSITIONS:
            if getattr(self.backbone.config, name, None) is not None:
                setattr(self.backbone.config, name, None)

    def enable_gradient_checkpointing(self, *, offload: bool = False) -> None:
        """Recomputes the activations of every layer in the backward pass; the same gradients.

        Args:
            offload: Keep the inputs of the layers in the host's memory, where the model is on another device.
        """
        tidy = Tidier()
        for layer in self.layers().values():
            recompute(layer, offload=offload, draws=True, tidy=tidy)

    def train(self, mode: bool = True) -> VisionEncoder:
        """As for every module, but batch norms stay as they are for prediction."""
        super().train(mode)
        for module in self.backbone.modules():
            if isinstance(module, _BATCH_NORMS):
                module.eval()
        return self

    def _width(self) -> int:
        """Width of what the pooling gives, which configs call by many names; nothing is computed."""
        config: Any = self.backbone.config
        if isinstance(width := getattr(config, "hidden_size", None), int):
            return width
        for name in ("hidden_dim", "num_features"):
            if isinstance(width := getattr(config, name, None), int):
                return width
        if getattr(config, "hidden_sizes", None):
            return int(config.hidden_sizes[-1])
        shapes = [
            module.weight.shape[0] for module in self.backbone.modules() if isinstance(module, nn.Conv2d | nn.Linear)
        ]
        return int(shapes[-1])


def layers_at(backbone: nn.Module, path: str) -> dict[str, nn.Module]:
    """The children of the modules that a `Family.layers` names, by their names, in order; empty if there are none."""
    found = {"": backbone}
    for part in path.split("."):
        found = {
            f"{name}.{own}" if name else own: child
            for name, module in found.items()
            for own, child in module.named_children()
            if part in ("*", own)
        }
    return {f"{name}.{own}": child for name, module in found.items() for own, child in module.named_children()}


def _family(backbone: nn.Module) -> Family:
    """As listed, if the layers are where this version of transformers has them."""
    listed = vision_family_of(backbone.config.model_type)  # type: ignore[union-attr, arg-type]
    if listed is not None and layers_at(backbone, listed.layers):
        return listed
    return generic_vision_family(backbone)  # type: ignore[arg-type]


def _any_size(backbone: nn.Module) -> dict[str, bool]:
    """Makes models with positions take images of another size than they were pretrained with."""
    takes_it = "interpolate_pos_encoding" in inspect.signature(backbone.forward).parameters
    return {"interpolate_pos_encoding": True} if takes_it else {}


def _pooled(output: Any, pooling: str) -> torch.Tensor:
    """(N, D) of a model's output."""
    if pooling == "pooler" and getattr(output, "pooler_output", None) is not None:
        return output.pooler_output.flatten(1)  # (N, D), or (N, D, 1, 1)
    states = output.last_hidden_state
    if states.dim() == 4:  # (N, D, H, W)
        return states.float().mean(dim=(2, 3))
    return states[:, 0] if pooling == "cls" else states.float().mean(dim=1)
