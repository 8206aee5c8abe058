"""Settings and an encoder's config go in; whether an artifact's tensors are those of that model comes out, before any is allocated.

The model is built on the meta device, where parameters have shapes and no memory. What still could grow is the number of modules
itself, so that is bounded.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from featherfit.adapters.apply import apply_adapters
from featherfit.adapters.state import check_shapes
from featherfit.artifact.fitted import build_others
from featherfit.artifact.headers import TensorInfo
from featherfit.checkpoints import Checkpoint
from featherfit.config.schema import Config
from featherfit.data.parts import PartProcessor
from featherfit.errors import ArtifactError
from featherfit.models.backbone import build_backbone_from_config
from featherfit.models.build import assemble
from featherfit.models.text import TextEncoder

MOST_MODULES = 20_000
"""In an encoder; one of 126 layers and 400 billion parameters has 2,000."""


def check_tensors(
    config: Config,
    checkpoint: Checkpoint | None,
    parts: Mapping[str, PartProcessor],
    further: Mapping[str, Checkpoint],
    outputs: int,
    weights: dict[str, TensorInfo],
    base: dict[str, TensorInfo],
    inside: Mapping[str, dict[str, TensorInfo]],
) -> None:
    """Compares an artifact's tensors with the model they are to be put into.

    Args:
        config: All settings.
        checkpoint: Of the text encoder, whose config is read; None where no text is read.
        parts, further: Processors and checkpoints of the other encoders, by their name.
        outputs: Width of the head.
        weights: Tensors that were trained.
        base: Tensors of the text encoder inside the artifact; empty if there is none.
        inside: Tensors of the other encoders inside it, by their name.

    Raises:
        ArtifactError: Tensors are missing, unknown, of another shape or type, or too few for the encoder.
        FeatherfitError: A config or settings of which no model can be built.
    """
    with _nothing_allocated():
        encoder = None
        if checkpoint is not None:
            backbone = build_backbone_from_config(checkpoint.config, device="meta")
            encoder = TextEncoder(backbone, pooling=config.model.hf_text.pooling_mode)
        size = 0 if encoder is None else sum(parameter.numel() for parameter in encoder.parameters())
        with torch.device("meta"):
            others = build_others(config, parts, further, seed=0, device=None, pretrained=False)
            model = assemble(encoder, others, config, outputs=outputs, seed=0)
        sizes = {name: sum(p.numel() for p in one.backbone.parameters()) for name, one in model.pretrained().items()}
        apply_adapters(model, config.optim, seed=0)
    for name, tensors in inside.items():
        _compare_sizes(sum(tensor.numbers for tensor in tensors.values()), sizes.get(name, 0))
    held = sum(tensor.numbers for tensor in base.values())
    if base:
        _compare_sizes(held, size)
    own = {name: p.shape for name, p in model.named_parameters() if p.requires_grad}
    check_shapes(own, {name: tensor.shape for name, tensor in weights.items()})
    odd = sorted(name for name, tensor in weights.items() if tensor.dtype != "F32")
    if odd:
        raise ArtifactError(f"The trained weights have to be float32; {odd[0]} and {len(odd) - 1} more are not.")


def _compare_sizes(held: int, wanted: int) -> None:
    if wanted > held:
        raise ArtifactError(
            f"The encoder in the artifact has {held:,} numbers, but its config.json speaks of {wanted:,}."
        )


@contextlib.contextmanager
def _nothing_allocated() -> Iterator[None]:
    """A block in which a model may be built on the meta device: no warnings, no random numbers used up, no endless models."""
    count = iter(range(MOST_MODULES))

    def one_more(*_: Any) -> None:
        if next(count, None) is None:
            raise ArtifactError(f"The encoder's config.json speaks of more than {MOST_MODULES:,} modules.")

    handle = nn.modules.module.register_module_module_registration_hook(one_more)
    try:
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            warnings.simplefilter("ignore")
            yield
    except RuntimeError as error:  # torch's, for sizes that no tensor can have
        raise ArtifactError(f"The artifact's settings and config describe no model there could be: {error}") from error
    finally:
        handle.remove()
