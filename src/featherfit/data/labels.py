"""A label column goes in; its values in plain Python, and what kind they are, come out. For schema and processor."""

from __future__ import annotations

import decimal
import math
import numbers
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from featherfit.data.messages import count, some
from featherfit.data.processors.cells import is_unicode
from featherfit.errors import DataError, did_you_mean

LabelKind = Literal["text", "boolean", "integer", "float"]


@dataclass(frozen=True)
class Labels:
    """Attributes:
    values: The present labels as str, bool, int or float.
    kind: What they all are; integers among floats count as floats.
    index: Index labels of their rows.
    missing: Index labels of the rows without a label.
    """

    values: list[Any]
    kind: LabelKind
    index: pd.Index
    missing: pd.Index


def read_labels(column: pd.Series) -> Labels:
    """Splits a label column into its values and the rows that have none.

    Raises:
        DataError: Values that cannot be labels (lists, dates, ...), or text, booleans and numbers mixed.
    """
    absent = column.isna().to_numpy()
    values = column[~absent].tolist()
    kinds: dict[LabelKind, Any] = {}
    for cls, example in {type(value): value for value in values}.items():
        kind = kind_of(cls)
        if kind is None:
            raise DataError(
                f"Label column {column.name!r} holds {cls.__name__} values, for example {example!r}. "
                "Labels have to be text, booleans or numbers; convert them, for example with .astype(str)."
            )
        kinds[kind] = example
    if kinds.keys() == {"integer", "float"}:
        kinds.pop("integer")
        values = list(map(as_float, values))
    if len(kinds) > 1:
        examples = ", ".join(f"{kind} ({example!r})" for kind, example in kinds.items())
        raise DataError(
            f"Label column {column.name!r} mixes types: {examples}. Make them one type, for example with .astype(str)."
        )
    common: LabelKind = next(iter(kinds), "text")
    if common == "text" and not all(map(is_unicode, set(values))):
        rows = [label for label, value in zip(column.index[~absent], values, strict=True) if not is_unicode(value)]
        raise DataError(
            f"Label column {column.name!r} has half of a surrogate pair, which is no text, in {count(len(rows), 'row')} "
            f"(index {some(rows)}). Correct these labels."
        )
    plain = _PLAIN[common]
    return Labels([plain(value) for value in values], common, column.index[~absent], column.index[absent])


def as_float(value: Any) -> float:
    """A number as a float; infinite beyond the range of one."""
    try:
        return float(value)
    except OverflowError:
        return -math.inf if value < 0 else math.inf


_PLAIN: dict[LabelKind, Callable[[Any], Any]] = {"text": str, "boolean": bool, "integer": int, "float": as_float}


def kind_of(cls: type) -> LabelKind | None:
    """What values of this type are as labels; None for those that cannot be labels."""
    if issubclass(cls, str):
        return "text"
    if issubclass(cls, (bool, np.bool_)):
        return "boolean"
    if issubclass(cls, numbers.Integral):
        return "integer"
    if issubclass(cls, (numbers.Real, decimal.Decimal)):
        return "float"
    return None


def as_numbers(labels: Labels) -> np.ndarray:
    """The labels as float64, (rows with a label,); NaN for text that is no number."""
    if labels.kind == "text":
        return pd.to_numeric(pd.Series(labels.values, dtype=object), errors="coerce").to_numpy(np.float64)
    return np.array(list(map(as_float, labels.values)), dtype=np.float64)


def missing_problem(column: str, labels: Labels) -> str:
    """What to say about rows without a label."""
    return (
        f"Label column {column!r} has no value in {count(len(labels.missing), 'row')} (index {some(labels.missing)}). "
        f"Drop them: frame.dropna(subset=[{column!r}])."
    )


def unknown_pos_label(pos_label: Any, classes: list[Any]) -> str:
    """What to say about a positive class that does not occur."""
    return (
        f"data.pos_label={pos_label!r} is not a label.{did_you_mean(pos_label, classes)} "
        f"Labels: {', '.join(map(repr, classes))}."
    )
