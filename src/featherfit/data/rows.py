"""A table goes in; the rows that can be processed, and a list of those that cannot, come out.

Rows are known by their position, never by their index, which may repeat itself: what is computed of the rows that are left
goes back to where they stood, and nothing else does.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from featherfit.data.messages import count
from featherfit.data.parts import PartProcessor
from featherfit.data.processors.cells import unreadable_cells
from featherfit.data.processors.label import LabelProcessor
from featherfit.errors import ConfigError, did_you_mean

ON_ERROR = ("raise", "report")
MOST_LISTED = 10_000
"""Cells that the list of rejected rows names; more are counted."""

REJECTED = ("position", "index", "column", "reason")
"""Columns of that list: position in the table from 0, index label, column, and what is wrong with the cell."""


@dataclass(frozen=True, eq=False)
class Screened:
    """A table's rows, sorted into those that can be processed and those that cannot.

    Attributes:
        table: All rows.
        usable: Which of them can be processed, (rows,).
        frame: Those, in the table's order.
        rejected: A row for each cell that stands in the way, with the columns `REJECTED`; at most `MOST_LISTED`.
    """

    table: pd.DataFrame
    usable: np.ndarray
    frame: pd.DataFrame
    rejected: pd.DataFrame

    @property
    def set_aside(self) -> int:
        """Rows that cannot be processed."""
        return len(self.usable) - len(self.frame)

    def spread(self, values: np.ndarray) -> np.ndarray:
        """Results of `frame`'s rows, (usable rows, ...), at the table's rows, (rows, ...).

        Where a row was set aside stands NaN, or None among values that are not floating-point numbers.
        """
        if len(self.frame) == len(self.table):
            return values
        floating = values.dtype.kind == "f"
        shape = (len(self.usable), *values.shape[1:])
        spread = np.full(shape, np.nan if floating else None, dtype=values.dtype if floating else object)
        spread[self.usable] = values if floating else values.astype(object)
        return spread


def check_on_error(on_error: str) -> None:
    """Raises a ConfigError for anything but `raise` and `report`."""
    if on_error not in ON_ERROR:
        raise ConfigError(
            f"on_error={on_error!r} is unknown.{did_you_mean(on_error, ON_ERROR)} Allowed: raise (an error names the row), "
            "report (the row is set aside)."
        )


def all_rows(table: pd.DataFrame) -> Screened:
    """All rows as they are; whoever processes them raises at the first that cannot be."""
    return Screened(table, np.ones(len(table), dtype=bool), table, no_rejections())


def screen(
    table: pd.DataFrame,
    columns: Sequence[str],
    label: str | None = None,
    labels: LabelProcessor | None = None,
    parts: Iterable[PartProcessor] = (),
) -> Screened:
    """Sets rows aside that cannot be processed.

    Args:
        table: Left as it is.
        columns: Text columns that are read; those that are missing are left for the caller to complain of.
        label: Column of true labels, if they are needed.
        labels: What knows which labels there are.
        parts: Processors of the columns that are read otherwise.
    """
    found: list[tuple[int, str, str]] = []
    for column in columns:
        if column in table.columns:
            found += [(place, column, why) for place, why in unreadable_cells(table[column]).items()]
    for part in parts:
        found += part.unreadable(table)
    if labels is not None and label in table.columns:
        found += [(place, str(label), why) for place, why in labels.unusable(table[label]).items()]
    if not found:
        return all_rows(table)
    usable = np.ones(len(table), dtype=bool)
    usable[[place for place, _, _ in found]] = False
    found.sort(key=lambda cell: cell[0])
    listed = [(place, table.index[place], column, why) for place, column, why in found[:MOST_LISTED]]
    return Screened(table, usable, table[usable], pd.DataFrame(listed, columns=list(REJECTED)))


def no_rejections() -> pd.DataFrame:
    """An empty list of rejected rows."""
    return pd.DataFrame({name: pd.Series(dtype=object) for name in REJECTED}).astype({"position": np.int64})


def warn_of_rejections(set_aside: int, rows: int) -> None:
    """Says that rows were set aside, if any were."""
    if set_aside:
        warnings.warn(
            f"{count(set_aside, 'row')} of {rows} could not be processed and {'has' if set_aside == 1 else 'have'} no result; "
            "`rejected_rows` lists them.",
            stacklevel=4,
        )
