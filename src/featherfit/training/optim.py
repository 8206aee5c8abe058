"""A model and `optim` settings go in; the optimiser and its learning-rate schedule come out.

Nothing here decides what trains: groups are made of the parameters that require a gradient.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from featherfit.adapters.apply import no_decay
from featherfit.config.schema import Config
from featherfit.models.build import TEXT, MultiModalModel
from featherfit.models.text import TextEncoder


def parameter_groups(model: MultiModalModel, config: Config) -> list[dict]:
    """Parameters that train, grouped by learning rate and weight decay.

    `layerwise_decay` multiplies the rate by `lr_decay` to the power of the depth: 0 for the head and the norm under it,
    1 for the last layer, L for the first, L + 1 for embeddings. `two_stages` multiplies the head's rate by `lr_mult`. What
    begins with random weights, such as the encoder of a table's columns and what joins encoders, goes with the head.
    """
    rate, optim = config.learning_rate(), config.optim
    depths = {
        f"{place}.{name}": depth
        for place, encoder in _places(model).items()
        for name, depth in encoder.layer_ids().items()
    }
    undecayed = no_decay(model)
    groups: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        factor = 1.0
        if optim.lr_choice == "layerwise_decay":
            factor = optim.lr_decay ** depths.get(name, 0)
        elif optim.lr_choice == "two_stages" and name not in depths:
            factor = optim.lr_mult
        decay = 0.0 if name in undecayed else optim.weight_decay
        groups.setdefault((rate * factor, decay), []).append(parameter)
    return [
        {"params": parameters, "lr": group_rate, "weight_decay": decay}
        for (group_rate, decay), parameters in groups.items()
    ]


def _places(model: MultiModalModel) -> dict[str, TextEncoder]:
    """The pretrained encoders by their path in the model."""
    return {"encoder" if name == TEXT else f"others.{name}": encoder for name, encoder in model.pretrained().items()}


def build_optimizer(model: MultiModalModel, config: Config) -> torch.optim.Optimizer:
    """The optimiser of `optim.optim_type`, with AutoMM's constants."""
    groups = parameter_groups(model, config)
    if config.optim.optim_type == "sgd":
        return torch.optim.SGD(groups, momentum=0.9, fused=True)
    kind = torch.optim.AdamW if config.optim.optim_type == "adamw" else torch.optim.Adam
    return kind(groups, eps=1e-6, betas=(0.9, 0.999), fused=True)


def warmup_steps(wanted: int | float, total_steps: int) -> int:
    """Steps of warm-up: an int as it is, a float as a share of all steps; always leaves one step at the full rate."""
    steps = wanted if isinstance(wanted, int) else round(wanted * total_steps)
    return min(int(steps), total_steps - 1)


def schedule(shape: str, total_steps: int, warmup: int, end: float) -> Callable[[int], float]:
    """Factor of the learning rate at step 0, 1, ..., total_steps - 1.

    Rises in equal parts over the warm-up, is 1 at the step after it and `end` at the last step.

    Args:
        shape: `cosine_decay`, `linear_decay`, `polynomial_decay` (AutoMM's power is 1, so a line too) or `constant`.
        total_steps: Optimiser steps planned, at least 1.
        warmup: Steps of warm-up, fewer than `total_steps`.
        end: `end_lr / lr`.
    """

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        progress = min(1.0, (step - warmup) / max(1, total_steps - 1 - warmup))
        if shape == "constant":
            return 1.0
        left = 0.5 * (1 + math.cos(math.pi * progress)) if shape == "cosine_decay" else 1 - progress
        return end + (1 - end) * left

    return factor
