"""One column of categories, numbers or points in time goes in; codes or numbers a model can read come out.

Each kind is fitted to the present values of training rows and keeps what it learnt as JSON values. A missing value has a place
of its own among categories; among numbers it is the median's, with an indicator where training rows had any.
"""

from __future__ import annotations

import numbers
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from featherfit.config.columns import CategoricalConfig, NumericalConfig
from featherfit.data.dates import date_format, seconds_since_1970
from featherfit.data.processors.cells import as_text, is_unicode

MISSING, RARE = 0, 1
"""Codes of a missing value, and of a category that was rare in training or not there; others begin at 2."""

QUANTILES = 256
"""Most quantiles that are kept of a column."""

_TRUTH = {"true": "true", "false": "false", "1": "true", "0": "false", "yes": "true", "no": "false"}
_CYCLES = ("year", "week", "day")
_DAY = 86_400.0


@dataclass(frozen=True)
class Categories:
    """Attributes:
    column: Its name.
    boolean: Whether it is of truth values, which are read in several spellings.
    categories: Those told apart, most frequent first.
    """

    column: str
    boolean: bool
    categories: list[str]

    @classmethod
    def fit(cls, column: pd.Series, config: CategoricalConfig, *, boolean: bool) -> Categories:
        """Learns the categories that are frequent enough; of those with equal counts the first in alphabetic order."""
        counts = Counter(text for text in _texts(column, boolean=boolean) if text is not None)
        enough = [(text, number) for text, number in counts.items() if number >= config.minimum_cat_count]
        ordered = sorted(enough, key=lambda item: (-item[1], item[0]))
        return cls(str(column.name), boolean, [text for text, _ in ordered[: config.maximum_num_cat]])

    def __call__(self, column: pd.Series) -> np.ndarray:
        """Codes, (rows,) int64."""
        places = {text: place for place, text in enumerate(self.categories, start=2)}
        texts = _texts(column, boolean=self.boolean)
        return np.array([MISSING if text is None else places.get(text, RARE) for text in texts], dtype=np.int64)

    def unreadable(self, column: pd.Series) -> dict[int, str]:
        """What is wrong with the cells that cannot be read, by position."""
        found = {}
        for position, (value, absent) in enumerate(zip(column.tolist(), _absent(column), strict=True)):
            text = None if absent else as_text(value)
            if not absent and text is None:
                found[position] = f"{type(value).__name__} is no category"
            elif text is not None and not is_unicode(text):
                found[position] = "half of a surrogate pair, which is no text"
        return found

    @property
    def codes(self) -> int:
        """How many codes there are."""
        return len(self.categories) + 2


@dataclass(frozen=True)
class Numbers:
    """Attributes:
    column: Its name.
    quantiles: Of the present training values, evenly spaced from the smallest to the largest; infinite ones are left out.
    transform: `quantile` or `standard`.
    center, scale: With `standard`, what is subtracted and divided by.
    indicator: Whether missing values are told by a number of their own.
    edges: Of the pieces of the code, after the transform, rising.
    """

    column: str
    quantiles: list[float]
    transform: str
    center: float
    scale: float
    indicator: bool
    edges: list[float]

    @classmethod
    def fit(cls, column: pd.Series, config: NumericalConfig, bins: int) -> Numbers:
        """Learns from a column of numbers; `bins` are most pieces of its code."""
        return cls.of_values(str(column.name), as_floats(column)[0], config, bins)

    @classmethod
    def of_values(cls, name: str, values: np.ndarray, config: NumericalConfig, bins: int) -> Numbers:
        """The same for float64 values, (rows,), NaN where missing."""
        finite = values[np.isfinite(values)]
        finite = finite if len(finite) else np.zeros(1)
        quantiles = np.quantile(finite, np.linspace(0, 1, min(QUANTILES, len(finite))))
        spread = float(finite.std())
        center = float(finite.mean()) if config.scaler_with_mean else 0.0
        scale = spread if config.scaler_with_std and spread > 0 else 1.0
        plain = cls(name, quantiles.tolist(), config.transform, center, scale, bool(np.isnan(values).any()), [])
        levels = np.linspace(0, 1, bins + 1)
        edges = np.unique(np.quantile(plain.transformed(finite), levels, method="inverted_cdf"))
        edges = edges if len(edges) > 1 else np.array([edges[0], edges[0] + 1.0])
        return cls(**{**asdict(plain), "edges": edges.tolist()})

    def __call__(self, column: pd.Series) -> np.ndarray:
        """Numbers, (rows, 1), or with an indicator (rows, 2); float32."""
        return self.encoded(as_floats(column)[0])

    def encoded(self, values: np.ndarray) -> np.ndarray:
        """The same for float64 values, NaN where missing."""
        absent = np.isnan(values)
        median = float(np.interp(0.5, np.linspace(0, 1, len(self.quantiles)), self.quantiles))
        found = self.transformed(np.where(absent, median, values))
        return np.stack([found, absent] if self.indicator else [found], axis=1).astype(np.float32)

    def transformed(self, values: np.ndarray) -> np.ndarray:
        """Values without missing ones, through the transform; what lies outside the training range counts as its end."""
        inside = np.clip(values, self.quantiles[0], self.quantiles[-1])
        if self.transform == "standard":
            return (inside - self.center) / self.scale
        # The mean over both directions, so that a value of many rows is in the middle of their quantiles, as scikit-learn does.
        levels, quantiles = np.linspace(0, 1, len(self.quantiles)), np.array(self.quantiles)
        rising = np.interp(inside, quantiles, levels)
        falling = -np.interp(-inside, -quantiles[::-1], -levels[::-1])
        end = 0.5 / len(levels)  # the ends of a sample are not those of the distribution
        from scipy import special  # 0.2 s that a table of text alone does not need

        return special.ndtri(np.clip((rising + falling) / 2, end, 1 - end))

    def unreadable(self, column: pd.Series) -> dict[int, str]:
        """What is wrong with the cells that cannot be read, by position."""
        odd, cells = as_floats(column)[1], column.tolist()
        return {int(place): f"{_shown(cells[place])} is no number" for place in np.flatnonzero(odd)}

    @property
    def all_edges(self) -> list[list[float]]:
        """Edges of each of the numbers it gives."""
        return [self.edges, [0.0, 1.0]] if self.indicator else [self.edges]


@dataclass(frozen=True)
class Times:
    """Attributes:
    column: Its name.
    format: Of strings; None for points in time by type.
    linear: Of the seconds since 1970.
    cycles: Those of `year`, `week` and `day` whose phase differs between training rows; each gives a sine and a cosine.
    """

    column: str
    format: str | None
    linear: Numbers
    cycles: list[str]

    @classmethod
    def fit(cls, column: pd.Series, config: NumericalConfig, bins: int) -> Times:
        """Learns from a column of points in time."""
        present = column[column.notna()]
        strings = len(present) > 0 and all(isinstance(value, str) for value in present.tolist())
        wanted = date_format(list(dict.fromkeys(present.tolist()))) if strings else None
        seconds = seconds_since_1970(column, wanted)
        linear = Numbers.of_values(str(column.name), seconds, config, bins)
        known = seconds[np.isfinite(seconds)]
        cycles = [name for name in _CYCLES if len(known) and np.ptp(_phase(name, known)) > 1e-9]
        return cls(str(column.name), wanted, linear, cycles)

    def __call__(self, column: pd.Series) -> np.ndarray:
        """Numbers, (rows, those of `all_edges`) float32; a missing point in time has no phase, which is 0 and 0."""
        seconds = seconds_since_1970(column, self.format)
        known = np.isfinite(seconds)
        parts = [self.linear.encoded(seconds)]
        for name in self.cycles:
            angle = 2 * np.pi * _phase(name, seconds[known])
            circle = np.zeros((len(seconds), 2), dtype=np.float32)
            circle[known] = np.stack([np.sin(angle), np.cos(angle)], axis=1)
            parts.append(circle)
        return np.concatenate(parts, axis=1)

    def unreadable(self, column: pd.Series) -> dict[int, str]:
        """What is wrong with the cells that cannot be read, by position."""
        odd = np.isnan(seconds_since_1970(column, self.format)) & ~_absent(column)
        how = "" if self.format is None else f" of the form {self.format}"
        cells = column.tolist()
        return {int(place): f"{_shown(cells[place])} is no date{how}" for place in np.flatnonzero(odd)}

    @property
    def all_edges(self) -> list[list[float]]:
        """Edges of each of the numbers it gives."""
        return [*self.linear.all_edges, *([[-1.0, 1.0]] * (2 * len(self.cycles)))]


def as_floats(column: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """The column as float64, NaN where missing or no number; and which cells are there and are none. Both (rows,)."""
    if pd.api.types.is_numeric_dtype(column.dtype) and not pd.api.types.is_complex_dtype(column.dtype):
        values = column.to_numpy(dtype=np.float64, na_value=np.nan)
        return values, np.zeros(len(values), dtype=bool)
    absent = _absent(column)
    values = np.array([np.nan if gone else _float(value) for value, gone in zip(column.tolist(), absent, strict=True)])
    return values.astype(np.float64), np.isnan(values.astype(np.float64)) & ~absent


def _float(value: Any) -> float:
    if isinstance(value, str):
        try:
            number = float(value.strip())
        except ValueError:
            return np.nan
        return number
    try:
        return float(value) if isinstance(value, (numbers.Number, np.generic)) else np.nan  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return np.nan


def _texts(column: pd.Series, *, boolean: bool) -> list[str | None]:
    """Every cell as text, None where missing or unreadable."""
    texts = [None if absent else as_text(value) for value, absent in zip(column.tolist(), _absent(column), strict=True)]
    if boolean:
        return [None if text is None else _TRUTH.get(text.lower(), text) for text in texts]
    return texts


def _absent(column: pd.Series) -> np.ndarray:
    return column.isna().to_numpy(dtype=bool)


def _phase(cycle: str, seconds: np.ndarray) -> np.ndarray:
    """Where in a cycle points in time lie, 0 to 1."""
    if cycle == "day":
        return (seconds % _DAY) / _DAY
    if cycle == "week":
        return ((seconds // _DAY + 3) % 7) / 7  # 1970 began on a Thursday
    days = np.floor(seconds / _DAY).astype("datetime64[D]")
    return (days - days.astype("datetime64[Y]")).astype(np.int64) / 366


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
