"""A table, its schema and fitted processors go in; a `Dataset` of token ids, labels and weights comes out."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pandas as pd

from featherfit.data.batch import longest_row, total_lengths
from featherfit.data.label_columns import lacking_labels
from featherfit.data.parts import PartProcessor, PartRows
from featherfit.data.processors.notext import NoText
from featherfit.data.processors.several import Target
from featherfit.data.processors.text import TextProcessor, TokenizedRows
from featherfit.data.schema import Schema
from featherfit.data.slicing import row_slices
from featherfit.data.weights import row_weights
from featherfit.errors import ConfigError, DataError, did_you_mean


@dataclass(frozen=True, eq=False)
class Dataset:
    """Rows ready for batching.

    Attributes:
        rows: Token ids of each row.
        labels: What the label's processor gave: class ids (rows,) int64, scaled targets (rows,) float32, or (rows, K) float32 of
            several labels or targets; None at prediction.
        weights: Weight of each row in the loss or the score, (rows,) float32; None for equal weights.
        index: The table's index.
        slices: What each row counts to where rows are scored slice by slice, (rows,); None where they are not.
        parts: What encoders beside `hf_text` read of the rows, by their name.
        augment: Gives the rows as they are in an epoch of training; None where they are always the same.
    """

    rows: TokenizedRows
    labels: np.ndarray | None
    weights: np.ndarray | None
    index: pd.Index
    slices: list[str] | None = None
    parts: Mapping[str, PartRows] = field(default_factory=dict)
    augment: Callable[[Dataset, int], Dataset] | None = None

    def of_epoch(self, epoch: int) -> Dataset:
        """The rows as training sees them in an epoch, from 0."""
        return self if self.augment is None else self.augment(self, epoch)

    @cached_property
    def lengths(self) -> np.ndarray:
        """Tokens that each row takes in a forward, all encoders together, (rows,) int64."""
        return total_lengths(self.rows, self.parts)

    def longest(self, max_len: int | None) -> int:
        """Most tokens a row may have, where its text has at most `max_len`; None for as many as any has."""
        return longest_row(self.lengths, self.rows.lengths, max_len)

    def __len__(self) -> int:
        return len(self.rows)

    def fingerprint(self) -> str:
        """Hex digest over the rows' tokens, labels and weights, in their order."""
        digest = hashlib.sha256(self.rows.lengths.tobytes())
        for ids in self.rows.ids:
            digest.update(ids.tobytes())
        for part in self.parts.values():
            for position in range(len(self)):
                digest.update(part.content(position))
        for column in (self.labels, self.weights):
            digest.update(b"-" if column is None else column.tobytes())
        return digest.hexdigest()


def make_dataset(
    frame: pd.DataFrame,
    schema: Schema,
    text: TextProcessor | NoText,
    label: Target | None,
    class_weights: str | Mapping[str, float] | None = None,
    validation_by: str | None = None,
    parts: Mapping[str, PartProcessor] | None = None,
    weight: str | None = None,
) -> Dataset:
    """Tokenizes a table and encodes its label.

    Args:
        frame: The table; it is not changed.
        schema: Names the label column.
        text: For the schema's text columns.
        label: None to leave the label alone, as at prediction.
        class_weights: `optim.class_weights`; for training tables only.
        validation_by: `optim.validation_by`; for validation tables only.
        parts: For the columns of encoders beside `hf_text`, by their name.
        weight: Column of the weights of rows.

    Raises:
        DataError: Columns are missing or hold what cannot be used.
        ConfigError: `class_weights` that do not fit the classes.
    """
    lacking = None if label is None else lacking_labels(frame, schema.label)
    if lacking:
        raise DataError(lacking)
    labels = None if label is None else label.encode(frame[schema.label])
    weights = None if weight is None else row_weights(frame, weight)
    if class_weights is not None and label is not None and labels is not None:
        if label.problem_type not in ("binary", "multiclass"):
            also = " For rare labels there is optim.loss_func='focal_loss'." if not label.numeric else ""
            raise ConfigError(
                "optim.class_weights is for classification into one class, and this problem is "
                f"{label.problem_type}. Leave it out.{also}"
            )
        of_rows = _class_weights(label, labels, class_weights)[labels]
        weights = of_rows if weights is None else weights * of_rows
    slices = None
    if validation_by is not None:
        rows = row_slices(frame, validation_by, schema.text_columns, "optim.validation_by")[1]
        slices = [" / ".join(row) for row in rows]
    read = {name: processor(frame) for name, processor in (parts or {}).items()}
    return Dataset(text(frame), labels, weights, frame.index, slices, read)


def _class_weights(label: Target, ids: np.ndarray, wanted: str | Mapping[str, float]) -> np.ndarray:
    """Weight of each class, (C,) float32.

    `balanced` is rows / (C * rows of the class), as in scikit-learn: the mean weight of the rows is 1. In a mapping, a
    label that is not text may be written as text, and classes that are not named weigh 1.
    """
    classes = label.classes.tolist()
    if isinstance(wanted, str):
        if wanted != "balanced":
            raise ConfigError(f"optim.class_weights={wanted!r} is unknown. Allowed: balanced, a mapping, null.")
        counts = np.bincount(ids, minlength=len(classes))
        return (len(ids) / (len(classes) * np.maximum(counts, 1))).astype(np.float32)
    positions = {str(name): position for position, name in enumerate(classes)}
    weights = np.ones(len(classes), dtype=np.float32)
    problems = []
    for name, weight in wanted.items():
        if str(name) not in positions:
            problems.append(
                f"optim.class_weights names {name!r}, which is not a class.{did_you_mean(str(name), positions)} "
                f"Classes: {', '.join(map(repr, classes))}."
            )
        elif not (isinstance(weight, (int, float)) and math.isfinite(weight) and weight > 0):
            problems.append(f"optim.class_weights[{name!r}]={weight!r} has to be a number above 0.")
        else:
            weights[positions[str(name)]] = weight
    if problems:
        raise ConfigError(problems)
    return weights
