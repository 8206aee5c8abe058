"""Weights of rows: what is taken, and what is refused."""

import numpy as np
import pandas as pd
import pytest

from featherfit.data.weights import row_weights
from featherfit.errors import DataError


@pytest.mark.parametrize("dtype", ["int64", "float32", "Int64", "object", "string"])
def test_any_numbers(dtype):
    given = row_weights(pd.DataFrame({"w": pd.Series([1, 0, 4], dtype="int64").astype(dtype)}), "w")
    assert given.dtype == np.float32 and given.tolist() == [0.25, 0.0, 1.0]


def test_large_and_small_ones_stay_finite():
    assert row_weights(pd.DataFrame({"w": [1e300, 2e300]}), "w").tolist() == [0.5, 1.0]
    assert row_weights(pd.DataFrame({"w": [1e-300, 2e-300]}), "w").tolist() == [0.5, 1.0]


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ([1.0, None], r"finite numbers of at least 0, and does not in 1 row \(index 8; values 'nan'\)"),
        ([-1.0, 2.0], r"1 row \(index 7; values '-1.0'\)"),
        ([float("inf"), 2.0], "values 'inf'"),
        (["heavy", "2"], "values 'heavy'"),
        ([0, 0], "is 0 in all of the 2 rows, so that none counts"),
    ],
)
def test_what_cannot_be_a_weight(values, problem):
    with pytest.raises(DataError, match=problem):
        row_weights(pd.DataFrame({"w": values}, index=[7, 8]), "w")


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("weihgt", "There is no column 'weihgt', which sample_weight names. Did you mean 'weight'"),
        ("auto_weight", "sample_weight='auto_weight' is not supported: weights are not chosen for you"),
        ("balance_weight", "classes are weighed by optim.class_weights='balanced'"),
    ],
)
def test_a_column_that_is_not_there(name, problem):
    with pytest.raises(DataError, match=problem):
        row_weights(pd.DataFrame({"weight": [1.0]}), name)
