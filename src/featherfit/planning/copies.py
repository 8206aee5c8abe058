"""Settings and a checkpoint's config go in; models of the run's architecture come out, without its weights.

One has every layer and no memory at all (the meta device): its parameters are counted. Others have two or three layers of the
real width, and random weights: they are run, and what that takes says what every further layer takes.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from featherfit.artifact.fitted import build_others, form_of_weights, prepare
from featherfit.checkpoints import Checkpoint
from featherfit.config.schema import Config
from featherfit.data.parts import PartProcessor, PartRows
from featherfit.models.backbone import build_backbone_from_config, convert, stored_dtype
from featherfit.models.build import MultiModalModel, assemble
from featherfit.models.linear import FrozenLinear
from featherfit.models.text import TextEncoder
from featherfit.training.device import Device

VOCABULARY = 4096
"""Most rows of the copies' embedding tables; what the rest takes follows from the size of the real ones."""

LARGE = 1 << 28
"""Bytes of weights from which on a copy's matrices share their memory."""

_META = torch.device("meta")


@dataclass(frozen=True)
class Architecture:
    """What a run's models are built from.

    Attributes:
        config: Settings of the run.
        checkpoint: The text encoder's config and where its weights lie; None where no text is read.
        outputs: Width of the head.
        device: Where the run computes.
        parts, further: Processors and checkpoints of the other encoders, by their name.
        examples: What those read of some training rows.
    """

    config: Config
    checkpoint: Checkpoint | None
    outputs: int
    device: Device
    parts: Mapping[str, PartProcessor] = field(default_factory=dict)
    further: Mapping[str, Checkpoint] = field(default_factory=dict)
    examples: Mapping[str, PartRows] = field(default_factory=dict)

    @property
    def checkpoints(self) -> list[Checkpoint]:
        """All pretrained weights."""
        return [*([] if self.checkpoint is None else [self.checkpoint]), *self.further.values()]

    @property
    def cost(self) -> int:
        """Tokens that the other encoders take of a row's forward."""
        return round(sum(float(rows.lengths.mean()) for rows in self.examples.values()))


def whole_model(architecture: Architecture) -> MultiModalModel:
    """The run's model on the meta device: every parameter with its type and whether it trains, and no numbers.

    Raises:
        CheckpointError: The config describes no text encoder.
        TargetError: The adapters' targets do not fit it.
        ConfigError: Gradient checkpointing with an encoder that cannot do it.
    """
    checkpoint, backbone = architecture.checkpoint, None
    with undisturbed():
        if checkpoint is not None:
            stored = stored_dtype(checkpoint.folder) or torch.float32
            backbone = build_backbone_from_config(checkpoint.config, dtype=stored, device=_META)
        return _prepared(backbone, architecture, _META)


def small_copy(architecture: Architecture, layers: int, *, reorders: bool) -> MultiModalModel:
    """The run's model with so many layers and a small vocabulary, and random weights.

    Its matrices share one piece of memory where they are large, so that a copy of any model takes a few hundred MB.

    Args:
        architecture: Of the run. Expressions that name parameters of single layers, which the copy may not have, are
            left out, and adapters are in all of its layers.
        layers: Number of layers.
        reorders: Whether the whole model keeps reordered copies of its matrices.
    """
    from accelerate import init_empty_weights

    small = replace(architecture, config=_without_names(architecture.config))
    # Read from a file, matrices would be converted to this type one by one; here they are made in it.
    form = form_of_weights(architecture.config, architecture.device)
    dtype = torch.float32 if form["form"] is not None else form["dtype"]
    backbone = None
    with undisturbed():
        if architecture.checkpoint is not None:
            with init_empty_weights(include_buffers=False):
                backbone = build_backbone_from_config(cut_config(architecture.checkpoint.config, layers), dtype=dtype)
            fill(backbone)
        model = _prepared(backbone, small, architecture.device.place, as_run=architecture)
    for module in model.modules():
        if isinstance(module, FrozenLinear):
            module.reorders = reorders
    return model


def depth_of(model: MultiModalModel) -> int:
    """How many layers a token passes; more than there are where they are shared. Without text, copies are the whole model."""
    if model.encoder is None:
        return 1
    return int(model.encoder.backbone.config.num_hidden_layers)


def cut_config(config: dict[str, Any], layers: int) -> dict[str, Any]:
    """Contents of a `config.json` for the same architecture with fewer layers and words.

    Args:
        config: Of the checkpoint; left as it is.
        layers: Number of layers.
    """
    import transformers

    names = transformers.CONFIG_MAPPING[config["model_type"]].attribute_map
    cut = {**config, names.get("num_hidden_layers", "num_hidden_layers"): layers}
    if "num_hidden_layers" in config:
        cut["num_hidden_layers"] = layers
    if isinstance(config.get("layer_types"), list):
        cut["layer_types"] = config["layer_types"][:layers]
    words = names.get("vocab_size", "vocab_size")
    if isinstance(config.get(words), int):
        cut[words] = min(config[words], VOCABULARY)
        for name, value in config.items():
            if name.endswith("_token_id") and isinstance(value, int) and value >= cut[words]:
                cut[name] = cut[words] - 1
    return cut


def fill(backbone: nn.Module) -> None:
    """Gives parameters on the meta device small random numbers, in place; vectors become ones.

    Where all of them take `LARGE` bytes or more, matrices of one type are pieces of the same memory.
    """
    parameters = [parameter for parameter in backbone.parameters() if parameter.device.type == "meta"]
    shared = sum(parameter.nbytes for parameter in parameters) >= LARGE
    pools: dict[torch.dtype, torch.Tensor] = {}
    if shared:
        for parameter in parameters:
            pool = pools.get(parameter.dtype)
            if pool is None or pool.numel() < parameter.numel():
                pools[parameter.dtype] = _numbers(parameter.numel(), parameter.dtype)
    filled: dict[int, nn.Parameter] = {}
    for module in backbone.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if parameter.device.type != "meta":
                continue
            if id(parameter) not in filled:
                size, dtype = parameter.numel(), parameter.dtype
                flat = pools[dtype][:size] if shared else _numbers(size, dtype)
                data = torch.ones(parameter.shape, dtype=dtype) if parameter.dim() < 2 else flat.view(parameter.shape)
                filled[id(parameter)] = nn.Parameter(data, parameter.requires_grad)
            setattr(module, name, filled[id(parameter)])


def _numbers(size: int, dtype: torch.dtype) -> torch.Tensor:
    """Random numbers around 0, the same million over and over."""
    some = torch.randn(min(size, 1 << 20), generator=torch.Generator().manual_seed(0)).mul_(0.02).to(dtype)
    return some.repeat(-(-size // max(1, len(some))))[:size] if size > len(some) else some


def _prepared(
    backbone: Any, architecture: Architecture, place: torch.device, as_run: Architecture | None = None
) -> MultiModalModel:
    """A backbone with everything on it that the run's model has; types as the run's settings `as_run` want them."""
    encoder = None
    if backbone is not None and architecture.checkpoint is not None:
        form = form_of_weights((as_run or architecture).config, architecture.device)
        if form["dtype"] == torch.float32 and not form["mapped"] and form["form"] is None:
            backbone = backbone.to(torch.float32)
        else:
            convert(backbone, **form)
        pooling = architecture.config.model.hf_text.pooling_mode
        encoder = TextEncoder(backbone, pooling=architecture.checkpoint.pooling if pooling == "auto" else pooling)
    config, parts, further = architecture.config, architecture.parts, architecture.further
    with place if place.type == "meta" else contextlib.nullcontext():
        others = build_others(config, parts, further, seed=0, device=None, pretrained=False)
        model = assemble(encoder, others, config, outputs=architecture.outputs, seed=0)
    return prepare(model, config, 0, replace(architecture.device, place=place))


def _without_names(config: Config) -> Config:
    lora = replace(config.optim.lora, module_filter=None)
    return replace(config, optim=replace(config.optim, lora=lora, top_layers=None, extra_trainable_params=[]))


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """A block that warns of nothing, since the run itself will, and leaves torch's random numbers as they were."""
    with warnings.catch_warnings(), torch.random.fork_rng():
        warnings.simplefilter("ignore")
        yield
