"""A table and the columns to slice it by go in; the values of every row, as text, come out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from featherfit.data.languages import detect_languages
from featherfit.data.messages import raise_all
from featherfit.data.processors.cells import as_text, column_texts
from featherfit.errors import ConfigError, DataError, did_you_mean

AUTO = "auto"
"""Stands for the language of the text columns, unless a column is called so."""

LANGUAGE = "language"
"""What slices by `AUTO` are of."""

MISSING = "(missing)"
"""The slice of rows without a value."""

MOST_SLICES = 200
_LONGEST = 100  # characters of a value that is remembered


def row_slices(
    frame: pd.DataFrame, by: Any, text_columns: Sequence[str], argument: str = "by"
) -> tuple[list[str], list[tuple[str, ...]]]:
    """What a table is sliced by, and every row's values; a missing one is `MISSING`.

    Args:
        frame: The rows.
        by: Name of a column, names of several, or `auto`.
        text_columns: Those whose language is looked for.
        argument: What the user called `by`, for messages.

    Raises:
        ConfigError: Not such names, or more than `MOST_SLICES` different values.
        DataError: Columns that are not there.
        MissingDependencyError: The detector of languages is not installed.
    """
    names = [by] if isinstance(by, str) else by
    if not isinstance(names, list | tuple) or not names or not all(isinstance(name, str) for name in names):
        raise ConfigError(f"{argument}={by!r} has to be the name of a column, a list of names, or {AUTO!r}.")
    given = ", ".join(map(str, frame.columns))
    lacking = [name for name in names if name not in frame.columns and name != AUTO]
    problems = [
        f"{argument} names {name!r}, which is not a column.{did_you_mean(name, frame.columns)} Columns: {given}."
        for name in lacking
    ]
    raise_all(DataError, problems, argument)
    columns = [_languages(frame, text_columns) if name not in frame.columns else _texts(frame[name]) for name in names]
    rows = list(zip(*columns, strict=True))
    if len(set(rows)) > MOST_SLICES:
        raise ConfigError(
            f"{argument}={by!r} makes {len(set(rows))} slices of {len(rows)} rows, and at most {MOST_SLICES} are offered. "
            "Name a column with fewer values."
        )
    return [name if name in frame.columns else LANGUAGE for name in names], rows


def only_values(frame: pd.DataFrame, columns: Sequence[str]) -> dict[str, str]:
    """The columns that have the same value in every row, with it as text."""
    same = {}
    for name in columns:
        if len(frame) and not frame[name].isna().any() and frame[name].nunique() == 1:
            text = _texts(frame[name].head(1))[0]
            if len(text) <= _LONGEST:
                same[name] = text
    return same


def _languages(frame: pd.DataFrame, text_columns: Sequence[str]) -> list[str]:
    if not text_columns:
        raise ConfigError(f"{AUTO!r} slices by the language of text columns, and there are none. Name a column.")
    parts = zip(*(column_texts(frame[name]) for name in text_columns), strict=True)
    return detect_languages([" ".join(texts) for texts in parts])


def _texts(column: pd.Series) -> list[str]:
    return [
        MISSING if absent else as_text(value) or str(value)
        for value, absent in zip(column.tolist(), column.isna(), strict=True)
    ]
