"""A table in any usual form goes in (frame, dataset, lists, file); a pandas DataFrame comes out, its values untouched.

Files are read so that text stays text: in a CSV only an empty field is missing, so a review that says "None" or "NA" is
a review, and nothing in a JSON line is turned into a date or a number.
"""

from __future__ import annotations

import gzip
import io
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from featherfit.data.messages import some
from featherfit.errors import DataError, MissingDependencyError

_KINDS = "a pandas DataFrame, a datasets.Dataset, a dict of lists, a list of dicts, or a path to a file"


def load_table(data: Any, *, name: str = "data") -> pd.DataFrame:
    """Reads `data` into a DataFrame.

    Args:
        data: A DataFrame (returned as it is, never changed), an object with `to_pandas` (`datasets.Dataset`, Arrow,
            polars), a dict of equally long lists, a list of dicts, or the path of a `.csv`, `.tsv`, `.parquet`,
            `.json`, `.jsonl` or `.ndjson` file. Text formats may end in `.gz` too.
        name: What messages call the table, for example `train_data`.

    Raises:
        DataError: Not a table, no such file, an unknown ending, text that is not UTF-8, a malformed file, or two columns
            of one name.
        MissingDependencyError: A Parquet file without `pyarrow`.
    """
    if isinstance(data, pd.DataFrame):
        frame = data
    elif isinstance(data, (str, Path)):
        frame = _read_file(Path(data), name)
    elif isinstance(data, pd.Series):
        raise DataError(f"{name} is a single column (pandas Series). Give a table: {name}.to_frame().")
    elif hasattr(data, "to_pandas"):
        frame = data.to_pandas()
        if not isinstance(frame, pd.DataFrame):
            raise DataError(f"{name} is a {type(data).__name__} that is not a table. Give {_KINDS}.")
    elif isinstance(data, Mapping):
        frame = _from_mapping(data, name)
    elif isinstance(data, Sequence) and not isinstance(data, bytes):
        frame = _from_records(data, name)
    else:
        raise DataError(f"{name} is a {type(data).__name__}. Give {_KINDS}.")
    _refuse_duplicates(list(frame.columns), name)
    return frame


def _refuse_duplicates(columns: list[Any], where: str) -> None:
    twice = list(dict.fromkeys(column for column in columns if columns.count(column) > 1))
    if twice:
        raise DataError(f"{where} has more than one column named {some(twice)}. Rename or drop all but one.")


def _from_mapping(data: Mapping[Any, Any], name: str) -> pd.DataFrame:
    if any(hasattr(value, "to_pandas") for value in data.values()):
        raise DataError(
            f"{name} holds several tables: {some(data)}. Give one of them, for example {name}[{next(iter(data))!r}]."
        )
    single = [key for key, value in data.items() if isinstance(value, (str, bytes)) or not hasattr(value, "__len__")]
    if single:
        raise DataError(
            f"{name} has single values where lists are expected: {some(single)}. Write {{{single[0]!r}: [...]}}."
        )
    lengths = {key: len(value) for key, value in data.items()}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{key!r}: {length}" for key, length in lengths.items())
        raise DataError(f"The columns of {name} differ in length: {listed}.")
    return pd.DataFrame({key: list(value) for key, value in data.items()})


def _from_records(data: Sequence[Any], name: str) -> pd.DataFrame:
    for position, record in enumerate(data):
        if not isinstance(record, Mapping):
            raise DataError(
                f"{name} is a list whose item {position} is a {type(record).__name__}, not a dict. "
                "Write one dict per row, for example [{'text': '...'}]."
            )
    return pd.DataFrame(list(data))


def _read_file(path: Path, name: str) -> pd.DataFrame:
    """Reads by file ending; see `READERS`."""
    path = path.expanduser()
    ending, zipped = _ending(path)
    reader = READERS.get(ending)
    if reader is None or (zipped and ending not in _TEXT_ENDINGS):
        allowed = ", ".join((*READERS, *(f"{text}.gz" for text in _TEXT_ENDINGS)))
        raise DataError(f"{name}: cannot tell the format of {str(path)!r}. Allowed endings: {allowed}.")
    if not path.is_file():
        what = "is a folder, not a file" if path.is_dir() else "does not exist"
        raise DataError(f"{name}: {str(path)!r} {what}. Looked from the folder {str(Path.cwd())!r}.")
    return reader(path)


def _ending(path: Path) -> tuple[str, bool]:
    """`("csv ending", zipped)`: `.csv` and True for `a.CSV.gz`."""
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
    zipped = bool(suffixes) and suffixes[-1] == ".gz"
    if zipped:
        suffixes.pop()
    return (suffixes[-1] if suffixes else ""), zipped


def _bytes(path: Path) -> bytes:
    raw = path.read_bytes()
    try:
        return gzip.decompress(raw) if _ending(path)[1] else raw
    except (OSError, EOFError) as error:
        raise DataError(f"{str(path)!r} is not a whole gzip file: {error}.") from error


def _text(path: Path) -> str:
    """The file's text without a byte order mark, or a DataError that names the first byte that is not UTF-8."""
    raw = _bytes(path)
    try:
        return raw.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{str(path)!r} is not UTF-8: byte {error.start} (0x{raw[error.start]:02x}, line {line}) cannot be read. "
            f"Save the file as UTF-8, or read it yourself and give the frame: pandas.read_csv(path, encoding=...)."
        ) from error


def _read_delimited(path: Path, separator: str) -> pd.DataFrame:
    options: dict[str, Any] = {"sep": separator, "keep_default_na": False, "na_values": [""], "low_memory": False}
    text = _text(path)
    try:
        header = pd.read_csv(io.StringIO(text), header=None, nrows=1, dtype=str, **options)
        # pandas renames a repeated name to "name.1", which would hide it.
        _refuse_duplicates(header.iloc[0].dropna().tolist(), repr(str(path)))
        with warnings.catch_warnings():
            # Where rows have more fields than the header, pandas only warns that it drops the surplus.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            return pd.read_csv(io.StringIO(text), index_col=False, **options)
    except pd.errors.ParserWarning as error:
        names = some(header.iloc[0].tolist())
        raise DataError(f"{str(path)!r} has rows with more fields than its header names columns ({names}).") from error
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise DataError(f"{str(path)!r} cannot be read as a table: {error}.") from error


def _read_csv(path: Path) -> pd.DataFrame:
    return _read_delimited(path, ",")


def _read_tsv(path: Path) -> pd.DataFrame:
    return _read_delimited(path, "\t")


def _read_parquet(path: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(path)
    except ImportError as error:
        raise MissingDependencyError("Reading Parquet needs pyarrow: pip install pyarrow") from error
    except (ValueError, OSError) as error:  # pyarrow's errors are both
        raise DataError(f"{str(path)!r} cannot be read as Parquet: {error}") from error


def _read_json(path: Path) -> pd.DataFrame:
    """One JSON object per line, or one list of objects."""
    text = _text(path)
    try:
        if text.lstrip().startswith("["):
            records = json.loads(text)
        else:
            # Only a line feed ends a line: str.splitlines would also cut at separators that JSON allows inside strings.
            records = [
                _json_line(path, number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()
            ]
    except json.JSONDecodeError as error:
        raise DataError(f"{str(path)!r} is not JSON: {error}.") from error
    return _from_records(records, repr(str(path)))


def _json_line(path: Path, number: int, line: str) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{str(path)!r}, line {number}: {error.msg}. The file has to hold one JSON object per line, or one list."
        ) from error


READERS: dict[str, Callable[[Path], pd.DataFrame]] = {
    ".csv": _read_csv,
    ".tsv": _read_tsv,
    ".parquet": _read_parquet,
    ".json": _read_json,
    ".jsonl": _read_json,
    ".ndjson": _read_json,
}
_TEXT_ENDINGS = tuple(ending for ending in READERS if ending != ".parquet")
