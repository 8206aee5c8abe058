"""The cells of a text column go in; strings, or what is wrong with single cells, come out."""

from __future__ import annotations

import numbers
from typing import Any

import numpy as np
import pandas as pd

from featherfit.data.messages import some
from featherfit.errors import DataError


def column_texts(column: pd.Series) -> list[str]:
    """The column as strings: "" where missing, numbers written out (2.0 as "2", whatever dtype its neighbours force).

    Raises:
        DataError: A value that is neither text nor a number; the message names its row.
    """
    texts = []
    for label, value, absent in zip(column.index, column.tolist(), column.isna(), strict=True):
        if type(value) is str:  # nearly all are
            texts.append(value)
            continue
        text = "" if absent else as_text(value)
        if text is None:
            raise DataError(
                f"Row {some([label])}, column {column.name!r}: {_not_text(value)}. "
                f"Convert the column first, for example with frame[{column.name!r}].map(str)."
            )
        texts.append(text)
    return texts


def written(texts: list[str], column: str, template: str) -> list[str]:
    """Values of a column in one of AutoMM's templates; what is missing stays empty.

    Args:
        texts: From `column_texts`.
        column: Name of the column.
        template: `direct` for the value alone, `list`, `text` or `latex`.
    """
    before, after = {
        "direct": ("", ""),
        "list": (f"{column}: ", ""),
        "text": (f"{column} is ", ""),
        "latex": ("", " & "),
    }[template]
    return [f"{before}{text}{after}" if text else "" for text in texts] if before or after else texts


def unreadable_cells(column: pd.Series) -> dict[int, str]:
    """What is wrong with the cells that cannot be read, by position: no text and no number, or no Unicode."""
    found = {}
    for position, (value, absent) in enumerate(zip(column.tolist(), column.isna(), strict=True)):
        if absent:
            continue
        text = as_text(value)
        if text is None:
            found[position] = _not_text(value)
        elif not is_unicode(text):
            found[position] = "half of a surrogate pair, which is no text"
    return found


def is_unicode(text: str) -> bool:
    """Whether it can be written as UTF-8; halves of surrogate pairs cannot."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def as_text(value: Any) -> str | None:
    """A present value as text; None if it is neither text nor a number."""
    if isinstance(value, str):
        return str(value)
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value) if isinstance(value, (numbers.Number, np.bool_)) else None


def _not_text(value: Any) -> str:
    return f"{type(value).__name__} is neither text nor a number"
