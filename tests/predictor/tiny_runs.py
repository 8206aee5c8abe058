"""Runs to plan: an `Architecture` of a tiny checkpoint on disk, or of a config alone."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from tiny_models import TINY

from featherfit.checkpoints import resolve_checkpoint
from featherfit.config.dotted import build_config
from featherfit.planning.copies import Architecture
from featherfit.training.device import Device

CPU32 = Device(torch.device("cpu"), "no")


def architecture_of(folder: Path, device: Device = CPU32, **flat: Any) -> Architecture:
    """Settings with `__` for the dot."""
    given = {name.replace("__", "."): value for name, value in flat.items()}
    config = build_config({"model.hf_text.checkpoint_name": str(folder), **given})
    return Architecture(config, resolve_checkpoint(str(folder)), 2, device)


def architecture_without_files(model_type: str) -> Architecture:
    """Full fine-tuning of a model that has no weights."""
    checkpoint: Any = SimpleNamespace(config=TINY[model_type], folder=None, pooling=None, model_type=model_type)
    return Architecture(build_config({"optim.peft": None}), checkpoint, 3, CPU32)
