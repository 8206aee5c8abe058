"""An architecture and the lengths of the rows of some forwards go in; what each takes, for any depth, comes out.

Copies with two and with three layers run the project's own training step on rows of these very lengths. What they take is
linear in the number of layers, so two measurements give any depth; no architecture has a formula of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import numpy as np
import torch

from featherfit.data.batch import collate
from featherfit.data.processors.text import TokenizedRows
from featherfit.models.build import MultiModalModel
from featherfit.planning.copies import Architecture, small_copy, undisturbed
from featherfit.planning.counting import peak_of
from featherfit.startup import older_objects_spared
from featherfit.training.loop import accumulate
from featherfit.training.losses import Objective
from featherfit.training.oom import give_memory_back
from featherfit.types import Batch

_DEPTHS = (2, 3)
_PATIENCE = 0.5
"""Seconds after which one measurement of time is not repeated."""
_REPEATS = 9
"""Most measurements of one time: calls of some ms are short beside what else a machine does in between."""


@dataclass(frozen=True)
class Line:
    """Something that is linear in the number of layers: its value for none, and for each of them."""

    start: float
    per_layer: float

    def at(self, layers: int) -> float:
        """The value for a model of this depth."""
        return self.start + self.per_layer * layers


@dataclass(frozen=True)
class Forward:
    """A forward to measure.

    Attributes:
        lengths: Tokens of its rows.
        training: Whether a backward pass follows; gradients of parameters do not count, but for one tensor's at a time.
        keeps_gradients: Whether they do count, as they come.
    """

    lengths: tuple[int, ...]
    training: bool
    keeps_gradients: bool = False


def memory_of(
    architecture: Architecture, forwards: Sequence[Forward], *, depth: int, reorders: bool, objective: Objective
) -> list[Line]:
    """Bytes that forwards take beyond the model itself: activations, temporaries, gradients on their way.

    Args:
        architecture: Of the run; checkpointing and precision are its settings'.
        forwards: What to run.
        depth: Layers of the run's model.
        reorders: Whether it keeps reordered copies of its matrices.
        objective: The loss.
    """

    def measure(model: MultiModalModel) -> list[float]:
        return [
            _warm_and(peak_of, _call(model, forward, architecture, objective), architecture) for forward in forwards
        ]

    return _lines(architecture, measure, depth=depth, reorders=reorders)


def run_once(architecture: Architecture, forwards: Sequence[Forward], *, reorders: bool, objective: Objective) -> None:
    """Runs forwards of a shallow copy, for what they leave behind in the process."""

    def run(model: MultiModalModel) -> list[float]:
        for forward in forwards:
            _call(model, forward, architecture, objective)()
        return []

    _lines(architecture, run, depth=1, reorders=reorders)


def seconds_of(
    architecture: Architecture, forward: Forward, *, depth: int, reorders: bool, objective: Objective
) -> Line:
    """Seconds of a forward; arguments as for `memory_of`."""

    def measure(model: MultiModalModel) -> list[float]:
        return [_warm_and(_seconds, _call(model, forward, architecture, objective), architecture)]

    return _lines(architecture, measure, depth=depth, reorders=reorders)[0]


def _lines(
    architecture: Architecture, measure: Callable[[MultiModalModel], list[float]], *, depth: int, reorders: bool
) -> list[Line]:
    """What `measure` finds, through two depths, or for the run's own if it is no deeper."""
    depths = _DEPTHS if depth > max(_DEPTHS) else (depth,)
    found = []
    for layers in depths:
        with older_objects_spared():
            model = small_copy(architecture, layers, reorders=reorders)
            with undisturbed():  # dropout draws
                found.append(measure(model))
            del model
            give_memory_back()  # a layer that recomputes refers to itself
    if len(found) == 1:
        return [Line(value, 0.0) for value in found[0]]
    lines = []
    for two, three in zip(*found, strict=True):
        per_layer = max(three - two, 0.0)
        lines.append(Line(two - _DEPTHS[0] * per_layer, per_layer))
    return lines


def _call(
    model: MultiModalModel, forward: Forward, architecture: Architecture, objective: Objective
) -> Callable[[], None]:
    """The forward as a function, with its backward pass if it has one."""
    device, batch = architecture.device, _batch(forward.lengths, architecture, objective)
    accelerator = device.accelerator()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]

    def infer() -> None:
        model.eval()
        with device.inference():
            model(batch.to(device.place))

    def train() -> None:
        model.train()
        # A run keeps its gradients; where they are counted by themselves, each is dropped as soon as it is there.
        dropping = [] if forward.keeps_gradients else trained
        hooks = [parameter.register_post_accumulate_grad_hook(_drop_gradient) for parameter in dropping]
        with device.training_attention(model):
            accumulate(model, [batch], accelerator, objective)
        for hook in hooks:
            hook.remove()
        for parameter in trained:
            parameter.grad = None

    return train if forward.training else infer


def _warm_and(measure: Callable[..., float], call: Callable[[], None], architecture: Architecture) -> float:
    call()  # the first pass makes kernels and reordered matrices
    return measure(call, architecture.device.place)


def _batch(lengths: Sequence[int], architecture: Architecture, objective: Objective) -> Batch:
    """Rows of random words that are of these lengths together with what other encoders read."""
    draw = np.random.default_rng(0)
    least = 0 if architecture.checkpoint is None else 1
    words = (
        np.maximum(np.asarray(lengths, dtype=np.int64) - architecture.cost, least) if least else np.zeros_like(lengths)
    )
    ids = [draw.integers(5, 48, length, dtype=np.int32) for length in words]
    labels = objective.blank_labels(len(ids)).numpy()
    batch = collate(TokenizedRows(ids, None, words, 0), np.arange(len(ids)), 0, labels)
    parts = {
        name: rows.tensors(np.arange(len(ids)) % len(rows.lengths)) for name, rows in architecture.examples.items()
    }
    return replace(batch, parts=parts)


def _drop_gradient(parameter: torch.Tensor) -> None:
    parameter.grad = None


def _seconds(call: Callable[[], Any], place: torch.device) -> float:
    """Median time of some calls; of one, where they are slow."""
    times: list[float] = []
    while len(times) < _REPEATS and sum(times) < _PATIENCE:
        started = time.perf_counter()
        call()
        if place.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return median(times)


def seconds_per_number(architecture: Architecture) -> float:
    """Seconds of the optimiser per parameter, on a million of them."""
    from torch.optim import AdamW

    parameter = torch.nn.Parameter(torch.zeros(1 << 20, device=architecture.device.place))
    parameter.grad = torch.ones_like(parameter)
    optimizer = AdamW([parameter], fused=True)
    optimizer.step()
    return _seconds(optimizer.step, architecture.device.place) / parameter.numel()


def with_checkpointing(architecture: Architecture, wanted: bool) -> Architecture:
    """The same run with activations recomputed, or not."""
    config = architecture.config
    hf_text = replace(config.model.hf_text, gradient_checkpointing=wanted)
    return replace(architecture, config=replace(config, model=replace(config.model, hf_text=hf_text)))
