"""Columns of categories, truth values, numbers and points in time go in; codes and numbers, row by row, come out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd

from featherfit.config.schema import Config
from featherfit.data.messages import lacking_columns, some
from featherfit.data.processors.columns import Categories, Numbers, Times
from featherfit.data.schema import Schema
from featherfit.errors import DataError

if TYPE_CHECKING:
    import torch

COLUMNS_PER_TOKEN = 8
"""Columns that cost as much as one token of text."""


@dataclass(frozen=True)
class TableSpec:
    """What a model has to know of the columns.

    Attributes:
        codes: How many codes each column of categories has.
        edges: Of the pieces of each number's code, at least two, rising.
    """

    codes: tuple[int, ...]
    edges: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, eq=False)
class TableRows:
    """Rows of a table, as a `PartRows`.

    Attributes:
        categories: Codes, (rows, columns of categories) int64.
        numbers: (rows, numbers) float32.
    """

    categories: np.ndarray
    numbers: np.ndarray

    decodes: ClassVar[bool] = False

    def augmented(self, words: Sequence[str], seed: int, epoch: int) -> TableRows:
        """Themselves: nothing is changed at random."""
        return self

    @property
    def lengths(self) -> np.ndarray:
        """A token for every eight columns."""
        cost = 1 + (self.categories.shape[1] + self.numbers.shape[1]) // COLUMNS_PER_TOKEN
        return np.full(len(self.categories), cost, dtype=np.int64)

    def content(self, position: int) -> bytes:
        """Codes and numbers of a row."""
        return self.categories[position].tobytes() + self.numbers[position].tobytes()

    def tensors(self, positions: np.ndarray) -> dict[str, torch.Tensor]:
        """`categories` (B, columns of categories) int64 and `numbers` (B, numbers) float32."""
        import torch

        return {
            "categories": torch.from_numpy(self.categories[positions]),
            "numbers": torch.from_numpy(self.numbers[positions]),
        }


@dataclass(frozen=True)
class TableProcessor:
    """Fitted columns; a `PartProcessor`.

    Attributes:
        categories, numbers, times: Columns by kind, in the order of the table.
    """

    categories: tuple[Categories, ...]
    numbers: tuple[Numbers, ...]
    times: tuple[Times, ...]

    @classmethod
    def fit(cls, frame: pd.DataFrame, columns: Sequence[str], schema: Schema, config: Config) -> TableProcessor:
        """Learns from training rows.

        Args:
            frame: The rows.
            columns: Those to read.
            schema: Says what each of them is.
            config: `data.categorical`, `data.numerical` and the number of bins are read.

        Raises:
            DataError: A cell that is not of its column's type.
        """
        kinds = {name: schema.columns[name] for name in columns}
        bins = config.model.ft_transformer.numerical_bins
        processor = cls(
            tuple(
                Categories.fit(frame[name], config.data.categorical, boolean=kind == "boolean")
                for name, kind in kinds.items()
                if kind in ("categorical", "boolean")
            ),
            tuple(
                Numbers.fit(frame[name], config.data.numerical, bins)
                for name, kind in kinds.items()
                if kind == "numerical"
            ),
            tuple(
                Times.fit(frame[name], config.data.numerical, bins)
                for name, kind in kinds.items()
                if kind == "datetime"
            ),
        )
        processor._refuse_unreadable(frame)
        return processor

    @property
    def columns(self) -> list[str]:
        """The columns read: categories, numbers, points in time."""
        return [one.column for one in self._all()]

    @property
    def spec(self) -> TableSpec:
        """What a model has to know of them."""
        edges = [edges for one in self._measured() for edges in one.all_edges]
        return TableSpec(tuple(one.codes for one in self.categories), tuple(map(tuple, edges)))

    def __call__(self, frame: pd.DataFrame) -> TableRows:
        """Codes and numbers of every row.

        Raises:
            DataError: A column is missing, or a cell is not of its column's type.
        """
        lacking = lacking_columns(self.columns, frame.columns, "columns")
        if lacking is not None:
            raise DataError(lacking)
        self._refuse_unreadable(frame)
        codes = [one(frame[one.column])[:, None] for one in self.categories]
        values = [one(frame[one.column]) for one in self._measured()]
        return TableRows(
            np.concatenate([np.empty((len(frame), 0), dtype=np.int64), *codes], axis=1),
            np.concatenate([np.empty((len(frame), 0), dtype=np.float32), *values], axis=1),
        )

    def unreadable(self, frame: pd.DataFrame) -> list[tuple[int, str, str]]:
        """Position, column and what is wrong, of each cell that is not of its column's type."""
        return [
            (place, one.column, why)
            for one in self._all()
            if one.column in frame.columns
            for place, why in one.unreadable(frame[one.column]).items()
        ]

    def to_json(self) -> dict[str, Any]:
        """What was fitted, as JSON values."""
        return {kind: [asdict(one) for one in getattr(self, kind)] for kind in ("categories", "numbers", "times")}

    @classmethod
    def from_json(cls, state: Mapping[str, Any]) -> TableProcessor:
        """What `to_json` gave."""
        return cls(
            tuple(Categories(**one) for one in state["categories"]),
            tuple(Numbers(**one) for one in state["numbers"]),
            tuple(Times(**{**one, "linear": Numbers(**one["linear"])}) for one in state["times"]),
        )

    def _measured(self) -> tuple[Numbers | Times, ...]:
        return (*self.numbers, *self.times)

    def _all(self) -> tuple[Categories | Numbers | Times, ...]:
        return (*self.categories, *self.numbers, *self.times)

    def _refuse_unreadable(self, frame: pd.DataFrame) -> None:
        found = self.unreadable(frame)
        if found:
            place, column, why = min(found)
            more = f" (and {len(found) - 1} more cells)" if len(found) > 1 else ""
            raise DataError(
                f"Row {some([frame.index[place]])}, column {column!r}: {why}{more}. Correct it, leave it empty, pass "
                f"on_error='report' where rows are predicted, or fit with column_types={{{column!r}: 'text'}}."
            )
