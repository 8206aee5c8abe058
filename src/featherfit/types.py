"""The words and small records every layer shares. Imports nothing heavy.

Shapes: B rows in a batch, L tokens, C outputs of the head (1 for regression of one number), D width of an embedding, K labels
or targets of a row that has several.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import torch

ProblemType = Literal["binary", "multiclass", "regression", "quantile", "multilabel"]
NUMBERS: tuple[str, ...] = ("regression", "quantile")
"""Problems whose labels are numbers; those of the others are classes."""

ColumnType = Literal[
    "text",
    "numerical",
    "categorical",
    "boolean",
    "datetime",
    "identifier",
    "null",
    "image_path",
    "image_bytearray",
    "image_base64_str",
    "image",
    "document_image",
]
PoolingMode = Literal["cls", "mean", "last"]


@dataclass(frozen=True)
class Mix:
    """How the rows of a batch are mixed in pairs.

    Attributes:
        order: Partner of each row, (B,) int64.
        share: What every row keeps of itself, 0 to 1, (B,) float32.
        done: Encoders whose inputs are mixed already; of the others, what they give is.
    """

    order: torch.Tensor
    share: torch.Tensor
    done: frozenset[str] = frozenset()

    def to(self, device: torch.device | str) -> Mix:
        """The same on `device`."""
        return Mix(self.order.to(device), self.share.to(device), self.done)

    def __call__(self, values: torch.Tensor) -> torch.Tensor:
        """Values of rows (B, ...), mixed."""
        share = self.share.view(-1, *[1] * (values.dim() - 1))
        return values * share + values[self.order] * (1 - share)


@dataclass(frozen=True)
class Batch:
    """One forward's worth of rows.

    Attributes:
        input_ids: Token ids, (B, L) int64, padded on the right.
        attention_mask: 1 for a token and 0 for padding, (B, L) int64.
        token_type_ids: Segment of each token, (B, L) int64, or None where the model has no segments.
        labels: Class ids (B,) int64, scaled targets (B,) or (B, K) float32, or which of K labels a row has, (B, K) float32;
            None at prediction.
        weights: Weight of each row in the loss, (B,) float32, or None for equal weights.
        rows: Position of each row in the table, (B,) int64.
        parts: What the encoders beside `hf_text` read, by their name and the tensor's. Where a model reads no text, L is 0.
        mix: How rows are mixed, in training; None where they are not.
        states: What enters the lowest layer of the text encoder that is still to be computed, (T, D) of the tokens without padding,
            one row after another; None where all layers are.
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    token_type_ids: torch.Tensor | None
    labels: torch.Tensor | None
    weights: torch.Tensor | None
    rows: torch.Tensor
    parts: dict[str, dict[str, torch.Tensor]] = field(default_factory=dict)
    mix: Mix | None = None
    states: torch.Tensor | None = None

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on `device`."""

        def move(tensor: torch.Tensor | None) -> torch.Tensor | None:
            return None if tensor is None else tensor.to(device)

        return Batch(
            self.input_ids.to(device),
            self.attention_mask.to(device),
            move(self.token_type_ids),
            move(self.labels),
            move(self.weights),
            self.rows.to(device),
            {part: {name: tensor.to(device) for name, tensor in of.items()} for part, of in self.parts.items()},
            None if self.mix is None else self.mix.to(device),
            move(self.states),
        )

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def weight(self) -> float:
        """The rows' weights together; their number, where they have none."""
        return float(len(self) if self.weights is None else self.weights.sum())


@dataclass(frozen=True)
class LoopState:
    """All that training goes on from after a step, so that it comes out as if it had never stopped.

    Attributes:
        facts: Numbers by name, as JSON values: `step`, `rows` and `seconds` so far, and for every rank the limits of tokens.
        tensors: On the host, the loop's own until its next step: `weights/`, `average/`, `optimizer/` by the name of the
            parameter, `random/` by rank.
    """

    facts: dict[str, Any]
    tensors: dict[str, torch.Tensor]

    def under(self, prefix: str) -> dict[str, torch.Tensor]:
        """The tensors whose names begin so, by the rest of their names."""
        return {name.removeprefix(prefix): tensor for name, tensor in self.tensors.items() if name.startswith(prefix)}


@dataclass(frozen=True)
class StepReport:
    """What the training loop tells its caller after every optimiser step.

    Attributes:
        step: Optimiser steps taken so far, from 1.
        total_steps: Steps planned.
        epoch: Epochs finished or under way, from 1.
        loss: Mean training loss of the step's rows.
        rows: Rows trained on so far.
        seconds: Seconds since training began.
        learning_rate: The highest learning rate of the step.
        score: Validation score if the model was validated after this step, else None.
        state: Gives all that training goes on from after this step; to be called, by every rank, while the report is out.
    """

    step: int
    total_steps: int
    epoch: int
    loss: float
    rows: int
    seconds: float
    learning_rate: float
    score: float | None = None
    state: Callable[[], LoopState] | None = None


@dataclass(frozen=True)
class ModelSize:
    """Numbers of parameters and megabytes (1e6 bytes), as the table before training shows them."""

    total: int
    trainable: int
    megabytes: float
    adapters: int = 0
    by_part: dict[str, tuple[int, int]] = field(default_factory=dict)
