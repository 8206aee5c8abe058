"""The path of a table goes in; its rows come out in chunks, so that a file of any size takes the memory of one chunk.

A text file is read twice: first to count its rows and to see what each column holds, then to hand the rows out. So a
chunk means what it would mean in the whole table (a column of "007" and "new" is text in the chunk that has "007" only),
and a broken file is refused before any work is done on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from featherfit.data.damage import refuse_damage
from featherfit.data.images import with_folder
from featherfit.data.load import (
    DELIMITED,
    delimited_errors,
    file_ending,
    header,
    is_json_list,
    json_lines,
    load_table,
    opened_text,
    parquet_errors,
    records_frame,
    refuse_duplicates,
)
from featherfit.storage import expanded

if TYPE_CHECKING:
    import pyarrow as pa

ARROW_TYPES = {
    "integer": "int64",
    "unsigned": "uint64",
    "floating": "float64",
    "boolean": "bool",
    "string": "string",
}
"""By what a column of a text file holds."""


@dataclass(frozen=True, eq=False)
class TableFile:
    """A table in a file.

    Attributes:
        path: The file.
        rows: Number of rows.
        types: Arrow type of every column, in the file's order; None for values of several kinds, or nested ones in JSON.
    """

    path: Path
    rows: int
    types: dict[str, pa.DataType | None]
    _read: Callable[[list[str]], Iterator[pd.DataFrame]]

    def chunks(self, columns: Sequence[str]) -> Iterator[pd.DataFrame]:
        """These columns of all rows, in order; the index is a row's position in the file, from 0."""
        start = 0
        for frame in self._read(list(columns)):
            placed = frame.set_axis(pd.RangeIndex(start, start + len(frame)), axis=0)
            refuse_damage(placed, repr(str(self.path)))
            yield with_folder(placed, self.path)
            start += len(frame)


def open_table(path: str | Path, chunk_rows: int, *, name: str = "data") -> TableFile:
    """A table that is read by chunks.

    Args:
        path: A file as for `load_table`, with the same rules. A `.json` file that is one list is read whole, since it has
            no beginning to be read alone.
        chunk_rows: Most rows of a chunk, at least 1.
        name: What messages call the table.

    Raises:
        DataError: What `load_table` refuses.
    """
    path = expanded(path)
    return OPENERS[file_ending(path, name)](path, chunk_rows)


@dataclass
class _Contents:
    """What the columns of a text file hold, gathered chunk by chunk.

    Attributes:
        rows: Rows seen.
        kinds: Kinds of values by column.
        gaps: Columns with values missing.
    """

    rows: int = 0
    kinds: dict[str, set[str]] = field(default_factory=dict)
    gaps: set[str] = field(default_factory=set)

    def add(self, frame: pd.DataFrame) -> _Contents:
        """Takes the next chunk in."""
        self.gaps.update(name for name in frame.columns if name not in self.kinds and self.rows)
        self.gaps.update(name for name in self.kinds if name not in frame.columns)
        for name in frame.columns:
            column, kinds = frame[name], self.kinds.setdefault(name, set())
            missing = column.isna()
            if missing.any():
                self.gaps.add(name)
            if not missing.all():
                kinds.add(_kind(column))
        self.rows += len(frame)
        return self

    def kind(self, name: str) -> str:
        """What pandas would take the whole column for: a key of `ARROW_TYPES`, or `mixed`."""
        kinds = self.kinds[name]
        if not kinds or (kinds == {"integer"} and name in self.gaps) or kinds == {"integer", "floating"}:
            return "floating"
        return next(iter(kinds)) if len(kinds) == 1 else "mixed"


def _kind(column: pd.Series) -> str:
    kind = pd.api.types.infer_dtype(column, skipna=True)
    if kind in ("integer", "floating") and column.dtype == object:
        return "mixed"  # such as integers beyond 64 bits
    if kind == "integer" and column.dtype.kind == "u":
        return "unsigned"
    return kind if kind in ARROW_TYPES else "mixed"


def _open_delimited(path: Path, separator: str, chunk_rows: int) -> TableFile:
    names = header(path, separator)

    def read(dtypes: dict[str, Any] | None = None) -> Iterator[pd.DataFrame]:
        with opened_text(path) as text:
            with delimited_errors(path, names):
                reader = pd.read_csv(text, sep=separator, chunksize=chunk_rows, dtype=dtypes, **DELIMITED)
            while True:
                with delimited_errors(path, names):
                    frame = next(reader, None)
                if frame is None:
                    return
                yield frame

    contents = _Contents()
    for frame in read():
        contents.add(frame)
    kinds = {name: contents.kind(name) for name in contents.kinds}
    # Where values differ in kind, the whole column is text, and so is every chunk of it.
    kinds = {name: "string" if kind == "mixed" else kind for name, kind in kinds.items()}
    # A boolean column may have gaps, for which numpy has no boolean; pandas sees to it.
    dtypes: dict[str, Any] = {
        name: str if kind == "string" else ARROW_TYPES[kind] for name, kind in kinds.items() if kind != "boolean"
    }
    return TableFile(path, contents.rows, _arrow(kinds), lambda columns: (frame[columns] for frame in read(dtypes)))


def _open_csv(path: Path, chunk_rows: int) -> TableFile:
    return _open_delimited(path, ",", chunk_rows)


def _open_tsv(path: Path, chunk_rows: int) -> TableFile:
    return _open_delimited(path, "\t", chunk_rows)


def _open_json(path: Path, chunk_rows: int) -> TableFile:
    whole = load_table(path) if is_json_list(path) else None

    def read() -> Iterator[pd.DataFrame]:
        if whole is not None:
            yield from (whole[start : start + chunk_rows] for start in range(0, len(whole), chunk_rows))
            return
        start, records = 0, []
        for record in json_lines(path):
            records.append(record)
            if len(records) == chunk_rows:
                yield records_frame(records, repr(str(path)), start)
                start, records = start + len(records), []
        if records:
            yield records_frame(records, repr(str(path)), start)

    contents = _Contents()
    for frame in read():
        contents.add(frame)
    kinds = {name: contents.kind(name) for name in contents.kinds}
    floats = [name for name, kind in kinds.items() if kind == "floating"]

    def chunks(columns: list[str]) -> Iterator[pd.DataFrame]:
        numbers = dict.fromkeys((name for name in columns if name in floats), "float64")
        return (frame.reindex(columns=columns).astype(numbers) for frame in read())

    return TableFile(path, contents.rows, _arrow(kinds), chunks)


def _arrow(kinds: dict[str, str]) -> dict[str, pa.DataType | None]:
    import pyarrow as pa

    return {name: None if kind == "mixed" else pa.type_for_alias(ARROW_TYPES[kind]) for name, kind in kinds.items()}


def _open_parquet(path: Path, chunk_rows: int) -> TableFile:
    with parquet_errors(path):
        import pyarrow.parquet as pq

        with pq.ParquetFile(path) as file:
            schema, rows = file.schema_arrow, file.metadata.num_rows
    refuse_duplicates(schema.names, repr(str(path)))

    def read(columns: list[str]) -> Iterator[pd.DataFrame]:
        # With a buffer a row group is read as its rows are needed, however large it is.
        with parquet_errors(path):
            file = pq.ParquetFile(path, buffer_size=1 << 20)
        with file:
            batches = file.iter_batches(chunk_rows, columns=columns)
            while True:
                with parquet_errors(path):
                    batch = next(batches, None)
                if batch is None:
                    return
                yield batch.to_pandas(types_mapper=_pandas_type, ignore_metadata=True)[columns]

    return TableFile(path, rows, {column.name: column.type for column in schema}, read)


def _pandas_type(kind: pa.DataType) -> Any:
    """The pandas type that keeps values as they are where some are missing; None for pandas' usual one."""
    import pyarrow as pa

    if kind == pa.bool_():
        return pd.BooleanDtype()
    if pa.types.is_integer(kind):
        return pd.api.types.pandas_dtype(str(kind).replace("i", "I", 1).replace("u", "U", 1))
    if pa.types.is_floating(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return None
    return pd.ArrowDtype(kind)


OPENERS: dict[str, Callable[[Path, int], TableFile]] = {
    ".csv": _open_csv,
    ".tsv": _open_tsv,
    ".parquet": _open_parquet,
    ".json": _open_json,
    ".jsonl": _open_json,
    ".ndjson": _open_json,
}
