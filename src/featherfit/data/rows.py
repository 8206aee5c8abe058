"""A table goes in; the rows that can be processed, and a list of those that cannot, come out.

Rows are known by their position, never by their index, which may repeat itself: what is computed of the rows that are left
goes back to where they stood, and nothing else does.
"""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from featherfit.data.column_types import IMAGE_TYPES, infer_column_type
from featherfit.data.image_columns import unreadable_images
from featherfit.data.images import folder_of
from featherfit.data.label_columns import label_columns, lacking_labels
from featherfit.data.labels import as_float, kind_of
from featherfit.data.messages import count
from featherfit.data.parts import PartProcessor
from featherfit.data.processors.cells import is_unicode, unreadable_cells
from featherfit.data.processors.columns import as_floats
from featherfit.data.processors.several import Target, unlearnable_flags, unlearnable_lists
from featherfit.data.weights import unusable_weights
from featherfit.errors import ConfigError, did_you_mean
from featherfit.types import NUMBERS

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
        return spread(values, self.usable)


def spread(values: np.ndarray, usable: np.ndarray) -> np.ndarray:
    """Values of the usable rows, (usable rows, ...), at their places among all, (rows, ...); see `Screened.spread`.

    Args:
        values: One or more for each usable row.
        usable: Which rows those are, (rows,).
    """
    if usable.all():
        return values
    floating = values.dtype.kind == "f"
    shape = (len(usable), *values.shape[1:])
    placed = np.full(shape, np.nan if floating else None, dtype=values.dtype if floating else object)
    placed[usable] = values if floating else values.astype(object)
    return placed


def check_on_error(on_error: str, name: str = "on_error=") -> None:
    """Raises a ConfigError, in which the argument is called `name`, for anything but `raise` and `report`."""
    if on_error not in ON_ERROR:
        raise ConfigError(
            f"{name}{on_error!r} is unknown.{did_you_mean(on_error, ON_ERROR)} Allowed: raise (an error names the row), "
            "report (the row is set aside)."
        )


def all_rows(table: pd.DataFrame) -> Screened:
    """All rows as they are; whoever processes them raises at the first that cannot be."""
    return Screened(table, np.ones(len(table), dtype=bool), table, no_rejections())


def screen(
    table: pd.DataFrame,
    columns: Sequence[str],
    label: str | list[str] | None = None,
    labels: Target | None = None,
    parts: Iterable[PartProcessor] = (),
    weight: str | None = None,
) -> Screened:
    """Sets rows aside that cannot be processed.

    Args:
        table: Left as it is.
        columns: Text columns that are read; those that are missing are left for the caller to complain of.
        label: Column of true labels, or a list of several, if they are needed.
        labels: What knows which labels there are.
        parts: Processors of the columns that are read otherwise.
        weight: Column of weights, if they are needed.
    """
    found: list[tuple[int, str, str]] = []
    for column in columns:
        if column in table.columns:
            found += [(place, column, why) for place, why in unreadable_cells(table[column]).items()]
    for part in parts:
        found += part.unreadable(table)
    if labels is not None and label is not None and lacking_labels(table, label) is None:
        name = ", ".join(label_columns(label))
        found += [(place, name, why) for place, why in labels.unusable(table[label]).items()]
    return _without(table, [*found, *_odd_weights(table, weight)])


def _odd_weights(table: pd.DataFrame, weight: str | None) -> list[tuple[int, str, str]]:
    if weight is None or weight not in table.columns:
        return []
    return [(place, weight, why) for place, why in unusable_weights(table[weight]).items()]


def screen_training(
    table: pd.DataFrame,
    label: str | list[str],
    column_types: Mapping[str, str] | None = None,
    *,
    problem_type: str | None = None,
    weight: str | None = None,
) -> Screened:
    """Sets rows aside that cannot be trained on, where nothing is known yet but the table itself.

    Cells count where their column is text without them: because `column_types` says so, or because most of its cells can be
    read and are text; where it is of images; and where `column_types` says that they are numbers, and they are none. A label
    has to be there, to be of the type that most labels have, and no infinite number.

    Args:
        table: Left as it is.
        label: Column to predict, or a list of several.
        column_types: Types that are known, by column.
        problem_type: What was asked for: of numbers labels have to read as such, of several labels hold 0 and 1, or be lists.
        weight: Column of the weights of rows.
    """
    given = column_types or {}
    labels = label_columns(label)
    found: list[tuple[int, str, str]] = []
    for name in table.columns:
        if name in labels or name == weight:
            continue
        if given.get(name) == "numerical":
            cells, odd_numbers = table[name].tolist(), as_floats(table[name])[1]
            found += [
                (int(place), name, f"{str(cells[place])[:60]!r} is no number") for place in np.flatnonzero(odd_numbers)
            ]
        kind = given.get(name) or infer_column_type(table[name], folder_of(table))[0]
        if kind in IMAGE_TYPES:
            cells = unreadable_images(table[name].tolist(), kind, folder_of(table))
            found += [(place, name, why) for place, why in cells.items()]
            continue
        if given.get(name, "text") != "text":
            continue
        if name not in given and table[name].dtype.kind in _PLAIN_KINDS:
            continue
        odd = unreadable_cells(table[name])
        if odd and (name in given or _text_but_for(table[name], list(odd))):
            found += [(place, name, why) for place, why in odd.items()]
    for name in labels:
        if name in table.columns:
            found += [(at, name, why) for at, why in _unlearnable(table[name], problem_type, label).items()]
    return _without(table, [*found, *_odd_weights(table, weight)])


def _text_but_for(column: pd.Series, odd: list[int]) -> bool:
    """Whether a column is text but for the cells at some positions, which are fewer than the others."""
    left = column.iloc[np.setdiff1d(np.arange(len(column)), odd)]
    return len(odd) < left.notna().sum() and infer_column_type(left)[0] == "text"


def _unlearnable(column: pd.Series, problem_type: str | None, label: str | list[str]) -> dict[int, str]:
    """What is wrong with labels that nothing can be learnt from, by position."""
    if problem_type == "multilabel":
        return unlearnable_lists(column) if isinstance(label, str) else unlearnable_flags(column)
    return _unlearnable_values(column, regression=problem_type in NUMBERS)


def _unlearnable_values(column: pd.Series, *, regression: bool) -> dict[int, str]:
    values, absent = column.tolist(), column.isna().tolist()
    kinds = [None if (known := kind_of(type(value))) is None else _COUNTS_AS[known] for value in values]
    present = Counter(kind for kind, gone in zip(kinds, absent, strict=True) if kind is not None and not gone)
    common, times = (present.most_common(1) or [("", 0)])[0]
    mixed = 2 * times <= present.total()  # nobody can say which of them are the odd ones
    found = {}
    for position, (value, gone, kind) in enumerate(zip(values, absent, kinds, strict=True)):
        if gone:
            found[position] = "no label"
        elif kind is None:
            found[position] = f"{type(value).__name__} is no label"
        elif kind != common and not mixed:
            found[position] = f"{str(value)[:60]!r} is a label of another type"
        elif kind == "text" and not is_unicode(value):
            found[position] = "half of a surrogate pair, which is no text"
        elif _no_number(value, kind, regression):
            found[position] = f"{str(value)[:60]!r} is not a finite number"
    return found


_PLAIN_KINDS = "biufcmM"
"""NumPy's kinds of columns that have neither text nor anything odd."""

_COUNTS_AS = {"text": "text", "boolean": "boolean", "integer": "number", "float": "number"}
"""What labels count as: whole numbers and fractions may stand together."""


def _no_number(value: Any, kind: str, regression: bool) -> bool:
    if kind == "text":
        return regression and not np.isfinite(pd.to_numeric(value, errors="coerce"))
    return kind == "number" and math.isinf(as_float(value))


def _without(table: pd.DataFrame, found: list[tuple[int, str, str]]) -> Screened:
    """A table's rows and those of them in which a cell was found, each with its position, column and reason."""
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
        _warn(f"{count(set_aside, 'row')} of {rows}", f"{'has' if set_aside == 1 else 'have'} no result")


def left_out(rows: Screened, name: str) -> pd.DataFrame:
    """The cells that keep rows out of a fit, with a further column `table`; says that there are any.

    Args:
        rows: A table of a fit, screened.
        name: What the user calls it, such as `train_data`.
    """
    if rows.set_aside:
        what = f"{count(rows.set_aside, 'row')} of {len(rows.table)} in {name}"
        _warn(what, f"{'is' if rows.set_aside == 1 else 'are'} left out")
    return rows.rejected.assign(table=name)


def _warn(rows: str, become: str) -> None:
    warnings.warn(
        f"{rows} could not be processed and {become}; rejected_rows (--rejected FILE) lists them.", stacklevel=5
    )
