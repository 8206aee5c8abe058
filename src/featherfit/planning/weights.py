"""A run's model on the meta device goes in; what its parameters take in memory, part by part, comes out, in bytes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from featherfit.artifact.fitted import form_of_weights
from featherfit.models.backbone import READ_AT_ONCE, stored_dtype
from featherfit.models.build import MultiModalModel, model_size
from featherfit.models.linear import FrozenLinear, cpu_reorders
from featherfit.models.quantized import QuantizedLinear
from featherfit.models.tables import LARGE_TABLE, KeptRows, MappedEmbedding
from featherfit.planning.copies import Architecture

MATRICES, COPIES, TABLES, MAPPED, VECTORS = (
    "frozen matrices",
    "reordered copies",
    "embedding tables, converted",
    "embedding tables, pages of the file",
    "norms and biases",
)
"""Parts of what is frozen."""

_AROUND = 1 << 16
"""Bytes that Linux maps around a number that is read from a mapped file."""


@dataclass(frozen=True)
class Weights:
    """Bytes of a model's parameters.

    Attributes:
        frozen: By part, while training.
        trained: Of all that trains, float32.
        largest_table: Of the largest embedding table that trains, whose gradient is made anew in every backward pass.
        loaded: Of all parameters once the model is built, before copies are made.
        loading: What building takes for a moment on top of that.
        reorders: Whether reordered copies are kept.
        parameters, trainable: Their numbers.
        encoder: Numbers of the encoder as it is in its file, without adapters.
        tensors, names: How many tensors train, and the letters of their names.
    """

    frozen: dict[str, int]
    trained: int
    largest_table: int
    loaded: int
    loading: int
    reorders: bool
    parameters: int
    trainable: int
    encoder: int
    tensors: int
    names: int


def weights_of(model: MultiModalModel, architecture: Architecture) -> Weights:
    """Counts a model.

    Args:
        model: The run's, on the meta device.
        architecture: What it was made from.
    """
    device = architecture.device
    stored = None if architecture.checkpoint is None else stored_dtype(architecture.checkpoint.folder)
    form = form_of_weights(architecture.config, device)
    dtype, mapped = form["dtype"], form["mapped"]
    in_file = stored is not None and device.place.type == "cpu" and (mapped or stored == torch.float32)
    copies = _keeps_copies(model, architecture)
    frozen = dict.fromkeys((MATRICES, COPIES, TABLES, MAPPED, VECTORS), 0)
    counted: set[int] = set()
    largest_table = 0
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if id(parameter) in counted:
                continue
            counted.add(id(parameter))
            if parameter.requires_grad:
                if isinstance(module, nn.Embedding):
                    largest_table = max(largest_table, parameter.numel() * 4)
            elif isinstance(module, MappedEmbedding) and mapped and in_file and parameter.numel() > LARGE_TABLE:
                frozen[MAPPED] += KeptRows.most_bytes(parameter, module.dtype)
            elif isinstance(module, nn.Embedding):
                frozen[TABLES] += parameter.nbytes
            elif isinstance(module, FrozenLinear) and name == "weight" and copies:
                frozen[COPIES] += 2 * 2 * parameter.numel()  # forward and backward, two bytes a number
                frozen[MATRICES] += 0 if in_file else parameter.nbytes
            elif isinstance(module, QuantizedLinear) and name == "weight":
                frozen[MATRICES] += module.kept_bytes
            else:
                frozen[MATRICES if parameter.dim() > 1 else VECTORS] += parameter.nbytes
    parameters = list(model.parameters())
    named = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    trainable = sum(parameter.numel() for parameter in parameters if parameter.requires_grad)
    resident = sum(size for part, size in frozen.items() if part != COPIES)
    converts = stored is not None and stored != dtype and not copies
    return Weights(
        frozen={part: size for part, size in frozen.items() if size},
        trained=4 * trainable,
        largest_table=largest_table,
        loaded=resident + 4 * trainable,
        loading=min(READ_AT_ONCE, frozen[MATRICES]) if converts else 0,
        reorders=copies,
        parameters=model_size(model).total,
        trainable=trainable,
        encoder=model_size(model).total - _added(model),
        tensors=len(named),
        names=sum(map(len, named)),
    )


def _added(model: MultiModalModel) -> int:
    """Numbers of adapters, heads and whatever else begins with random weights."""
    adapters = [module.parameters(recurse=False) for module in model.modules() if getattr(module, "is_adapter", False)]
    pretrained = model.from_checkpoints()
    new = [parameter for parameter in model.parameters() if id(parameter) not in pretrained]
    return sum(p.numel() for some in (*adapters, new) for p in some)


def _keeps_copies(model: MultiModalModel, architecture: Architecture) -> bool:
    layers = [module for module in model.modules() if isinstance(module, FrozenLinear)]
    low = architecture.device.frozen_dtype == torch.bfloat16
    return bool(layers) and layers[0].reorders and low and architecture.device.place.type == "cpu" and cpu_reorders()
