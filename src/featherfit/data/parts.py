"""What an encoder beside the text encoder needs of the data layer, as two contracts.

A processor is fitted to training rows once, kept in artifacts as JSON, and turns the columns of any table into rows; rows give
tensors for the positions of a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    import torch


class PartRows(Protocol):
    """What one encoder reads of a table's rows."""

    @property
    def lengths(self) -> np.ndarray:
        """What each row costs in a forward, in tokens, (rows,) int64; counts into the size of micro-batches."""
        ...

    @property
    def decodes(self) -> bool:
        """Whether `tensors` reads files or unpacks images, which is worth beginning before it is needed."""
        ...

    def augmented(self, words: Sequence[str], seed: int, epoch: int) -> PartRows:
        """The same rows as one epoch of training sees them; as they are where nothing is ever changed.

        Args:
            words: What is done to images, `model.timm_image.train_transforms`.
            seed, epoch: Decide what is drawn.
        """
        ...

    def content(self, position: int) -> bytes:
        """Equal for rows that read the same, and only for those, wherever they stand."""
        ...

    def tensors(self, positions: np.ndarray) -> dict[str, torch.Tensor]:
        """What `Batch.parts` gets for the rows at these positions, in this order. May run in a process of its own."""
        ...


class PartProcessor(Protocol):
    """Columns of a table to rows, as fitted to training rows."""

    @property
    def columns(self) -> list[str]:
        """The columns read."""
        ...

    def __call__(self, frame: pd.DataFrame) -> PartRows:
        """The rows of a table.

        Raises:
            DataError: A column is missing, or a cell cannot be read; the message names its row and column.
        """
        ...

    def unreadable(self, frame: pd.DataFrame) -> list[tuple[int, str, str]]:
        """Position, column and what is wrong, of each cell that cannot be read."""
        ...

    def to_json(self) -> dict[str, Any]:
        """What was fitted, as JSON values."""
        ...
