"""A table in any usual form goes in (frame, dataset, lists, file); a pandas DataFrame comes out, its values untouched.

Files are read so that text stays text: in a CSV only an empty field is missing, so a review that says "None" or "NA" is
a review, and nothing in a JSON line is turned into a date or a number.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, TextIO

import pandas as pd

from featherfit.data.damage import refuse_damage
from featherfit.data.images import with_folder
from featherfit.data.messages import some
from featherfit.data.processors.cells import is_unicode
from featherfit.errors import DataError, MissingDependencyError
from featherfit.storage import expanded

DELIMITED: dict[str, Any] = {"keep_default_na": False, "na_values": [""], "low_memory": False, "index_col": False}
"""How pandas is to read text with separators."""

_KINDS = "a DataFrame (pandas, polars), a pyarrow Table, a datasets.Dataset, a dict of lists, a list of dicts, or a path to a file"

_NOT_READ_YET = {("polars", "LazyFrame"): ".collect()", ("pyarrow", "RecordBatchReader"): ".read_all()"}
"""Tables that are a wish so far, by package and class, and what fulfils it."""


def load_table(data: Any, *, name: str = "data") -> pd.DataFrame:
    """Reads `data` into a DataFrame.

    Args:
        data: A pandas DataFrame (returned as it is, never changed), an object that can become one by `to_pandas` (polars,
            Arrow, `datasets.Dataset`), a dict of equally long lists, a list of dicts, or the path of a `.csv`, `.tsv`,
            `.parquet`, `.json`, `.jsonl` or `.ndjson` file. Text formats may end in `.gz` too.
        name: What messages call the table, for example `train_data`.

    Raises:
        DataError: Not a table, no such file, an unknown ending, text that is not UTF-8, a malformed file, two columns of
            one name, or a cell that cannot be looked at.
        MissingDependencyError: A Parquet file without `pyarrow`.
    """
    if isinstance(data, pd.DataFrame):
        frame = data
    elif isinstance(data, (str, Path)):
        frame = with_folder(_read_file(Path(data), name), Path(data))
    elif isinstance(data, pd.Series):
        raise DataError(f"{name} is a single column (pandas Series). Give a table: {name}.to_frame().")
    elif (how := _NOT_READ_YET.get((type(data).__module__.partition(".")[0], type(data).__name__))) is not None:
        raise DataError(f"{name} is a {type(data).__name__}, which has no rows yet. Give {name}{how}.")
    elif hasattr(data, "to_pandas"):
        frame = _converted(data, name)
    elif isinstance(data, Mapping):
        frame = _from_mapping(data, name)
    elif isinstance(data, Sequence) and not isinstance(data, bytes):
        frame = _from_records(data, name)
    else:
        raise DataError(f"{name} is a {type(data).__name__}. Give {_KINDS}.")
    refuse_duplicates(list(frame.columns), name)
    refuse_damage(frame, name)
    return frame


def _converted(data: Any, name: str) -> pd.DataFrame:
    """What another library's table makes of itself."""
    kind = type(data).__name__
    try:
        frame = data.to_pandas()
    except Exception as error:  # code of theirs, with errors of theirs
        raise DataError(
            f"{name} is a {kind} that cannot become a pandas DataFrame: {type(error).__name__}: {error}. Leave out, or cast "
            "to text, the columns that pandas has no type for."
        ) from error
    if not isinstance(frame, pd.DataFrame):
        raise DataError(f"{name} is a {kind} that is not a table. Give {_KINDS}.")
    return frame


def refuse_duplicates(columns: list[Any], where: str) -> None:
    """Raises a DataError where two columns have one name."""
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
    return records_frame(list(data), name)


def records_frame(records: list[Any], name: str, start: int = 0) -> pd.DataFrame:
    """A frame with a row per record.

    Args:
        records: The records.
        name: What messages call the table.
        start: Position of the first of them in the table.

    Raises:
        DataError: A record that is no dict, or text that is not Unicode.
    """
    for position, record in enumerate(records, start):
        if not isinstance(record, Mapping):
            raise DataError(
                f"{name} is a list whose item {position} is a {type(record).__name__}, not a dict. "
                "Write one dict per row, for example [{'text': '...'}]."
            )
    try:
        return pd.DataFrame(records)
    except UnicodeEncodeError as error:  # from pandas 3 on, which keeps text as UTF-8
        position = next(position for position, record in enumerate(records, start) if not _is_unicode(record))
        raise DataError(
            f"{name} has half of a surrogate pair in item {position}, which is no text. Correct it, for example with "
            "text.encode('utf-16', 'surrogatepass').decode('utf-16', 'replace')."
        ) from error


def _is_unicode(record: Mapping[Any, Any]) -> bool:
    return all(is_unicode(str(value)) for value in (*record, *record.values()))


def _read_file(path: Path, name: str) -> pd.DataFrame:
    path = expanded(path)
    return READERS[file_ending(path, name)](path)


def file_ending(path: Path, name: str) -> str:
    """The key in `READERS` for a file that is there.

    Raises:
        DataError: An ending that is none of `READERS`, or no such file.
    """
    ending, zipped = _ending(path)
    if ending not in READERS or (zipped and ending not in _TEXT_ENDINGS):
        allowed = ", ".join((*READERS, *(f"{text}.gz" for text in _TEXT_ENDINGS)))
        raise DataError(f"{name}: cannot tell the format of {str(path)!r}. Allowed endings: {allowed}.")
    if not path.is_file():
        what = "is a folder, not a file" if path.is_dir() else "does not exist"
        raise DataError(f"{name}: {str(path)!r} {what}. Looked from the folder {str(Path.cwd())!r}.")
    return ending


def _ending(path: Path) -> tuple[str, bool]:
    """`("csv ending", zipped)`: `.csv` and True for `a.CSV.gz`."""
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
    zipped = bool(suffixes) and suffixes[-1] == ".gz"
    if zipped:
        suffixes.pop()
    return (suffixes[-1] if suffixes else ""), zipped


@contextlib.contextmanager
def opened_text(path: Path) -> Iterator[TextIO]:
    """The file's text, unzipped and without a byte order mark; only a line feed ends a line of it.

    Raises:
        DataError: Not a whole gzip file, or text that is not UTF-8, named by its first wrong byte.
    """
    with _opened(path) as raw, io.TextIOWrapper(raw, encoding="utf-8-sig", newline="\n") as text:
        try:
            yield text
        except UnicodeDecodeError:
            _refuse_bytes(path)
            raise
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise DataError(f"{str(path)!r} is not a whole gzip file: {error}.") from error


def _opened(path: Path) -> IO[bytes]:
    return gzip.open(path, "rb") if _ending(path)[1] else path.open("rb")  # type: ignore[return-value]


def _refuse_bytes(path: Path) -> None:
    """Raises a DataError that names the first byte that is not UTF-8, if there is one."""
    place, line = 0, 1
    with _opened(path) as raw:
        for content in raw:  # a line feed is never a part of another character
            try:
                content.decode("utf-8")
            except UnicodeDecodeError as error:
                byte = error.start
                raise DataError(
                    f"{str(path)!r} is not UTF-8: byte {place + byte} (0x{content[byte]:02x}, line {line}) cannot be "
                    "read. Save the file as UTF-8, or read it yourself and give the frame: pandas.read_csv(path, "
                    "encoding=...)."
                ) from None
            place, line = place + len(content), line + 1


def _read_delimited(path: Path, separator: str) -> pd.DataFrame:
    names = header(path, separator)
    with opened_text(path) as text, delimited_errors(path, names):
        return pd.read_csv(text, sep=separator, **DELIMITED)


def header(path: Path, separator: str) -> list[Any]:
    """The column names in the first line.

    Raises:
        DataError: No text there, not UTF-8, or a name twice.
    """
    with opened_text(path) as text, delimited_errors(path, []):
        first = pd.read_csv(text, sep=separator, header=None, nrows=1, dtype=str, **DELIMITED)
    names = first.iloc[0].dropna().tolist()
    # pandas renames a repeated name to "name.1", which would hide it.
    refuse_duplicates(names, repr(str(path)))
    return names


@contextlib.contextmanager
def delimited_errors(path: Path, names: list[Any]) -> Iterator[None]:
    """Turns pandas' complaints about a file with columns `names` into a DataError."""
    try:
        with warnings.catch_warnings():
            # Where rows have more fields than the header, pandas only warns that it drops the surplus.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            yield
    except pd.errors.ParserWarning as error:
        raise DataError(
            f"{str(path)!r} has rows with more fields than its header names columns ({some(names)})."
        ) from error
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise DataError(f"{str(path)!r} cannot be read as a table: {str(error).strip()}.") from error


def _read_csv(path: Path) -> pd.DataFrame:
    return _read_delimited(path, ",")


def _read_tsv(path: Path) -> pd.DataFrame:
    return _read_delimited(path, "\t")


def _read_parquet(path: Path) -> pd.DataFrame:
    with parquet_errors(path):
        return pd.read_parquet(path)


@contextlib.contextmanager
def parquet_errors(path: Path) -> Iterator[None]:
    """Turns complaints about a Parquet file into our own errors."""
    try:
        yield
    except ImportError as error:
        raise MissingDependencyError("Reading Parquet needs pyarrow: pip install pyarrow") from error
    except (ValueError, OSError) as error:  # pyarrow's errors are both
        raise DataError(f"{str(path)!r} cannot be read as Parquet: {error}") from error


def _read_json(path: Path) -> pd.DataFrame:
    """One JSON object per line, or one list of objects."""
    if is_json_list(path):
        with opened_text(path) as text:
            try:
                return _from_records(json.load(text), repr(str(path)))
            except (ValueError, RecursionError) as error:
                raise DataError(f"{str(path)!r} is not JSON: {error}.") from error
    return _from_records(list(json_lines(path)), repr(str(path)))


def is_json_list(path: Path) -> bool:
    """Whether the file is one JSON list, and not an object per line."""
    with opened_text(path) as text:
        return next((line.lstrip()[0] for line in text if line.strip()), "") == "["


def json_lines(path: Path) -> Iterator[Any]:
    """The value on every line that is not blank.

    Raises:
        DataError: A line that is not JSON, by its number.
    """
    with opened_text(path) as text:
        for number, line in enumerate(text, 1):
            if line.strip():
                yield _json_line(path, number, line)


def _json_line(path: Path, number: int, line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits, and lists within lists within lists
        reason = getattr(error, "msg", error)
        raise DataError(
            f"{str(path)!r}, line {number}: {reason}. The file has to hold one JSON object per line, or one list."
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
