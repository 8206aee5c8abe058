"""Codes and numbers of single columns, against scikit-learn and the papers' formulas."""

import json
from dataclasses import asdict
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from sklearn.preprocessing import QuantileTransformer

from featherfit.config.columns import CategoricalConfig, NumericalConfig
from featherfit.data.processors.columns import MISSING, RARE, Categories, Numbers, Times, as_floats

STANDARD = NumericalConfig(transform="standard")


def column(*values, dtype=None):
    return pd.Series(list(values), name="c", dtype=dtype)


class TestCategories:
    def test_codes(self):
        fitted = Categories.fit(
            column(*["red"] * 3, *["blue"] * 3, *["green"] * 2, "pink", None), CategoricalConfig(), boolean=False
        )
        assert fitted.categories == ["blue", "red", "green"] and fitted.codes == 5
        found = fitted(column("green", "pink", "never seen", None, "red", np.nan))
        assert found.tolist() == [4, RARE, RARE, MISSING, 3, MISSING]

    def test_what_is_told_apart(self):
        values = column(*["a"] * 5, *["b"] * 4, *["c"] * 3, "d")
        for count, most, expected in ((1, 200, "abcd"), (4, 200, "ab"), (1, 2, "ab"), (100, 20, "")):
            config = CategoricalConfig(minimum_cat_count=count, maximum_num_cat=most)
            assert "".join(Categories.fit(values, config, boolean=False).categories) == expected

    def test_truth_in_any_spelling(self):
        fitted = Categories.fit(column(True, False, True, False, True), CategoricalConfig(), boolean=True)
        for values in ((True, False), (1, 0), (1.0, 0.0), ("True", "FALSE"), ("yes", "no")):
            assert fitted(column(*values, dtype=object)).tolist() == [2, 3]

    def test_numbers_are_read_the_same_whatever_the_dtype(self):
        fitted = Categories.fit(column(1, 1, 2, 2), CategoricalConfig(), boolean=False)
        assert fitted(column(1.0, 2.0, None)).tolist() == [2, 3, MISSING]

    def test_odd_cells(self):
        fitted = Categories.fit(column("a", "a"), CategoricalConfig(), boolean=False)
        assert fitted.unreadable(column("a", ["b"], None, "\ud800", dtype=object)) == {
            1: "list is no category", 3: "half of a surrogate pair, which is no text",
        }  # fmt: skip


class TestNumbers:
    def test_standard(self):
        values = np.random.default_rng(0).gamma(2, 3, 500)
        fitted = Numbers.fit(column(*values), STANDARD, 8)
        np.testing.assert_allclose(fitted.transformed(values), (values - values.mean()) / values.std(), rtol=1e-9)

    @pytest.mark.parametrize(("mean", "std"), [(False, True), (True, False), (False, False)])
    def test_scaler_settings(self, mean, std):
        values = np.array([1.0, 2.0, 6.0])
        config = NumericalConfig(transform="standard", scaler_with_mean=mean, scaler_with_std=std)
        expected = (values - (values.mean() if mean else 0)) / (values.std() if std else 1)
        np.testing.assert_allclose(Numbers.fit(column(*values), config, 8).transformed(values), expected)

    def test_quantiles_are_those_of_scikit_learn(self):
        draw = np.random.default_rng(1)
        values = np.concatenate([np.exp(3 * draw.normal(size=400)), np.full(60, 7.0)])
        theirs = QuantileTransformer(n_quantiles=256, output_distribution="normal").fit(values[:, None])
        fitted = Numbers.fit(column(*values), NumericalConfig(), 8)
        np.testing.assert_allclose(fitted.quantiles, theirs.quantiles_[:, 0])
        inside = (values > np.quantile(values, 0.01)) & (values < np.quantile(values, 0.99))
        ours = fitted.transformed(values)
        np.testing.assert_allclose(ours[inside], theirs.transform(values[:, None])[inside, 0], rtol=1e-6, atol=1e-6)
        assert np.abs(ours).max() < 3.2  # the smallest and the largest are no outliers any more

    def test_missing_numbers_are_the_median_with_an_indicator(self):
        fitted = Numbers.fit(column(1.0, 2.0, 9.0, None), STANDARD, 8)
        found = fitted(column(None, 2.0, 9.0))
        assert fitted.indicator and found.shape == (3, 2)
        assert found[0, 0] == found[1, 0] and found[:, 1].tolist() == [1, 0, 0]

    def test_no_indicator_where_training_had_all(self):
        fitted = Numbers.fit(column(1.0, 2.0, 9.0), STANDARD, 8)
        assert fitted(column(None, 2.0)).tolist() == [fitted(column(2.0))[0].tolist()] * 2

    def test_outside_and_infinite(self):
        fitted = Numbers.fit(column(1.0, 2.0, 9.0, np.inf), NumericalConfig(), 8)
        found = fitted(column(-np.inf, -5.0, 1.0, 9.0, 1e300, np.inf))[:, 0]
        assert found[0] == found[1] == found[2] and found[3] == found[4] == found[5]

    @pytest.mark.parametrize("values", [(5.0, 5.0), (None, None), (np.inf, 1.0)])
    def test_nothing_to_tell_apart(self, values):
        fitted = Numbers.fit(column(*values), NumericalConfig(), 8)
        assert np.isfinite(fitted(column(4.0, 5.0, None))).all() and len(fitted.edges) >= 2

    def test_edges_hold_the_same_number_of_rows(self):
        fitted = Numbers.fit(column(*np.random.default_rng(0).exponential(size=1000)), NumericalConfig(), 4)
        values = fitted.transformed(np.random.default_rng(0).exponential(size=1000))
        assert np.histogram(values, fitted.edges)[0].tolist() == pytest.approx([250] * 4, abs=3)
        few = Numbers.fit(column(*[0.0, 1.0] * 50), NumericalConfig(), 16)
        assert len(few.edges) == 2

    def test_what_counts_as_a_number(self):
        values = ["1.5", " 2 ", "x", None, Decimal(3), True, [1], np.float32(4), 1j]
        floats, odd = as_floats(pd.Series(values, dtype=object))
        np.testing.assert_array_equal(floats, [1.5, 2, np.nan, np.nan, 3, 1, np.nan, 4, np.nan])
        assert np.flatnonzero(odd).tolist() == [2, 6, 8]
        fitted = Numbers.fit(column(1.0, 2.0), STANDARD, 8)
        assert fitted.unreadable(pd.Series(values, dtype=object))[2] == "'x' is no number"

    def test_nullable_columns(self):
        for dtype in ("Int64", "Float64", "int64[pyarrow]"):
            floats, odd = as_floats(pd.Series([1, None, 3], dtype=dtype))
            np.testing.assert_array_equal(floats, [1, np.nan, 3])
            assert not odd.any()


class TestTimes:
    def test_cycles(self):
        days = pd.Series(pd.date_range("2024-01-01", periods=400, freq="D"), name="c")  # a Monday
        fitted = Times.fit(days, STANDARD, 8)
        assert fitted.cycles == ["year", "week"]
        found = fitted(days)
        assert found.shape == (400, 5)
        np.testing.assert_allclose(found[:, 3], np.sin(2 * np.pi * (np.arange(400) % 7) / 7), atol=1e-6)
        np.testing.assert_allclose(found[:366, 2], np.cos(2 * np.pi * np.arange(366) / 366), atol=1e-6)
        np.testing.assert_allclose(found[366, 1:3], [0, 1], atol=1e-6)  # the first of January again

    def test_time_of_day(self):
        times = pd.Series(pd.date_range("2024-01-01 06:00", periods=3, freq="6h"), name="c")
        fitted = Times.fit(times, STANDARD, 8)
        assert fitted.cycles == ["day"]
        np.testing.assert_allclose(fitted(times)[:, 1:], [[1, 0], [0, -1], [-1, 0]], atol=1e-6)

    def test_missing_and_strings(self):
        fitted = Times.fit(column("May 30, 2011", "June 2, 2012", None), NumericalConfig(), 8)
        assert fitted.format == "%B %d, %Y" and fitted.linear.indicator
        found = fitted(column(None, "May 30, 2011"))
        assert found[0, 1] == 1 and not found[0, 2:].any() and found[1, 1] == 0
        assert fitted.unreadable(column("May 30, 2011", "soon", None)) == {1: "'soon' is no date of the form %B %d, %Y"}

    def test_one_edge_list_for_each_number(self):
        fitted = Times.fit(column("2024-01-01", "2024-05-05", None), NumericalConfig(), 8)
        assert len(fitted.all_edges) == fitted(column("2024-01-01")).shape[1]


def test_state_is_json():
    numbers = Numbers.fit(column(0.1, 0.7, None, 1e-300), NumericalConfig(), 8)
    assert Numbers(**json.loads(json.dumps(asdict(numbers)))) == numbers
