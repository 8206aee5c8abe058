"""What the speed benchmarks share: a model ready to train, the machine's matrix rate, the work in tokens, medians."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from featherfit.artifact.fitted import prepare
from featherfit.checkpoints import resolve_checkpoint
from featherfit.config.dotted import build_config
from featherfit.config.schema import Config
from featherfit.data.batch import training_batches
from featherfit.data.dataset import Dataset, make_dataset
from featherfit.data.processors.label import LabelProcessor
from featherfit.data.processors.text import TextProcessor
from featherfit.data.schema import Schema, infer_schema
from featherfit.evaluation.outputs import model_outputs
from featherfit.models.backbone import build_backbone_from_config
from featherfit.models.build import MultiModalModel, build_model
from featherfit.models.heads import Head
from featherfit.models.linear import FrozenLinear
from featherfit.models.text import TextEncoder
from featherfit.training.device import Device, pick_device
from featherfit.training.loop import make_plan, train
from featherfit.training.losses import objective_of
from featherfit.types import StepReport

E5_SMALL = "intfloat/multilingual-e5-small"
TUTORIAL = {
    "optim.peft": "ia3_bias",
    "optim.lr": 3e-3,
    "optim.end_lr": 3e-3,
    "optim.lr_decay": 0.9,
    "optim.warmup_steps": 0,
    "optim.max_epochs": 1000,
    "optim.val_check_interval": 1e9,
    "optim.skip_final_val": True,
}
"""What is trained and how, as in AutoMM's tutorial on parameter-efficient fine-tuning; never validated."""

WARM_STEPS = 2
"""Steps that are not measured: kernels are compiled and weights reordered in them."""

DTYPES = {"bf16": torch.bfloat16, "no": torch.float32}


@dataclass(frozen=True)
class Setup:
    """A model before training, and what turns tables into its datasets."""

    config: Config
    schema: Schema
    text: TextProcessor
    label: LabelProcessor
    model: MultiModalModel
    device: Device

    @property
    def dtype(self) -> torch.dtype:
        """Type of the matrix products."""
        return DTYPES[self.device.precision]

    def dataset(self, frame: pd.DataFrame) -> Dataset:
        """The rows of a table with the column `text` and perhaps `label`."""
        return make_dataset(frame, self.schema, self.text, self.label if "label" in frame else None)

    def steps(self, dataset: Dataset) -> Iterator[StepReport]:
        """Training, one report a step, without end."""
        return train(
            self.model,
            dataset,
            make_plan(len(dataset), self.config),
            self.config,
            objective=objective_of(self.label, self.config.optim),
            pad_id=self.text.pad_id,
            longest=dataset.longest(self.text.max_len),
            device=self.device,
            evaluate=lambda: 0.0,
            seed=0,
        )

    def rows_of_steps(self, dataset: Dataset) -> Iterator[np.ndarray]:
        """The positions of every step's rows, in the order `steps` takes them."""
        rows = self.config.rows_per_step(len(dataset))
        for epoch in range(self.config.optim.max_epochs):
            batches = training_batches(dataset.rows.lengths, rows, 1, padded=False, seed=0, epoch=epoch)
            yield from (np.concatenate(step) for step in batches)

    def predict(self, dataset: Dataset) -> np.ndarray:
        """Logits of all rows."""
        tokens = self.device.tokens_per_forward(self.config, dataset.longest(self.text.max_len), training=False)
        return model_outputs(self.model, dataset, tokens=tokens, pad_id=self.text.pad_id, device=self.device)


def set_up(
    frame: pd.DataFrame, checkpoint: str = E5_SMALL, *, architecture: dict[str, Any] | None = None, **flat: Any
) -> Setup:
    """A classifier of the column `text` of `frame` by its column `label`, as `fit` builds it.

    Args:
        frame: Decides the classes.
        checkpoint: Weights, and the tokenizer.
        architecture: A `config.json` to build with random weights in place of the checkpoint's.
        flat: More settings, with `__` for the dots.
    """
    given = {key.replace("__", "."): value for key, value in flat.items()}
    config = build_config({**TUTORIAL, "model.hf_text.checkpoint_name": checkpoint, **given})
    schema = infer_schema(frame, "label")
    assert schema.problem_type is not None
    label = LabelProcessor.fit(frame["label"], schema.problem_type, None, None)
    device = pick_device(config.env)
    found = resolve_checkpoint(checkpoint)
    text = TextProcessor.from_checkpoint(found, schema.text_columns, config.model.hf_text)
    if architecture is None:
        plain = build_model(found, outputs=len(label.classes), seed=0)
    else:
        encoder = TextEncoder(build_backbone_from_config(architecture), pooling="mean")
        plain = MultiModalModel(encoder, Head(encoder.out_dim, len(label.classes), seed=0))
    return Setup(config, schema, text, label, prepare(plain, config, 0, device), device)


@dataclass(frozen=True)
class Work:
    """What an encoder has to multiply.

    Attributes:
        weights: Numbers in its linear layers.
        width: Heads times their size.
        layers: Transformer layers.
    """

    weights: int
    width: int
    layers: int

    @classmethod
    def of(cls, encoder: TextEncoder) -> Work:
        """Counted on the model. A layer that is used several times, as in ALBERT, is counted once."""
        linears = {module for module in encoder.backbone.modules() if isinstance(module, nn.Linear)}
        return cls(sum(module.weight.numel() for module in linears), encoder.out_dim, len(encoder.layers()))

    def flops(self, lengths: np.ndarray, *, training: bool) -> float:
        """Floating-point operations for rows of so many tokens.

        A frozen layer costs 2 per weight and token, forward, and as much again for the gradient of its input; the two
        products of attention 2 each per pair of tokens and number, and twice that for their gradients.
        """
        pairs = float(np.square(lengths.astype(np.float64)).sum())
        linear = (4 if training else 2) * self.weights * float(lengths.sum())
        return linear + (12 if training else 4) * self.width * self.layers * pairs


def seconds_of(call: Callable[[], Any], repeats: int = 9) -> float:
    """Median time of a call, after two that are not counted."""
    times = []
    for _ in range(repeats + 2):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return median(times[2:])


@torch.no_grad()
def square_rate(dtype: torch.dtype, size: int = 2048, repeats: int = 9) -> float:
    """Operations per second of a plain product of two square matrices, a median."""
    a, b = (torch.randn(size, size).to(dtype) for _ in range(2))
    return 2 * size**3 / seconds_of(lambda: a @ b, repeats)


@dataclass(frozen=True)
class Turn:
    """What was computed between two measurements of the machine's rate.

    Attributes:
        tokens: Without padding.
        seconds: What it took.
        flops: Floating-point operations.
        rate: The machine's operations per second then, the mean of both.
    """

    tokens: int
    seconds: float
    flops: float
    rate: float

    @property
    def share(self) -> float:
        """Of the machine's rate."""
        return self.flops / self.seconds / self.rate


def turns(run: Callable[[], tuple[int, float]], dtype: torch.dtype, budget: float) -> list[Turn]:
    """Runs in turns with the machine's rate, since that of a shared machine changes from one second to the next.

    Args:
        run: Computes something, and says how many tokens and operations that was.
        dtype: Of the machine's rate.
        budget: Seconds of `run` to go on for, with three runs at least.
    """
    found: list[Turn] = []
    before = square_rate(dtype, repeats=5)
    while len(found) < 3 or sum(turn.seconds for turn in found) < budget:
        with stopwatch() as taken:
            tokens, flops = run()
        after = square_rate(dtype, repeats=5)
        found.append(Turn(tokens, taken[0], flops, (before + after) / 2))
        before = after
    return found


@torch.no_grad()
def shape_rates(encoder: TextEncoder, dtype: torch.dtype, tokens: int = 2048) -> dict[str, float]:
    """Operations per second of 2,048 tokens times every shape of weight in the model, as `in x out`."""
    shapes = {(m.in_features, m.out_features) for m in encoder.backbone.modules() if isinstance(m, nn.Linear)}
    rates = {}
    for inner, outer in sorted(shapes):
        plain = nn.Linear(inner, outer).to(dtype).requires_grad_(False)
        layer, x = FrozenLinear.of(plain, reorders=True), torch.randn(tokens, inner).to(dtype)
        work = 2 * tokens * inner * outer
        rates[f"{inner} x {outer}"] = work / min(seconds_of(partial(call, x)) for call in (layer, plain))
    return rates


@contextmanager
def stopwatch() -> Iterator[list[float]]:
    """A list that holds the seconds of the block, once it has ended."""
    taken: list[float] = []
    started = time.perf_counter()
    yield taken
    taken.append(time.perf_counter() - started)
