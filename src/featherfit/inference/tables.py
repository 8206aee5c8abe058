"""Predictions as arrays go in; what the caller wants, a Series with their index or the array, comes out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from featherfit.artifact.fitted import Fitted
from featherfit.data.processors.several import SeveralLabels, Target


def wants_pandas(data: Any, as_pandas: bool | None) -> bool:
    """`as_pandas`, or, if it is None, whether `data` is a DataFrame."""
    return isinstance(data, pd.DataFrame) if as_pandas is None else as_pandas


NULLABLE = {int: "Int64", bool: "boolean"}
"""The pandas dtype that has room for missing values, by Python type."""


def as_series(values: np.ndarray, frame: pd.DataFrame, name: str | None) -> pd.Series:
    """One value per row of `frame`, under its index; whole numbers and truth values stay so where some are missing."""
    series = pd.Series(values, index=frame.index, name=name)
    if values.dtype != object:
        return series
    kinds = {type(value) for value in values.tolist()} - {type(None)}
    dtype = NULLABLE.get(next(iter(kinds))) if len(kinds) == 1 else None
    return series if dtype is None else series.astype(dtype)


def prediction_table(values: np.ndarray, frame: pd.DataFrame, fitted: Fitted) -> pd.Series | pd.DataFrame:
    """Predictions under the index of `frame`: one a row as a Series, several as a DataFrame.

    Args:
        values: (rows,), or (rows, K) of several labels, targets or quantiles.
        frame: The table they are of.
        fitted: Names the columns: the labels, or the quantile levels.
    """
    names = fitted.label.names
    if names is None:
        return as_series(values, frame, fitted.schema.label_columns[0])
    columns = [as_series(values[:, place], frame, None) for place in range(len(names))]
    if isinstance(fitted.label, SeveralLabels) and not fitted.label.numeric:
        own = [part.classes.dtype for part in fitted.label.parts]
        columns = [c if c.isna().any() else c.astype(dtype) for c, dtype in zip(columns, own, strict=True)]
    return pd.concat(columns, axis=1, keys=names)


def probability_table(
    proba: np.ndarray,
    data: Any,
    frame: pd.DataFrame,
    label: Target,
    as_pandas: bool | None,
    as_multiclass: bool,
) -> pd.DataFrame | pd.Series | np.ndarray:
    """Probabilities (rows, C) as the caller wants them.

    Args:
        proba: Of every class.
        data: What the caller gave.
        frame: The table it became.
        label: Has the classes.
        as_pandas: As for `wants_pandas`.
        as_multiclass: False for the positive class alone.
    """
    as_pandas = wants_pandas(data, as_pandas)
    if not as_multiclass:
        return pd.Series(proba[:, 1], index=frame.index, name=label.positive_class) if as_pandas else proba[:, 1]
    return pd.DataFrame(proba, index=frame.index, columns=label.classes.tolist()) if as_pandas else proba


def without_probabilities(label: Target, what: str, remedy: str) -> list[str]:
    """What is wrong, if anything, where `what` asks for the probabilities of a predictor with these labels."""
    if not label.numeric:
        return []
    return [f"{what} is for classification, and this predictor does {label.problem_type}. {remedy}"]


def vectors_as(vectors: np.ndarray, frame: pd.DataFrame, *, as_tensor: bool, as_pandas: bool) -> Any:
    """Embeddings (rows, D) as a tensor, a DataFrame with the table's index, or the array they are."""
    if as_tensor:
        import torch

        return torch.from_numpy(vectors)
    return pd.DataFrame(vectors, index=frame.index) if as_pandas else vectors
