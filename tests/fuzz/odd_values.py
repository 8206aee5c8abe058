"""Strategies for what people and programs put into tables and settings."""

from __future__ import annotations

import datetime
import decimal

import numpy as np
import pandas as pd
from hypothesis import strategies as st

UNICODE = st.text(st.characters(codec="utf-8"), max_size=12)
SENTENCES = st.lists(
    st.sampled_from(["the", "kettle", "was", "good", "良い", "箱", "שלום", "🎉", "\x00", "naïve", "bad"]), max_size=8
).map(" ".join)
SURROGATES = st.text(st.characters(categories=["Cs"]), min_size=1, max_size=2)
NUMBERS = st.one_of(
    st.integers(), st.integers(0, 3), st.floats(), st.booleans(), st.sampled_from([10**400, -(10**400)]), st.decimals(), st.complex_numbers(),
    st.integers(-5, 5).map(np.int8), st.floats(width=32).map(np.float32), st.booleans().map(np.bool_),
)  # fmt: skip
MISSING = st.sampled_from([None, float("nan"), pd.NA, pd.NaT, np.nan])
OBJECTS = st.one_of(
    st.binary(max_size=4), st.lists(st.integers(), max_size=2), st.dictionaries(UNICODE, st.integers(), max_size=1), st.dates(),
    st.datetimes(), st.timedeltas(), st.tuples(st.integers()), st.just(object()), st.just(np.array([1, 2])), st.just(pd.Series([1])),
    st.just(datetime.timezone.utc), st.just(decimal.Decimal("Infinity")), st.just(int), st.frozensets(st.integers(), max_size=1),
)  # fmt: skip
TEXT = st.one_of(SENTENCES, SENTENCES, UNICODE)
VALUES = st.one_of(TEXT, TEXT, NUMBERS, MISSING, OBJECTS, SURROGATES)


@st.composite
def columns(draw: st.DrawFn, rows: int) -> pd.Series | list:
    """One column: of one kind, or mixed, in one of the forms pandas has for it."""
    kind = draw(
        st.sampled_from(
            [SENTENCES, TEXT, NUMBERS, VALUES, st.integers(0, 2), st.floats(0, 1), st.sampled_from(["a", "b", "c"])]
        )
    )
    values = draw(st.lists(kind, min_size=rows, max_size=rows))
    if draw(st.booleans()) and rows:
        values[draw(st.integers(0, rows - 1))] = draw(VALUES)
    column = pd.Series(values, dtype=object)
    form = draw(st.sampled_from(["object", "object", "inferred", "category", "string", "arrow", "nullable"]))
    try:
        if form == "inferred":
            return pd.Series(values)
        if form == "category":
            return column.astype("category")
        if form == "string":
            return column.astype("string")
        if form == "arrow":
            return column.convert_dtypes(dtype_backend="pyarrow")
        return column.convert_dtypes() if form == "nullable" else column
    except Exception:  # pandas refuses: not a table anybody could have
        return column


@st.composite
def frames(draw: st.DrawFn, *, most_rows: int = 12) -> pd.DataFrame:
    """A table with a column of text and a label more often than not, and anything else."""
    rows = draw(st.integers(0, most_rows))
    names = draw(
        st.lists(
            st.one_of(st.sampled_from(["text", "label", "title"]), UNICODE, st.integers(0, 2)), min_size=1, max_size=4
        )
    )
    if draw(st.integers(0, 9)):
        names = ["text", "label", *names[2:]]
    frame = pd.concat([pd.Series(draw(columns(rows))).reset_index(drop=True) for _ in names], axis=1)
    frame.columns = pd.Index(names, dtype=object)
    index = draw(st.sampled_from(["range", "same", "text", "dates", "levels"]))
    if index == "same":
        frame.index = pd.Index([7] * rows)
    elif index == "text":
        frame.index = pd.Index([f"r{i}" for i in range(rows)], dtype=object)
    elif index == "dates":
        frame.index = pd.date_range("2020-01-01", periods=rows)
    elif index == "levels" and rows:
        frame.index = pd.MultiIndex.from_tuples([(i // 2, i) for i in range(rows)])
    return frame


SETTING = st.recursive(
    st.one_of(
        TEXT, NUMBERS, MISSING, st.sampled_from(["auto", "true", "null", "1e-3", "[a, b]", "{a: 1}", "8GB", "-1"])
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXT, inner, max_size=2)),
    max_leaves=5,
)
