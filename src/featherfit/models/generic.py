"""A backbone of an unknown architecture goes in; a `Family` worked out from its modules comes out."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from torch import nn

from featherfit.checkpoints.families import AUTOMM_FILTER, FAMILIES, Family
from featherfit.checkpoints.vision import VISION_FAMILIES
from featherfit.errors import CheckpointError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

KNOWN_TYPES = "Known model types: " + ", ".join(name for family in FAMILIES for name in family.model_types) + "."
KNOWN_IMAGE_TYPES = (
    "Known model types: " + ", ".join(name for family in VISION_FAMILIES for name in family.model_types) + "."
)


def generic_family(backbone: PreTrainedModel) -> Family:
    """A family for an architecture we do not list.

    The layers are the outermost module list with as many entries as the config says there are layers. The target set
    `all-linear` works, `automm` selects what AutoMM's default filter would inside the layers, the other sets are empty.

    Raises:
        CheckpointError: There is no such list, or more than one, or the model does not read token ids.
    """
    config = backbone.config
    count = getattr(config, "num_hidden_layers", None)
    stacks = [
        name for name, module in backbone.named_modules() if isinstance(module, nn.ModuleList) and len(module) == count
    ]
    depth = min((name.count(".") for name in stacks), default=0)
    outermost = [name for name in stacks if name.count(".") == depth]
    if getattr(backbone, "main_input_name", None) != "input_ids" or not hasattr(config, "hidden_size"):
        raise CheckpointError(f"{type(backbone).__name__} ({config.model_type!r}) is no text encoder. {KNOWN_TYPES}")
    if len(outermost) != 1:
        raise CheckpointError(
            f"{type(backbone).__name__} ({config.model_type!r}) cannot be taken apart: it has {len(outermost)} stacks of "
            f"{count} layers instead of one. {KNOWN_TYPES}"
        )
    layers = outermost[0]
    return _unlisted(backbone, layers, _automm_targets(backbone.get_submodule(layers)))


def generic_vision_family(backbone: PreTrainedModel) -> Family:
    """A family for an image model we do not list, or whose layers are not where we know them to be.

    The layers are the entries of the outermost list of modules, or sequence of them, with most parameters. The target set
    `all-linear` works; `automm` selects what AutoMM's default filter would inside the layers, or a joint projection called
    `qkv`, or else all linear layers; the other sets are empty.

    Raises:
        CheckpointError: There is no list of modules.
    """
    stacks = {
        name: sum(parameter.numel() for parameter in module.parameters())
        for name, module in backbone.named_modules()
        if isinstance(module, nn.ModuleList | nn.Sequential) and len(module) > 1
    }
    if not stacks:
        raise CheckpointError(
            f"{type(backbone).__name__} ({backbone.config.model_type!r}) cannot be taken apart: it has no list of layers. "
            f"{KNOWN_IMAGE_TYPES}"
        )
    most = max(stacks.values())
    layers = min((name for name, size in stacks.items() if size == most), key=lambda name: name.count("."))
    stack = backbone.get_submodule(layers)
    linears = [
        name for layer in stack.children() for name, module in layer.named_modules() if isinstance(module, nn.Linear)
    ]
    joint = [name for name in linears if name.rpartition(".")[2] == "qkv"]
    targets = _automm_targets(stack) or tuple(dict.fromkeys(joint or linears))
    return replace(_unlisted(backbone, layers, targets), pooler=True)


def _unlisted(backbone: PreTrainedModel, layers: str, automm: tuple[str, ...]) -> Family:
    """A family of which only the layers are known, and which of their linears AutoMM would choose."""
    return Family(
        model_types=(backbone.config.model_type,),
        layers=layers,
        query="",
        key="",
        value="",
        out="",
        up=(),
        down="",
        automm=automm,
        pooling="mean",
        final_norm=_norm_after(backbone, layers),
    )


def _automm_targets(stack: nn.Module) -> tuple[str, ...]:
    """Linears, relative to a layer, whose own name AutoMM's default filter matches."""
    found = {
        name: None
        for layer in stack.children()
        for name, module in layer.named_modules()
        if isinstance(module, nn.Linear)
        and any(re.match(pattern, name.rpartition(".")[2]) for pattern in AUTOMM_FILTER)
    }
    return tuple(found)


def _norm_after(backbone: nn.Module, layers: str) -> str | None:
    """The module registered after the layers, beside them, that holds vectors only; None unless there is just one."""
    parent, _, own = layers.rpartition(".")
    beside = list(backbone.get_submodule(parent).named_children())
    after = beside[[name for name, _ in beside].index(own) + 1 :]
    norms = []
    for name, module in after:
        parameters = list(module.parameters())
        if parameters and all(parameter.dim() == 1 for parameter in parameters):
            norms.append(f"{parent}.{name}" if parent else name)
    return norms[0] if len(norms) == 1 else None
