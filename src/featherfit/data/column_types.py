"""One column of a training table goes in; its type and the reason for it come out.

Each type has one rule, a named function that returns the reason or None, in the ordered table `RULES`: the first rule
that gives a reason decides. Text is recognised by script, not by spaces alone, because Japanese, Chinese, Thai and
others do not put spaces between words.
"""

from __future__ import annotations

import datetime
import numbers
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd

from featherfit.data.dates import date_format
from featherfit.data.image_columns import SAMPLE as OPENED
from featherfit.data.image_columns import image_bytes, image_objects, image_paths, image_texts
from featherfit.types import ColumnType

COLUMN_TYPES: tuple[ColumnType, ...] = get_args(ColumnType)

IMAGE_TYPES: tuple[ColumnType, ...] = ("image_path", "image_bytearray", "image_base64_str", "image", "document_image")
"""Columns of images, by what their cells are; `image` takes anything but base64 text, `document_image` too, as an image."""

FEW = 20  # most values a categorical column has
FEW_SHARE = 0.1  # and their largest share of the rows
SMALL = 30  # below this many rows, repeats say little about a column of sentences
SAMPLE = 5000  # distinct values looked at for words and identifiers
MIN_WORDS = 2.0  # mean words per distinct value from which a column is text

# Scripts written without spaces between words: Han, Hiragana, Katakana, Thai, Lao, Tibetan, Myanmar, Khmer.
_UNSPACED = re.compile(
    "["
    "\u3005-\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003347f"
    "\u3041-\u309f\u30a0-\u30ff\u31f0-\u31ff\uff66-\uff9f"
    "\u0e00-\u0e7f\u0e80-\u0eff\u0f00-\u0fff"
    "\u1000-\u109f\ua9e0-\ua9ff\uaa60-\uaa7f\u1780-\u17ff\u19e0-\u19ff"
    "]+"
)
_WIDE_PUNCTUATION = re.compile(
    "[\u3000-\u3004\u3008-\u3020\u3030\uff00-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65]+"
)
_ID_TOKEN = re.compile(r"(?=.*[0-9])[0-9A-Za-z_.:#/-]+")
_HEX = re.compile(r"[0-9a-fA-F-]+")


def count_words(text: str) -> int:
    """Words of `text`: by spaces, and one per two characters of a run in a script that has no spaces (at least one)."""
    runs = _UNSPACED.findall(text)
    rest = _WIDE_PUNCTUATION.sub(" ", _UNSPACED.sub(" ", text)) if runs else text
    return len(rest.split()) + sum(max(1, len(run) // 2) for run in runs)


@dataclass(frozen=True, eq=False)
class Profile:
    """What the rules look at.

    Attributes:
        values: The present values of a column.
        rows: Rows of the column.
        folder: What relative paths among the values are relative to; None for the working folder.
    """

    values: pd.Series
    rows: int
    folder: Path | None = None

    @cached_property
    def items(self) -> list[Any]:
        """Some of the present values, evenly spaced, as many as are opened to see whether they are images."""
        return self.values.iloc[:: max(1, -(-len(self.values) // OPENED))].tolist()

    @cached_property
    def kinds(self) -> set[type]:
        """Python types of the values."""
        return set(map(type, self.values.tolist()))

    @cached_property
    def of_strings(self) -> bool:
        """Strings, or strings and numbers mixed."""
        return any(issubclass(kind, str) for kind in self.kinds) and all(
            issubclass(kind, (str, numbers.Number, np.generic)) for kind in self.kinds
        )

    @cached_property
    def distinct(self) -> list[str]:
        """The distinct values as strings."""
        return list(dict.fromkeys(map(str, self.values.tolist())))

    @cached_property
    def sample(self) -> list[str]:
        """At most `SAMPLE` distinct values, evenly spaced."""
        return self.distinct[:: -(-len(self.distinct) // SAMPLE)]

    @cached_property
    def words(self) -> float:
        """Mean words per distinct value."""
        return sum(map(count_words, self.sample)) / len(self.sample)

    @property
    def complete(self) -> bool:
        """No value is missing."""
        return len(self.values) == self.rows


def null(profile: Profile) -> str | None:
    """All missing, or one and the same value in every row."""
    if len(profile.values) == 0:
        return "all its values are missing"
    if not profile.complete or profile.rows == 1:
        return None
    plain = (str, bytes, numbers.Number, np.generic, datetime.date)  # arrays cannot be compared
    if all(issubclass(kind, plain) for kind in profile.kinds) and _all_equal(profile.values):
        return "every row has the same value"
    return None


def _all_equal(values: pd.Series) -> bool:
    first = values.iloc[0]
    if values.dtype != object:
        return bool((values == first).all())
    # One by one, and only within a type: comparing a fraction with an infinite decimal, or what is over 64 bits, fails.
    return all(type(value) is type(first) and value == first for value in values)


def datetimes(profile: Profile) -> str | None:
    """Points in time by type."""
    if pd.api.types.is_datetime64_any_dtype(profile.values.dtype):
        return f"its dtype is {profile.values.dtype}"
    if profile.kinds and all(issubclass(kind, (datetime.date, np.datetime64)) for kind in profile.kinds):
        return "its values are dates"
    return None


def truth_values(profile: Profile) -> str | None:
    """A boolean column, or objects that are all true or false."""
    dtype = profile.values.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        return None
    if pd.api.types.is_bool_dtype(dtype):
        return f"its dtype is {dtype.name}"
    if all(issubclass(kind, (bool, np.bool_)) for kind in profile.kinds):
        return "its values are true or false"
    return None


def categories_by_dtype(profile: Profile) -> str | None:
    """A category column."""
    dtype = profile.values.dtype
    return f"its dtype is {dtype.name}" if isinstance(dtype, pd.CategoricalDtype) else None


def row_numbers(profile: Profile) -> str | None:
    """Whole numbers that count the rows, each one more than the one before."""
    if not profile.complete or profile.rows < SMALL or not pd.api.types.is_integer_dtype(profile.values.dtype):
        return None
    values = profile.values.to_numpy(dtype=np.int64)
    return "it counts the rows" if bool((np.diff(values) == 1).all()) else None


def numbers_by_dtype(profile: Profile) -> str | None:
    """A numeric column, or objects that are all numbers."""
    if pd.api.types.is_numeric_dtype(profile.values.dtype):
        return f"its dtype is {profile.values.dtype}"
    if all(issubclass(kind, numbers.Number) for kind in profile.kinds):
        return "its values are numbers"
    return None


def other_objects(profile: Profile) -> str | None:
    """Lists, dicts, bytes, images: nothing this version can model."""
    if profile.of_strings:
        return None
    odd = sorted({kind.__name__ for kind in profile.kinds if not issubclass(kind, (str, numbers.Number, np.generic))})
    return f"its values are {' and '.join(odd) or 'of mixed types'}, neither text nor numbers"


def numeric_strings(profile: Profile) -> str | None:
    """Strings that all read as numbers."""
    if pd.to_numeric(pd.Series(profile.distinct, dtype=object), errors="coerce").notna().all():
        return "all its values read as numbers"
    return None


def date_strings(profile: Profile) -> str | None:
    """Strings that are all dates of one and the same form."""
    found = date_format(profile.distinct) if profile.of_strings else None
    return None if found is None else f"all its values are dates of the form {found}"


def few_categories(profile: Profile) -> str | None:
    """Few distinct values that repeat, as AutoMM has it: at most 20, and at most a tenth of the rows."""
    few = len(profile.distinct)
    if profile.rows < SMALL and profile.words >= MIN_WORDS:
        return None
    if few <= min(FEW, FEW_SHARE * profile.rows) and few < len(profile.values):
        return f"it has only {few} distinct value{'s' if few > 1 else ''} in {profile.rows} rows"
    return None


def identifiers(profile: Profile) -> str | None:
    """Every value different, without spaces, and nearly all of them digits, hexadecimal or a code with digits."""
    if len(profile.distinct) < len(profile.values) or profile.rows == 1:
        return None
    if any(re.search(r"\s", value) for value in profile.sample):
        return None
    alike = sum(map(_looks_like_id, profile.sample))
    if alike >= 0.9 * len(profile.sample):
        return f"every value is different and looks like an identifier ({profile.distinct[0][:40]!r})"
    return None


def _looks_like_id(value: str) -> bool:
    if not _ID_TOKEN.fullmatch(value):
        return False
    digits = sum(character.isdigit() for character in value)
    return 2 * digits >= len(value) or _HEX.fullmatch(value) is not None


def texts(profile: Profile) -> str | None:
    """Two words or more on average, counted by script."""
    if profile.words >= MIN_WORDS:
        return f"its values have {profile.words:.1f} words on average"
    return None


def single_words(profile: Profile) -> str | None:
    """What is left: one word per value."""
    return f"its {len(profile.distinct)} distinct values have {profile.words:.1f} words on average, fewer than two"


def _images(rule: Callable[[list[Any], Path | None], str | None]) -> Rule:
    """A rule of `image_columns` as one of these; a column that pandas has a type for is none of images."""

    def named(profile: Profile) -> str | None:
        plain = profile.values.dtype == object or isinstance(profile.values.dtype, pd.StringDtype)
        return rule(profile.items, profile.folder) if plain else None

    return named


Rule = Callable[[Profile], "str | None"]
RULES: tuple[tuple[ColumnType, Rule], ...] = (
    ("null", null),
    ("datetime", datetimes),
    ("boolean", truth_values),
    ("categorical", categories_by_dtype),
    ("identifier", row_numbers),
    ("numerical", numbers_by_dtype),
    ("image", _images(image_objects)),
    ("image_bytearray", _images(image_bytes)),
    ("image_path", _images(image_paths)),
    ("image_base64_str", _images(image_texts)),
    ("null", other_objects),
    ("numerical", numeric_strings),
    ("datetime", date_strings),
    ("categorical", few_categories),
    ("identifier", identifiers),
    ("text", texts),
    ("categorical", single_words),
)


def infer_column_type(column: pd.Series, folder: Path | None = None) -> tuple[ColumnType, str]:
    """Type of a training column and the reason, the part of a sentence that follows "because".; every
    column gets one, and what cannot be modelled is `null`.

    Args:
        column: The column.
        folder: What relative paths in it are relative to; None for the working folder.
    """
    profile = Profile(column[column.notna()], len(column), folder)
    for column_type, rule in RULES:
        reason = rule(profile)
        if reason is not None:
            return column_type, reason
    raise AssertionError("the last rule gives a reason for everything")


def describe(column: Any, column_type: str, reason: str) -> str:
    """The sentence users read."""
    return f"`{column}` is {column_type} because {reason}."
