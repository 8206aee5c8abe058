"""A training table without a validation table goes in; the two parts of it come out, drawn by a seed."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from featherfit.data.processors.several import SeveralLabels
from featherfit.data.schema import Schema
from featherfit.errors import ConfigError, DataError
from featherfit.types import NUMBERS

FEWEST_ROWS = 4


def default_holdout_frac(rows: int) -> float:
    """AutoGluon's share of rows to validate on: 0.2 up to 2,500 rows, 0.1 from 5,000 to 25,000, then down to 0.01."""
    if rows < 5000:
        return max(0.1, min(0.2, 500 / rows))
    return max(0.01, min(0.1, 2500 / rows))


def split_holdout(
    frame: pd.DataFrame, schema: Schema, holdout_frac: float | None = None, *, seed: int = 0
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Splits `frame` into rows to train on and rows to validate on.

    Classes (of several labels a row's rarest) keep their shares in both parts; a class with one row stays in training, and training has a row of every
    class. Where the classes are too many for shares, rows are drawn at random under that condition. Both parts keep the
    order and the index of `frame`, and together they are all of it.

    Args:
        frame: At least 4 rows.
        schema: Names the label and the problem type.
        holdout_frac: Share to validate on, between 0 and 1, rounded up to a row; None for AutoMM's rule.
        seed: The same seed gives the same rows; they are the rows AutoMM draws where shares can be kept.

    Raises:
        ConfigError: A share outside (0, 1).
        DataError: Fewer than 4 rows, or nothing that could be held out.
    """
    rows = len(frame)
    if rows < FEWEST_ROWS:
        raise DataError(
            f"{rows} rows are too few to hold some out for validation; at least {FEWEST_ROWS} are needed. "
            "Add rows, or give tuning_data."
        )
    if holdout_frac is None:
        holdout_frac = default_holdout_frac(rows)
    if not 0 < holdout_frac < 1:
        raise ConfigError(
            f"holdout_frac={holdout_frac!r} is out of range; it has to lie between 0 and 1, both excluded."
        )
    if schema.problem_type in NUMBERS or schema.label is None:
        held = _draw(np.arange(rows), None, holdout_frac, seed)
    elif schema.problem_type == "multilabel":
        held = _draw_by_class(_rarest_labels(frame[schema.label]), holdout_frac, seed)
    else:
        held = _draw_by_class(pd.factorize(frame[schema.label])[0], holdout_frac, seed)
    is_held = np.zeros(rows, dtype=bool)
    is_held[held] = True
    return frame[~is_held], frame[is_held]


def _rarest_labels(labels: pd.DataFrame | pd.Series) -> np.ndarray:
    """A number for each row's rarest label, 0 for none: what several labels are kept in proportion by."""
    flags = SeveralLabels.fit(labels, "multilabel").encode(labels)
    sizes = flags.sum(axis=0)
    rarity = np.where(flags > 0, sizes, np.inf)
    return np.where(flags.any(axis=1), rarity.argmin(axis=1) + 1, 0)


def _draw(positions: np.ndarray, classes: np.ndarray | None, frac: float, seed: int) -> np.ndarray:
    from sklearn.model_selection import train_test_split

    size = min(math.ceil(frac * len(positions)), len(positions) - 1)
    return train_test_split(positions, test_size=size, random_state=seed, stratify=classes)[1]


def _draw_by_class(classes: np.ndarray, frac: float, seed: int) -> np.ndarray:
    """Positions to hold out, (held,); `classes` is a class id per row, (rows,)."""
    counts = np.bincount(classes)
    positions = np.flatnonzero(counts[classes] > 1)
    if len(positions) == 0:
        raise DataError("Every class has one row only, so none can be held out for validation. Give tuning_data.")
    groups = np.count_nonzero(counts > 1)
    size = math.ceil(frac * len(positions))
    if groups <= size <= len(positions) - groups:
        return _draw(positions, classes[positions], frac, seed)
    random = np.random.default_rng(seed)
    shuffled = random.permutation(positions)
    _, kept = np.unique(classes[shuffled], return_index=True)  # the first row of every class stays in training
    return np.delete(shuffled, kept)[:size]
