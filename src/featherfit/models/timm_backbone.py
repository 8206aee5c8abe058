"""A checkpoint of timm's goes in; its model, called as one of transformers is, comes out. Needs the extra `timm`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from featherfit.checkpoints.layout import TIMM, weight_files
from featherfit.errors import CheckpointError, MissingDependencyError


@dataclass(frozen=True)
class Pooled:
    """What a model of timm's gives without its classifier: a vector for each image, (N, D)."""

    pooler_output: torch.Tensor


class TimmBackbone(nn.Module):
    """A model of timm's under the names that models of transformers have.

    Attributes:
        model: The model, without a classifier.
        config: Its `model_type` and width.
    """

    main_input_name = "pixel_values"

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model
        width = getattr(model, "head_hidden_size", None) or model.num_features
        self.config = SimpleNamespace(model_type=TIMM, hidden_size=int(width))  # type: ignore[arg-type]

    def forward(self, pixel_values: torch.Tensor) -> Pooled:
        """Images (N, 3, H, W) to vectors (N, D)."""
        return Pooled(self.model(pixel_values).flatten(1))


def timm_model(config: dict[str, Any]) -> TimmBackbone:
    """The architecture of a timm `config.json`, with random weights.

    Raises:
        MissingDependencyError: timm is not installed.
        CheckpointError: An architecture that this version of timm does not have, or one with arguments of its own.
    """
    try:
        import timm
    except ImportError:
        raise MissingDependencyError('Checkpoints of timm need timm: pip install "featherfit[timm]"') from None
    name = config.get("architecture")
    if not isinstance(name, str) or not timm.is_model(name):  # any other name could be one on the hub
        raise CheckpointError(f"The config's architecture {name!r} is none of timm {timm.__version__}.")
    if config.get("model_args"):
        raise CheckpointError(
            f"The config of {name!r} has arguments of its own ({config['model_args']}), which is not offered."
        )
    return TimmBackbone(timm.create_model(name, pretrained=False, num_classes=0))


def load_timm(config: dict[str, Any], folder: Path) -> TimmBackbone:
    """The same with the weights in a folder, in evaluation mode.

    Raises:
        CheckpointError: Weights that are missing, no safetensors, or of another model.
    """
    from safetensors.torch import load_file

    backbone = timm_model(config)
    files = weight_files(folder)
    if not files or any(not name.endswith(".safetensors") for name in files):
        raise CheckpointError(f"{folder} has no safetensors, and others are not read for models of timm.")
    state = {name: tensor.float() for file in files for name, tensor in load_file(folder / file).items()}
    missing = backbone.model.load_state_dict(state, strict=False).missing_keys
    if missing:
        raise CheckpointError(
            f"The weights in {folder} lack {len(missing)} tensors that the model needs: {missing[:8]}."
        )
    return backbone.eval()
