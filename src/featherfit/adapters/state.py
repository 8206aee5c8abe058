"""What was trained, out of a model and back into one: by ownership (`requires_grad`), never by name patterns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import nn

from featherfit.errors import ArtifactError
from featherfit.storage import write_tensors


def trainable_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """A copy of every parameter that trains, by its name in `model`, on its own device.

    No method of this version trains through buffers, so parameters are all there is.
    """
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def save_trainable_state(model: nn.Module, file: Path) -> None:
    """Writes what `trainable_state` would give as safetensors.

    Raises:
        OSError: The system refused.
    """
    # Not a `trainable_state`: where a whole encoder trains, its copy could be what a fit needs most memory for.
    write_tensors(file, {name: p for name, p in model.named_parameters() if p.requires_grad})


def check_shapes(own: Mapping[str, Sequence[int]], stored: Mapping[str, Sequence[int]]) -> None:
    """Compares shapes by name, of what trains in a model and of what is to be put there.

    Raises:
        ArtifactError: Names or shapes differ; all differences are listed.
    """
    shapes = {
        name: f"{name} {tuple(stored[name])} instead of {tuple(own[name])}"
        for name in own.keys() & stored.keys()
        if tuple(stored[name]) != tuple(own[name])
    }
    problems = [
        f"{what}: {', '.join(sorted(names))}"
        for what, names in (
            ("missing", own.keys() - stored.keys()),
            ("unknown", stored.keys() - own.keys()),
            ("of another shape", shapes.values()),
        )
        if names
    ]
    if problems:
        raise ArtifactError(f"The trained weights do not fit this model. {'; '.join(problems)}.")


def load_trainable_state(model: nn.Module, state: dict[str, torch.Tensor]) -> None:
    """Puts a `trainable_state` into a model that trains exactly the same parameters.

    Raises:
        ArtifactError: Names or shapes differ; all differences are listed and nothing was changed.
    """
    own = {name: p for name, p in model.named_parameters() if p.requires_grad}
    check_shapes({name: p.shape for name, p in own.items()}, {name: tensor.shape for name, tensor in state.items()})
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(state[name])
