"""Chunks of a table go in; a Parquet, CSV, TSV or JSON-lines file comes out, whole or not at all."""

from __future__ import annotations

import contextlib
import json
import secrets
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from featherfit.data.messages import raise_all, some
from featherfit.errors import ConfigError, DataError, PathExistsError
from featherfit.storage import expanded

if TYPE_CHECKING:
    import pyarrow as pa

Write = Callable[[pd.DataFrame], None]


def check_target(source: str | Path, target: str | Path, *, overwrite: bool = False, name: str = "target") -> str:
    """The ending of a file that can be written, found out before anything slow begins.

    Args:
        source: The file that is read meanwhile.
        target: The file to write.
        overwrite: Whether `target` may be there already.
        name: What messages call the target.

    Raises:
        ConfigError: An ending that is none of `WRITERS`, a folder that does not exist, or the source itself.
        PathExistsError: `target` is there already, or is a folder.
    """
    path = expanded(target)
    ending = path.suffix.lower()
    if ending not in WRITERS:
        raise ConfigError(f"{name} {target}: a file's name has to end in one of {', '.join(WRITERS)}.")
    if not path.parent.is_dir():
        raise ConfigError(f"{name} {target}: there is no folder {path.parent}.")
    origin = expanded(source)
    if path.resolve() == origin.resolve() or (path.exists() and origin.exists() and path.samefile(origin)):
        raise ConfigError(f"{name} {target} is the input itself. Choose another file.")
    if path.is_dir():
        raise PathExistsError(f"{name} {target} is a folder. Choose a file.")
    if path.exists() and not overwrite:
        raise PathExistsError(
            f"{name} {target} exists. Choose another file, or overwrite it: overwrite=True (--overwrite)."
        )
    return ending


def check_types(types: Mapping[str, pa.DataType | None], ending: str) -> None:
    """Refuses columns a file of this ending cannot hold.

    Args:
        types: Arrow type by column; None for values of several kinds.
        ending: A key of `WRITERS`.

    Raises:
        DataError: Names the columns.
    """
    from pyarrow import types as kind

    mixed = [name for name, dtype in types.items() if dtype is None]
    known = {name: dtype for name, dtype in types.items() if dtype is not None}
    binary = [name for name, dtype in known.items() if kind.is_binary(dtype) or kind.is_large_binary(dtype)]
    nested = [name for name, dtype in known.items() if kind.is_nested(dtype)]
    problems = []
    if ending == ".parquet" and mixed:
        problems.append(f"Columns {some(mixed)} hold values of several kinds, which Parquet cannot. Write .jsonl.")
    if ending in (".csv", ".tsv") and nested:
        problems.append(
            f"Columns {some(nested)} hold lists or records, which {ending} cannot. Write .parquet or .jsonl."
        )
    if ending != ".parquet" and binary:
        problems.append(f"Columns {some(binary)} hold bytes, which {ending} cannot. Write .parquet.")
    raise_all(DataError, problems, "the columns to write")


@contextlib.contextmanager
def written_table(target: Path, types: Mapping[str, pa.DataType | None], *, overwrite: bool = False) -> Iterator[Write]:
    """A function that takes chunks of a table; `target` appears when the block ends well, and nothing otherwise.

    Args:
        target: A path that `check_target` allows.
        types: Arrow type by column, in the order of the chunks' columns, which `check_types` allows.
        overwrite: Whether to replace a file that has appeared at `target`.

    Raises:
        PathExistsError: A file has appeared meanwhile.
    """
    ending = target.suffix.lower()
    fresh = target.with_name(f".{target.name}-{secrets.token_hex(4)}{ending}")
    try:
        with WRITERS[ending](fresh, types) as write:
            yield write
        if target.exists() and not overwrite:
            raise PathExistsError(f"{target} has appeared meanwhile and is left as it is. Choose another file.")
        fresh.replace(target)
    finally:
        fresh.unlink(missing_ok=True)


def write_rejected(rejected: pd.DataFrame, target: str | Path, *, overwrite: bool = False) -> None:
    """Writes which rows were set aside, and why; index labels that are no whole numbers as text.

    Args:
        rejected: As `rejected_rows` has it.
        target: A path that `check_target` allows.
        overwrite: Whether to replace a file that is there.

    Raises:
        PathExistsError: A file has appeared meanwhile.
    """
    import pyarrow as pa

    types = {name: pa.int64() if name == "position" else pa.string() for name in rejected.columns}
    if pd.api.types.is_integer_dtype(rejected["index"].infer_objects()):
        types["index"] = pa.int64()
    else:
        rejected = rejected.assign(index=rejected["index"].map(str))
    with written_table(expanded(target), types, overwrite=overwrite) as write:
        write(rejected)


@contextlib.contextmanager
def _parquet(path: Path, types: Mapping[str, Any]) -> Iterator[Write]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema(types.items())
    with pq.ParquetWriter(path, schema) as writer:
        yield lambda frame: writer.write_table(pa.Table.from_pandas(frame, schema=schema, preserve_index=False))


@contextlib.contextmanager
def _delimited(path: Path, types: Mapping[str, Any], separator: str) -> Iterator[Write]:
    options: dict[str, Any] = {"sep": separator, "index": False, "lineterminator": "\n"}
    with path.open("x", encoding="utf-8", newline="") as file:
        pd.DataFrame(columns=list(types)).to_csv(file, **options)
        yield lambda frame: frame.to_csv(file, header=False, **options)


def _csv(path: Path, types: Mapping[str, Any]) -> contextlib.AbstractContextManager[Write]:
    return _delimited(path, types, ",")


def _tsv(path: Path, types: Mapping[str, Any]) -> contextlib.AbstractContextManager[Write]:
    return _delimited(path, types, "\t")


@contextlib.contextmanager
def _jsonl(path: Path, types: Mapping[str, Any]) -> Iterator[Write]:
    with path.open("x", encoding="utf-8", newline="\n") as file:

        def write(frame: pd.DataFrame) -> None:
            columns = [_json_values(frame[name]) for name in types]
            for row in zip(*columns, strict=True):
                record = dict(zip(types, row, strict=True))
                file.write(json.dumps(record, ensure_ascii=False, default=_json_value) + "\n")

        yield write


def _json_values(column: pd.Series) -> list[Any]:
    """Python values; None where missing."""
    if column.dtype == np.float32:
        column = column.astype(str).astype("float64")  # 0.1 and not 0.10000000149011612
    missing = column.isna()
    return column.astype(object).where(~missing, None).tolist()


def _json_value(value: Any) -> Any:
    """Arrays in nested columns as lists; dates and decimals as text."""
    return value.tolist() if hasattr(value, "tolist") else str(value)


WRITERS: dict[str, Callable[[Path, Mapping[str, Any]], contextlib.AbstractContextManager[Write]]] = {
    ".csv": _csv,
    ".tsv": _tsv,
    ".parquet": _parquet,
    ".jsonl": _jsonl,
}
