"""A `Fitted` and a file go in; a file with its predictions comes out, in the memory of one chunk whatever its size."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from featherfit.artifact.fitted import Fitted
from featherfit.data.chunks import TableFile, open_table
from featherfit.data.messages import lacking_columns, raise_all, some
from featherfit.data.parts import PartRows
from featherfit.data.processors.cells import column_texts
from featherfit.data.processors.several import SeveralLabels
from featherfit.data.rows import (
    MOST_LISTED,
    Screened,
    all_rows,
    check_on_error,
    no_rejections,
    screen,
    warn_of_rejections,
)
from featherfit.data.write import check_target, check_types, written_table
from featherfit.errors import ConfigError, DataError, did_you_mean
from featherfit.inference.predict import Progress, outputs, table_rows
from featherfit.inference.tables import prediction_table, without_probabilities
from featherfit.storage import expanded

if TYPE_CHECKING:
    import pyarrow as pa

REMEMBERED = 100_000
"""Distinct rows whose results are kept; about 25 MB."""


@dataclass(frozen=True)
class PredictedFile:
    """What became of a prediction; stands for its path wherever one is asked for.

    Attributes:
        path: The file written.
        rows: Rows in it.
        computed: Rows that went through the model; the others repeat a recent one.
        rejected: Rows that could not be processed and have no result.
    """

    path: Path
    rows: int
    computed: int
    rejected: int = 0

    def __fspath__(self) -> str:
        return str(self.path)


def predict_file(
    fitted: Fitted,
    source: str | Path,
    target: str | Path,
    *,
    proba: bool = False,
    keep_columns: str | Sequence[str] = (),
    chunk_rows: int = 20_000,
    overwrite: bool = False,
    progress: Callable[[int], AbstractContextManager[Progress]],
    on_error: str = "raise",
) -> tuple[PredictedFile, pd.DataFrame]:
    """Predicts a file chunk by chunk.

    Args:
        fitted: The predictor.
        source, target, proba, keep_columns, chunk_rows, overwrite, on_error: As for `MultiModalPredictor.predict_file`.
        progress: Given the number of rows, a context whose value is called with the number of rows just done.

    Returns:
        What became of it, and the list of rows that were set aside (see `data/rows.py`).

    Raises:
        ConfigError: Arguments that do not fit the predictor or the paths.
        PathExistsError: `target` exists.
        DataError: A file or rows that cannot be used; no target is written.
    """
    check_on_error(on_error)
    target = expanded(target)
    ending = check_target(source, target, overwrite=overwrite)
    kept = [keep_columns] if isinstance(keep_columns, str) else list(keep_columns)
    result_types = _result_types(fitted, proba)
    _check_request(fitted, kept, list(result_types), proba, chunk_rows)
    table = open_table(source, chunk_rows, name="source")
    read = [*fitted.text.columns, *(column for part in fitted.parts.values() for column in part.columns)]
    _check_columns(table, "columns" if fitted.parts else "text columns", read, kept)
    types = {**{name: table.types[name] for name in kept}, **result_types}
    check_types(types, ending)
    results, rows, set_aside = RecentResults(fitted, REMEMBERED), 0, 0
    rejected: list[pd.DataFrame] = []
    with progress(table.rows) as advance, written_table(target, types, overwrite=overwrite) as write:
        for frame in table.chunks(list(dict.fromkeys([*kept, *read]))):
            chunk = all_rows(frame)
            if on_error == "report":
                chunk = screen(frame, fitted.text.columns, parts=fitted.parts.values())
            logits = results.logits(chunk.frame, advance)
            write(pd.concat([frame[kept], result_frame(fitted, logits, proba, chunk)], axis=1))
            if chunk.set_aside and sum(map(len, rejected)) < MOST_LISTED:
                rejected.append(chunk.rejected.assign(position=chunk.rejected["index"]))
            rows, set_aside = rows + len(frame), set_aside + chunk.set_aside
    warn_of_rejections(set_aside, rows)
    listed = pd.concat(rejected, ignore_index=True) if rejected else no_rejections()
    return PredictedFile(target, rows, results.computed, set_aside), listed[:MOST_LISTED]


class RecentResults:
    """Runs the model on rows that have not come lately, and remembers the logits of those that have.

    Attributes:
        computed: Rows that went through the model.
    """

    def __init__(self, fitted: Fitted, limit: int):
        """Args are the predictor, and how many distinct rows to remember beyond those of the present table."""
        self.computed = 0
        self._fitted, self._limit = fitted, limit
        self._known: OrderedDict[bytes, bytes] = OrderedDict()

    def logits(self, frame: pd.DataFrame, progress: Progress = None) -> np.ndarray:
        """Logits of the rows of a table with the columns that are read, (rows, C) float32.

        Raises:
            DataError: Values that cannot be read; the message names their index.
        """
        keys = row_digests(frame, self._fitted.text.columns, [part(frame) for part in self._fitted.parts.values()])
        first: dict[bytes, int] = {}
        for position, key in enumerate(keys):
            first.setdefault(key, position)
        fresh = [key for key in first if key not in self._known]
        if progress is not None:
            progress(len(keys) - len(fresh))
        rows = table_rows(self._fitted, frame.iloc[[first[key] for key in fresh]])
        computed = outputs(self._fitted, rows, progress=progress)
        self.computed += len(fresh)
        found = {key: self._known.pop(key) for key in first if key in self._known}
        found.update(zip(fresh, (row.tobytes() for row in computed), strict=True))
        self._known.update(found)  # what was found again counts as new
        while len(self._known) > self._limit:
            self._known.popitem(last=False)
        joined = bytearray(b"".join(found[key] for key in keys))
        return np.frombuffer(joined, dtype=np.float32).reshape(len(keys), computed.shape[1])


def row_digests(frame: pd.DataFrame, columns: Sequence[str], others: Sequence[PartRows] = ()) -> list[bytes]:
    """16 bytes for each row that stand for its texts and what else is read (BLAKE2b); the same for rows that read the same."""
    digests = []
    columns_of_texts = [column_texts(frame[column]) for column in columns]
    for position in range(len(frame)):
        # Lengths first, so that no two rows of several columns run into the same bytes.
        parts = [texts[position].encode("utf-8", "surrogatepass") for texts in columns_of_texts]
        parts += [rows.content(position) for rows in others]
        content = b",".join([*(str(len(part)).encode() for part in parts), *parts])
        digests.append(hashlib.blake2b(content, digest_size=16).digest())
    return digests


def _result_types(fitted: Fitted, proba: bool) -> dict[str, pa.DataType]:
    """Arrow types of the columns predicted and, with `proba`, of one for every class."""
    import pyarrow as pa

    label = fitted.label
    parts = label.parts if isinstance(label, SeveralLabels) else [label] * len(label.names or [label])
    types = {}
    for name, part in zip(result_names(fitted), parts, strict=True):
        classes = part.classes
        text = classes.dtype == object
        types[name] = pa.float64() if part.numeric else pa.string() if text else pa.from_numpy_dtype(classes.dtype)
    return {**types, **({f"proba_{name}": pa.float32() for name in label.classes.tolist()} if proba else {})}


def result_names(fitted: Fitted) -> list[str]:
    """What the columns of predictions are called in a file: as the label columns; of quantiles with their level."""
    label = fitted.label
    if label.levels:
        return [f"{fitted.schema.label}_{level:g}" for level in label.levels]
    return [str(fitted.schema.label)] if label.names is None else list(map(str, label.names))


def result_frame(fitted: Fitted, logits: np.ndarray, proba: bool, rows: Screened) -> pd.DataFrame:
    """Predictions of the rows of a table and, with `proba`, a column for every class; rows set aside have none."""
    table = rows.table
    predicted = prediction_table(rows.spread(fitted.reading.predictions(logits)), table, fitted)
    frame = pd.DataFrame(predicted).set_axis(result_names(fitted), axis=1)
    if not proba:
        return frame
    names = [f"proba_{label}" for label in fitted.label.classes.tolist()]
    spread = rows.spread(fitted.reading.probabilities(logits))
    return pd.concat([frame, pd.DataFrame(spread, index=table.index, columns=names)], axis=1)


def _check_request(fitted: Fitted, kept: list[str], results: list[str], proba: bool, chunk_rows: Any) -> None:
    problems = []
    if isinstance(chunk_rows, bool) or not isinstance(chunk_rows, int) or chunk_rows < 1:
        problems.append(f"chunk_rows={chunk_rows!r} has to be a whole number of at least 1.")
    if proba:
        problems += without_probabilities(fitted.label, "proba", "Leave it out.")
    problems += [
        f"keep_columns names {name!r}, which is what a column of predictions is called. Rename it in the source."
        for name in kept
        if name in results
    ]
    twice = list(dict.fromkeys(name for name in kept if kept.count(name) > 1))
    if twice:
        problems.append(f"keep_columns names {some(twice)} more than once.")
    if problems:
        raise ConfigError(problems)


def _check_columns(table: TableFile, what: str, read: list[str], kept: list[str]) -> None:
    given = ", ".join(map(str, table.types)) or "none"
    lacking = lacking_columns(read, table.types, what, repr(str(table.path)))
    problems = [] if lacking is None else [lacking]
    problems += [
        f"keep_columns names {name!r}, which is not a column.{did_you_mean(name, table.types)} Given: {given}."
        for name in kept
        if name not in table.types
    ]
    raise_all(DataError, problems, "the source")
