"""The layers of an encoder go in; a forward that ends before one of them, or begins at it, comes out.

What the layers beneath all that trains make of a row stays the same while a model trains. So it is computed once, and later
forwards begin with it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import nn

if TYPE_CHECKING:
    from featherfit.models.packing import Packing
    from featherfit.models.text import TextEncoder

T = TypeVar("T")


@dataclass(frozen=True)
class Entry:
    """Where forwards begin that are given states, and what layers of this model give.

    Attributes:
        layer: The lowest layer that is computed, from 0 at the input.
        beside: How many values a layer gives beside its states; None where it gives the states alone.
        runs_first: True where tensors are among them, the relative positions that T5's lowest layer makes for all others: it
            is computed all the same then.
    """

    layer: int
    beside: int | None
    runs_first: bool


def layers_beneath(encoder: TextEncoder) -> int:
    """How many layers lie beneath all that trains, one layer at least left out; 0 where embeddings train."""
    count = len(encoder.layers())
    ids = encoder.layer_ids()
    deepest = max((ids[name] for name, p in encoder.named_parameters() if p.requires_grad), default=0)
    return max(0, min(count - deepest, count - 1))


def run_below(layers: Sequence[nn.Module], layer: int, run: Callable[[], Any]) -> tuple[torch.Tensor, Entry]:
    """What enters a layer, of which nothing is computed any more, nor of those above.

    Args:
        layers: All layers, from the input up; each takes its states in the first place.
        layer: From 1.
        run: A forward.
    """
    entering: list[torch.Tensor] = []
    given: list[Any] = []
    hooks = (
        layers[layer - 1].register_forward_hook(lambda module, args, output: given.append(output)),
        layers[layer].register_forward_pre_hook(lambda module, args: entering.append(args[0])),
    )
    try:
        with _instead(layers[layer:], lambda *args, **named: given[-1]):
            run()
    finally:
        for hook in hooks:
            hook.remove()
    beside = None if isinstance(given[-1], torch.Tensor) else given[-1][1:]
    runs_first = any(isinstance(value, torch.Tensor) for value in beside or ())
    return entering[0], Entry(layer, None if beside is None else len(beside), runs_first)


def run_above(
    words: nn.Embedding, layers: Sequence[nn.Module], entry: Entry, states: torch.Tensor, run: Callable[[], T]
) -> T:
    """What a forward comes to that begins at a layer.

    Args:
        words: The table of token ids, in which nothing is looked up.
        layers: As for `run_below`.
        entry: What that gave.
        states: What enters the layer, as it takes it.
        run: A forward over the same rows.
    """
    below = list(layers[: entry.layer])
    given: list[Any] = []
    if entry.runs_first:
        hooks = [below.pop(0).register_forward_hook(lambda module, args, output: given.append(output))]
    else:
        hooks = []
        given.append(states if entry.beside is None else (states, *[None] * entry.beside))

    def begin(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        first.remove()  # a layer that is passed several times gets them once
        return (states, *args[1:])

    nothing = states.new_zeros(())
    first = layers[entry.layer].register_forward_pre_hook(begin)
    try:
        with (
            _instead([words], lambda ids: nothing.expand(*ids.shape, words.embedding_dim)),
            _instead(below, lambda *args, **named: given[-1]),
        ):
            return run()
    finally:
        for hook in (*hooks, first):
            hook.remove()


def in_layout(states: torch.Tensor, mask: torch.Tensor, packing: Packing | None) -> torch.Tensor:
    """States (N, D) of a batch's tokens, row after row, as layers take them: (1, T, D), or (B, L, D) with zeros for padding."""
    if packing is not None:
        return states[_numbers(mask)[packing.tokens]].unsqueeze(0)
    padded = states.new_zeros(*mask.shape, states.shape[-1])
    padded[mask.bool()] = states
    return padded


def row_after_row(states: torch.Tensor, mask: torch.Tensor, packing: Packing | None) -> torch.Tensor:
    """The inverse of `in_layout`."""
    if packing is None:
        return states[mask.bool()]
    rows = torch.empty_like(states[0, : packing.real])
    rows[_numbers(mask)[packing.tokens[: packing.real]]] = states[0, : packing.real]
    return rows


def _numbers(mask: torch.Tensor) -> torch.Tensor:
    """Number of every token of the batch among those that are no padding, (B * L,)."""
    return mask.flatten().cumsum(0) - 1


@contextlib.contextmanager
def _instead(layers: Sequence[nn.Module], forward: Callable[..., Any]) -> Iterator[None]:
    """A block in which layers do something else."""
    before = [(layer, layer.__dict__.get("forward")) for layer in layers]
    try:
        for layer in layers:
            layer.forward = forward  # type: ignore[method-assign]
        yield
    finally:
        for layer, own in before:
            del layer.forward
            if own is not None:  # as `recompute` gives a layer
                layer.forward = own  # type: ignore[method-assign]
