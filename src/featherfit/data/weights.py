"""A column of weights of rows goes in; checked numbers come out."""

from __future__ import annotations

import numpy as np
import pandas as pd

from featherfit.data.messages import count, some
from featherfit.errors import DataError, did_you_mean

AUTOGLUON = {
    "auto_weight": "weights are not chosen for you",
    "balance_weight": "classes are weighed by optim.class_weights='balanced'",
}
"""Words that AutoGluon takes in the place of a column."""


def weight_problem(frame: pd.DataFrame, column: str) -> str | None:
    """Why a column cannot be the weights of a table's rows; None if it can."""
    if column not in frame.columns:
        if column in AUTOGLUON:
            return f"sample_weight={column!r} is not supported: {AUTOGLUON[column]}. Name a column of weights, or leave it out."
        return (
            f"There is no column {column!r}, which sample_weight names.{did_you_mean(column, frame.columns)} "
            f"Columns: {', '.join(map(str, frame.columns))}."
        )
    numbers = _numbers(frame[column])
    odd = list(unusable_weights(frame[column]))
    if odd:
        values = dict.fromkeys(str(value) for value in frame[column].iloc[odd])
        return (
            f"sample_weight: column {column!r} has to hold finite numbers of at least 0, and does not in "
            f"{count(len(odd), 'row')} (index {some(frame.index[odd])}; values {some(values)})."
        )
    if len(numbers) and not numbers.any():
        return f"sample_weight: column {column!r} is 0 in all of the {len(numbers)} rows, so that none counts."
    return None


def row_weights(frame: pd.DataFrame, column: str) -> np.ndarray:
    """The weights of a table's rows, (rows,) float32, at most 1: only their proportions matter.

    Raises:
        DataError: A column that is not there, or weights that are not finite, negative, or all 0.
    """
    problem = weight_problem(frame, column)
    if problem:
        raise DataError(problem)
    numbers = _numbers(frame[column])
    return (numbers / numbers.max(initial=0.0)).astype(np.float32) if len(numbers) else numbers.astype(np.float32)


def unusable_weights(column: pd.Series) -> dict[int, str]:
    """What is wrong with weights that are not finite numbers of at least 0, by position."""
    numbers = _numbers(column)
    odd = np.flatnonzero(~(np.isfinite(numbers) & (numbers >= 0)))
    return {int(at): f"{str(column.iloc[at])[:60]!r} is no weight" for at in odd}


def _numbers(column: pd.Series) -> np.ndarray:
    return pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
