"""Predictions as arrays go in; what the caller wants, a Series with their index or the array, comes out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd


def wants_pandas(data: Any, as_pandas: bool | None) -> bool:
    """`as_pandas`, or, if it is None, whether `data` is a DataFrame."""
    return isinstance(data, pd.DataFrame) if as_pandas is None else as_pandas


def as_series(values: np.ndarray, frame: pd.DataFrame, name: str | None) -> pd.Series:
    """One value per row of `frame`, under its index."""
    return pd.Series(values, index=frame.index, name=name)
