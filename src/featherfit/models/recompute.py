"""A transformer layer goes in; the same layer, which keeps its input alone for the backward pass, comes out.

What the layer computes in between is computed again when the backward pass gets there (Chen et al., arXiv 1604.06174), and
the input may wait in the host's memory meanwhile.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from featherfit.memory import Tidier

DROPOUT_RATES = ("dropout", "attention_dropout", "dropout_prob", "dropout_rate")
"""Attributes in which modules of `transformers` keep a rate of dropout as a plain number."""


def recompute(layer: nn.Module, *, offload: bool, draws: bool, tidy: Tidier) -> None:
    """Makes a layer recompute its activations in the backward pass, in place; without gradients nothing changes.

    Gradients and outputs are the same. The states, the layer's first positional argument, need not require a gradient.

    Args:
        layer: Called with its input states in the first place, as all layers of `transformers` are.
        offload: Keep the states in the host's memory, where they are on another device.
        draws: The layer takes random numbers while it trains, and has to take the same ones again.
        tidy: Shared by all layers of a model, called whenever one begins on a CPU.
    """
    # A partial, unlike a closure, is copied along with the layer; the class's own forward makes doing this twice harmless.
    layer.forward = partial(_recomputed, layer, offload, draws, tidy)  # type: ignore[method-assign]


def turn_off_dropout(model: nn.Module, *more: str) -> None:
    """Turns off every dropout of a model, also where a module keeps its rate as a plain number.

    Args:
        model: Changed in place.
        more: Attributes with rates of what else is random, beside `DROPOUT_RATES`.
    """
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name in (*DROPOUT_RATES, *more):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)


def has_dropout(module: nn.Module, apart: Collection[int] = ()) -> bool:
    """Whether a dropout of the module or one inside it has a rate above 0; those whose `id` is in `apart` do not count."""
    return any(
        (isinstance(part, nn.Dropout) and part.p > 0)
        or any(isinstance(rate := getattr(part, name, None), float) and rate > 0 for name in DROPOUT_RATES)
        for part in module.modules()
        if id(part) not in apart
    )


def _recomputed(layer: nn.Module, offload: bool, draws: bool, tidy: Tidier, *args: Any, **kwargs: Any) -> Any:
    states, *others = args

    def run(states: torch.Tensor) -> Any:
        if _is_host(states.device):
            tidy()  # before: recomputing ends with the last tensor that is asked for, not with the layer
        return type(layer).forward(layer, states, *others, **kwargs)

    if not torch.is_grad_enabled():
        return run(states)
    # `checkpoint` sees the states alone: masks and tables of positions are shared by all layers and stay where they are.
    with _on_host() if offload and not _is_host(states.device) else contextlib.nullcontext():
        return checkpoint(run, states, use_reentrant=False, preserve_rng_state=draws and layer.training)


def _on_host() -> contextlib.AbstractContextManager[Any]:
    return torch.autograd.graph.save_on_cpu(pin_memory=True)


def _is_host(device: torch.device) -> bool:
    return device.type == "cpu"
