"""Strings go in; the one way in which all of them are dates, or the points in time they stand for, come out.

No value is guessed at by itself: a column has one format, which all its training values have, or it has no dates. Day and month
in an order that the values do not settle (03/04/2024) are not dates here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import pandas as pd

ISO = "ISO8601"
_UNAMBIGUOUS = (
    ISO,
    "%B %d, %Y",
    "%b %d, %Y",
    "%d %B %Y",
    "%d %b %Y",
    "%d-%b-%Y",
    "%d-%b-%y",
    "%d.%m.%Y",
    "%d.%m.%Y %H:%M",
    "%d.%m.%Y %H:%M:%S",
)
_EITHER_ORDER = (("%d/%m/%Y", "%m/%d/%Y"), ("%d/%m/%Y %H:%M", "%m/%d/%Y %H:%M"))
FORMATS = (*_UNAMBIGUOUS, *(one for pair in _EITHER_ORDER for one in pair))
"""Every format a column may have, in strptime's words."""

# Digits, and something that separates them: a number alone is a number.
_DATED = re.compile(r"(?=.*[0-9])(?=.*[-/.: ])[0-9A-Za-zÀ-ÿ,.:/+\- ]{6,40}")


def date_format(values: Sequence[str]) -> str | None:
    """The format of `FORMATS` that all the strings have; None if there is none, or more than one that differ.

    Args:
        values: Distinct strings, at least one.
    """
    if not all(map(_DATED.fullmatch, values)):
        return None
    column = pd.Series(values, dtype=object)
    for wanted in _UNAMBIGUOUS:
        if _all(column, wanted):
            return wanted
    for pair in _EITHER_ORDER:
        found = [wanted for wanted in pair if _all(column, wanted)]
        if len(found) == 1:
            return found[0]
    return None


def seconds_since_1970(column: pd.Series, wanted: str | None) -> np.ndarray:
    """Seconds in UTC, (rows,) float64; NaN where a value is missing or is no date.

    Args:
        column: Points in time by dtype or as objects, or strings.
        wanted: Format of the strings; None to read what pandas reads without being told.
    """
    if pd.api.types.is_datetime64_any_dtype(column.dtype):
        times = pd.to_datetime(column, utc=True)
    elif wanted is None:
        times = pd.to_datetime(column.astype(object), utc=True, errors="coerce", format="mixed")
    else:
        texts = column.map(str, na_action="ignore").astype(object)
        times = pd.to_datetime(texts, utc=True, errors="coerce", format=wanted)
    known = times.notna().to_numpy()
    seconds = np.full(len(column), np.nan)
    # Microseconds: a century of nanoseconds is beyond what doubles hold, and dates before 1677 beyond 64 bits of them.
    seconds[known] = times[known].to_numpy(dtype="datetime64[us]").astype(np.int64) / 1e6
    return seconds


def _all(column: pd.Series, wanted: str) -> bool:
    if pd.isna(pd.to_datetime(column.iloc[0], utc=True, errors="coerce", format=wanted)):
        return False
    return bool(pd.to_datetime(column, utc=True, errors="coerce", format=wanted).notna().all())
