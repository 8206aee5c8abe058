"""A table goes in; an error comes out where a cell cannot even be looked at, so that nothing after this has to fear it."""

from __future__ import annotations

import decimal
from fractions import Fraction

import pandas as pd

from featherfit.data.messages import some
from featherfit.errors import DataError

MOST_BITS = 13_288
"""4,000 digits; from 4,300 on Python refuses to turn a number into text."""


def refuse_damage(frame: pd.DataFrame, name: str) -> None:
    """Raises where pandas or Python would, on a cell that is only asked for, asked whether it is missing, or written out.

    Args:
        frame: Any table; left as it is.
        name: What messages call it.

    Raises:
        DataError: A signalling NaN, a whole number of thousands of digits, or bytes in a column of Arrow strings that are
            not UTF-8; with index and column.
    """
    for position, dtype in enumerate(frame.dtypes):
        column = frame.iloc[:, position]
        if isinstance(dtype, pd.StringDtype | pd.ArrowDtype):
            _refuse_bytes(column, name)
        elif dtype.kind == "O":
            _refuse_signals(column, name)
            _refuse_endless(column, name)


def _refuse_signals(column: pd.Series, name: str) -> None:
    try:
        column.isna()
    except decimal.InvalidOperation:
        odd = [isinstance(value, decimal.Decimal) and value.is_snan() for value in column.tolist()]
        raise DataError(
            f"{name}: row {some(column.index[odd])}, column {column.name!r}: Decimal('sNaN') is a NaN that raises when it is "
            "looked at. Put None in its place."
        ) from None


def _refuse_endless(column: pd.Series, name: str) -> None:
    odd = [
        isinstance(value, int | Fraction)
        and max(value.numerator.bit_length(), value.denominator.bit_length()) > MOST_BITS
        for value in column.tolist()
    ]
    if any(odd):
        raise DataError(
            f"{name}: row {some(column.index[odd])}, column {column.name!r}: a number of more than 4,000 digits, which Python "
            "does not write out. Put text in its place, or None."
        )


def _refuse_bytes(column: pd.Series, name: str) -> None:
    """Arrow takes the writer's word for what is in a column of strings; whoever wrote a file may have been wrong."""
    if getattr(column.dtype, "storage", "pyarrow") != "pyarrow":
        return
    import pyarrow as pa

    array = column.array.__arrow_array__()
    if not (pa.types.is_string(array.type) or pa.types.is_large_string(array.type)):
        return
    try:
        array.validate(full=True)
    except pa.ArrowInvalid:
        texts = array.cast(pa.large_binary()).to_pylist()
        odd = [text is not None and not _is_utf8(text) for text in texts]
        raise DataError(
            f"{name}: row {some(column.index[odd])}, column {column.name!r}: the bytes are not UTF-8, though the column is of "
            "text. Write the file anew from text that is."
        ) from None


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
