"""An architecture and the lengths of a table's rows go in; what a forward and its backward pass take comes out.

Copies with one and with two layers run the project's own training step on two batches. What they take is linear in layers
and tokens, near enough, so four measurements give any depth and any batch; no architecture has a formula of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import numpy as np
import torch

from featherfit.data.batch import collate, training_batches
from featherfit.data.processors.text import TokenizedRows
from featherfit.memory import release_freed_memory
from featherfit.models.build import MultiModalModel
from featherfit.planning.copies import Architecture, small_copy, undisturbed
from featherfit.planning.counting import peak_of
from featherfit.training.loop import accumulate
from featherfit.types import Batch, ProblemType

_DEPTHS = (1, 2)
_MOST_TOKENS, _FEW_TOKENS = 1024, 256
_WIDE_LAYER = 30_000_000
"""Numbers in a layer from which on fewer tokens are run."""
_PATIENCE = 0.5
"""Seconds after which one measurement of time is not repeated."""
_REPEATS = 3


@dataclass(frozen=True)
class Grid:
    """Something measured at two depths and two numbers of tokens, and taken to be bilinear between and beyond.

    Attributes:
        tokens: Of the smaller and the larger batch; equal where the table allows for one size only.
        values: At depth 1 and 2 (rows), by the smaller and larger batch (columns).
    """

    tokens: tuple[int, int]
    values: tuple[tuple[float, float], tuple[float, float]]

    def at(self, layers: int, tokens: int) -> float:
        """The value at any depth and size, 0 at least."""
        few, many = (one + (layers - 1) * max(two - one, 0.0) for one, two in zip(*self.values, strict=True))
        low, high = self.tokens
        if low == high:
            return many * tokens / high
        return max(0.0, few + (many - few) * (tokens - low) / (high - low))


@dataclass(frozen=True)
class Calibration:
    """What forwards take beyond the model itself, by depth and tokens.

    Attributes:
        training: Bytes of a forward and its backward pass: activations, temporaries, the gradients of a matrix at a time.
        inference: Bytes of a forward without gradients.
        seconds: Of a forward with its backward pass.
        step_seconds: Of the optimiser, per parameter that trains.
    """

    training: Grid
    inference: Grid
    seconds: Grid
    step_seconds: float


def calibrate(
    architecture: Architecture,
    lengths: np.ndarray,
    *,
    problem_type: ProblemType,
    reorders: bool,
    padded: bool,
    layer_size: int,
) -> Calibration:
    """Measures small copies of a run's model.

    Args:
        architecture: Of the run; checkpointing and precision are its settings'.
        lengths: Tokens of a table's rows.
        problem_type: Decides the loss.
        reorders: Whether the whole model keeps reordered copies of its matrices.
        padded: Whether padding counts.
        layer_size: Parameters of a layer.

    Raises:
        ConfigError: Gradient checkpointing with an encoder that cannot do it.
    """
    most = _FEW_TOKENS if layer_size > _WIDE_LAYER else _MOST_TOKENS
    rows = architecture.config.env.batch_size
    batches = [
        _batch(heaviest(np.minimum(lengths, size), rows, size, padded), problem_type) for size in (most // 2, most)
    ]
    sizes = tuple(size_of(batch.attention_mask.sum(dim=1).numpy(), padded) for batch in batches)
    found = []
    for depth in _DEPTHS:
        model = small_copy(architecture, depth, reorders=reorders)
        with undisturbed():  # dropout draws
            found.append([_measure(model, batch, architecture, problem_type) for batch in batches])
        del model
        release_freed_memory()

    def grid(index: int) -> Grid:
        (a, b), (c, d) = ([cell[index] for cell in row] for row in found)
        return Grid((sizes[0], sizes[1]), ((a, b), (c, d)))

    return Calibration(grid(0), grid(1), grid(2), _step_seconds(architecture))


def heaviest(lengths: np.ndarray, batch_size: int, tokens: int, padded: bool) -> np.ndarray:
    """Lengths of the rows of the largest forward of an epoch, (rows,).

    Args:
        lengths: Tokens of all rows.
        batch_size: Rows per optimiser step.
        tokens: Most tokens of a forward; a longer row has one of its own.
        padded: Whether padding counts.
    """
    steps = training_batches(lengths, batch_size, tokens, padded=padded, seed=0, epoch=1)
    forwards = [lengths[rows] for step in steps for rows in step]
    return max(forwards, key=lambda forward: (size_of(forward, padded), forward.max()))


def size_of(lengths: np.ndarray, padded: bool) -> int:
    """Tokens a forward computes for rows of these lengths."""
    return int(lengths.max() * len(lengths) if padded else lengths.sum())


def _batch(lengths: np.ndarray, problem_type: ProblemType) -> Batch:
    """Rows of random words of these lengths."""
    draw = np.random.default_rng(0)
    ids = [draw.integers(5, 48, int(length), dtype=np.int32) for length in lengths]
    labels = np.zeros(len(ids), dtype=np.float32 if problem_type == "regression" else np.int64)
    return collate(TokenizedRows(ids, None, np.asarray(lengths, dtype=np.int64), 0), np.arange(len(ids)), 0, labels)


def _measure(
    model: MultiModalModel, batch: Batch, architecture: Architecture, problem_type: ProblemType
) -> tuple[float, float, float]:
    """Bytes in training, bytes at inference, seconds in training."""
    device = architecture.device
    accelerator = device.accelerator()
    smoothing = architecture.config.optim.label_smoothing
    on_device = batch.to(device.place)

    def train() -> None:
        model.train()
        with device.training_attention(model.encoder.backbone):
            accumulate(model, [batch], accelerator, problem_type, smoothing)

    def infer() -> None:
        model.eval()
        with device.inference():
            model(on_device)

    # A run keeps its gradients, which are counted by themselves; here each is dropped as soon as it is there.
    hooks = [
        parameter.register_post_accumulate_grad_hook(_drop_gradient)
        for parameter in model.parameters()
        if parameter.requires_grad
    ]
    train()  # the first pass compiles kernels and reorders matrices
    in_training = peak_of(train, device.place)
    seconds = _seconds(train, device.place)
    infer()
    at_inference = peak_of(infer, device.place)
    for hook in hooks:
        hook.remove()
    return in_training, at_inference, seconds


def _drop_gradient(parameter: torch.Tensor) -> None:
    parameter.grad = None


def _seconds(call: Callable[[], Any], place: torch.device) -> float:
    """Median time of a few calls; of one, where they are slow."""
    times: list[float] = []
    while len(times) < _REPEATS and sum(times) < _PATIENCE:
        started = time.perf_counter()
        call()
        if place.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return median(times)


def _step_seconds(architecture: Architecture) -> float:
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
