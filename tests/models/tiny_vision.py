"""Random two-layer image models of every family we know, images to feed them, and their settings for images."""

from __future__ import annotations

import copy
import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from featherfit.models.backbone import build_backbone_from_config
from featherfit.models.build import MultiModalModel
from featherfit.models.heads import Head
from featherfit.models.pointwise import Pointwise
from featherfit.models.vision import VisionEncoder
from featherfit.types import Batch

SIDE = 32

_VIT: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "image_size": SIDE,
    "patch_size": 8,
}
_SWIN = {"image_size": SIDE, "patch_size": 4, "embed_dim": 8, "depths": [1, 1], "num_heads": [2, 2], "window_size": 4}
_STAGES = {"image_size": SIDE, "num_stages": 2, "hidden_sizes": [8, 16], "depths": [1, 1]}
_EFFICIENTNET = {
    "image_size": SIDE,
    "width_coefficient": 0.1,
    "hidden_dim": 128,
    "in_channels": [32],
    "out_channels": [32],
    "strides": [1],
    "num_block_repeats": [2],
    "expand_ratios": [6],
    "kernel_sizes": [3],
    "depthwise_padding": [],
    "depth_coefficient": 1.0,
    "dropout_rate": 0.0,
    "drop_connect_rate": 0.0,
}
_CLIP = {"vision_config": _VIT, "text_config": {**_VIT, "vocab_size": 20, "max_position_embeddings": 8}}

_OWN: dict[str, dict[str, Any]] = {
    "vit": _VIT,
    "deit": _VIT,
    "beit": {**_VIT, "use_relative_position_bias": False, "use_absolute_position_embeddings": True},
    "dinov2": {**_VIT, "mlp_ratio": 2},
    "dinov2_with_registers": {**_VIT, "mlp_ratio": 2},
    "dinov3_vit": _VIT,
    "swin": _SWIN,
    "swinv2": _SWIN,
    "clip": _CLIP,
    "siglip": _CLIP,
    "convnext": _STAGES,
    "convnextv2": _STAGES,
    "efficientnet": _EFFICIENTNET,
    "mobilenet_v1": {"image_size": SIDE, "depth_multiplier": 0.25, "min_depth": 8},
    "mobilenet_v2": {"image_size": SIDE, "depth_multiplier": 0.25, "min_depth": 8},
    "resnet": {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "bottleneck"},
}
TINY_VISION: dict[str, dict[str, Any]] = {name: {"model_type": name, **own} for name, own in _OWN.items()}
"""Contents of `config.json` by model type; the `_vision_model` types are what `clip` and `siglip` become."""

CONVOLUTIONS = ("convnext", "convnextv2", "efficientnet", "mobilenet_v1", "mobilenet_v2", "resnet")

PROCESSOR = {
    "image_processor_type": "BitImageProcessor",
    "do_convert_rgb": True,
    "do_resize": True,
    "size": {"shortest_edge": SIDE},
    "resample": 3,
    "do_center_crop": True,
    "crop_size": {"height": SIDE, "width": SIDE},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.25, 0.25, 0.25],
}
"""Contents of `preprocessor_config.json`."""


@functools.cache
def _pristine(model_type: str) -> torch.nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        backbone = build_backbone_from_config(TINY_VISION[model_type], images=True)
        for parameter in backbone.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
        _take_statistics(backbone)
    return backbone.eval()


@torch.no_grad()
def _take_statistics(backbone: torch.nn.Module) -> None:
    """Gives batch norms the statistics of random images, without which the signal would die away."""
    norms = [module for module in backbone.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    if norms:
        backbone.train()(pixel_values=torch.randn(8, 3, SIDE, SIDE))


def tiny_vision_backbone(model_type: str) -> torch.nn.Module:
    """A fresh copy of the random model of this type, always with the same numbers, in evaluation mode."""
    return copy.deepcopy(_pristine(model_type))


def save_tiny_vision(model_type: str, folder: Path) -> Path:
    """The same as a checkpoint as it would be published, its convolutions of one pixel as convolutions."""
    backbone = tiny_vision_backbone(model_type)
    pointwise = {name for name, module in backbone.named_modules() if isinstance(module, Pointwise)}
    state = {}
    for name, tensor in backbone.state_dict().items():
        module, _, own = name.rpartition(".linear.")
        if module in pointwise:
            name, tensor = f"{module}.{own}", tensor[:, :, None, None] if own == "weight" else tensor
        state[name] = tensor.contiguous()
    folder.mkdir(parents=True)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(TINY_VISION[model_type]))
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    return folder


def tiny_vision_model(model_type: str, *, outputs: int = 3, **settings: Any) -> MultiModalModel:
    """The same with a head on it."""
    encoder = VisionEncoder(tiny_vision_backbone(model_type), **settings)
    head = Head(encoder.out_dim, outputs, seed=0)
    return MultiModalModel(None, head, others={"timm_image": encoder}, order=("timm_image",)).eval()


def picture(seed: int, width: int = 40, height: int = 36) -> Image.Image:
    """A random image that is not all noise."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def image_batch() -> Batch:
    """Three rows: one image, two images, none."""
    pixels = torch.randn(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(2))
    part = {"pixels": pixels, "image_rows": torch.tensor([0, 1, 1])}
    nothing = torch.zeros(3, 0, dtype=torch.int64)
    return Batch(nothing, nothing, None, None, None, torch.arange(3), parts={"timm_image": part})
