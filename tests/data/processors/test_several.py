"""Several label columns, and columns of lists, to numbers and back."""

import json

import numpy as np
import pandas as pd
import pytest

from featherfit.data.processors.several import SeveralLabels, target_from_json
from featherfit.errors import ConfigError, DataError

FLAGS = pd.DataFrame({"a": [0, 1, 1], "b": [True, False, False], "c": [1.0, 0.0, 1.0]}, index=[7, 8, 9])
LISTS = pd.Series([["x", "y"], [], {"y"}, ("z",), np.array(["x"])], name="tags", index=range(10, 15))
TARGETS = pd.DataFrame({"a": [1.0, 2.0, 6.0], "b": [-10, 0, 40]})


def again(processor: SeveralLabels) -> SeveralLabels:
    read = target_from_json(json.loads(json.dumps(processor.to_json())))
    assert isinstance(read, SeveralLabels)
    return read


def test_columns_of_flags_come_back_as_they_went_in():
    before = FLAGS.copy(deep=True)
    for processor in (fitted := SeveralLabels.fit(FLAGS, "multilabel"), again(fitted)):
        encoded = processor.encode(FLAGS)
        assert encoded.dtype == np.float32 and encoded.tolist() == [[0, 1, 1], [1, 0, 0], [1, 0, 1]]
        decoded = processor.decode(encoded.astype(int))
        assert [[type(value) for value in row] for row in decoded.tolist()] == [[int, bool, float]] * 3
        assert decoded.tolist() == FLAGS.to_numpy(dtype=object).tolist()
        assert processor.outputs == 3 and processor.classes.tolist() == ["a", "b", "c"] and not processor.numeric
    pd.testing.assert_frame_equal(FLAGS, before)


def test_columns_stand_for_labels_by_their_order():
    processor = SeveralLabels.fit(FLAGS, "multilabel")
    renamed = FLAGS.set_axis(["p", "q", "r"], axis=1)
    np.testing.assert_array_equal(processor.encode(renamed), processor.encode(FLAGS))


def test_lists_of_any_kind():
    for processor in (fitted := SeveralLabels.fit(LISTS, "multilabel"), again(fitted)):
        assert processor.names == ["x", "y", "z"] and processor.listed
        assert processor.encode(LISTS).tolist() == [[1, 1, 0], [0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 0, 0]]
        assert processor.decode(np.array([[1, 0, 1]])).tolist() == [[True, False, True]]


def test_whole_numbers_may_be_labels_of_lists():
    assert SeveralLabels.fit(pd.Series([[3, 1], [np.int64(2)]], name="t"), "multilabel").names == [1, 2, 3]


def test_targets_are_scaled_one_by_one():
    for processor in (fitted := SeveralLabels.fit(TARGETS, "regression"), again(fitted)):
        encoded = processor.encode(TARGETS)
        np.testing.assert_allclose(encoded.mean(axis=0), 0, atol=1e-6)
        np.testing.assert_allclose(encoded.std(axis=0), 1, rtol=1e-6)
        np.testing.assert_allclose(processor.inverse_scale(encoded), TARGETS, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(processor.values(encoded), TARGETS, rtol=1e-5, atol=1e-5)
        assert processor.numeric and len(processor.classes) == 0


@pytest.mark.parametrize(
    ("column", "problem"),
    [
        ([0, 1, 2], r"'a' has to hold 0 and 1, or true and false, and has other values \('2'\) in 1 row \(index 2\)"),
        ([0, 1, None], r"'a' .+ has no value in 1 row \(index 2\)"),
        (["yes", "no", "no"], r"other values \('yes', 'no'\) in 3 rows"),
    ],
)
def test_other_values_than_flags(column, problem):
    with pytest.raises(DataError, match=problem):
        SeveralLabels.fit(pd.DataFrame({"a": pd.Series(column, dtype=object)}), "multilabel")


@pytest.mark.parametrize(
    ("cells", "problem"),
    [
        ([["x"], "x"], r"'tags' is to hold lists of labels, and does not in 1 row \(index 1; 'x'\)"),
        ([["x"], None], "A row without labels has an empty list"),
        ([["x"], [1]], "lists of int, str. Labels in lists have to be text, or whole numbers"),
        ([["x"], [["y"]]], "values that are no labels in 1 row"),
        ([[], []], "has no label in any row"),
    ],
)
def test_other_cells_than_lists(cells, problem):
    with pytest.raises(DataError, match=problem):
        SeveralLabels.fit(pd.Series(cells, name="tags", dtype=object), "multilabel")


def test_labels_training_has_not_seen():
    processor = SeveralLabels.fit(LISTS, "multilabel")
    odd = pd.Series([["x"], ["w", "x"], 3, [["q"]]], name="tags")
    with pytest.raises(DataError, match=r"1 label that training has not seen: 'w' \(1 row\).+Known: 'x', 'y', 'z'"):
        processor.encode(odd[:2])
    assert processor.unusable(odd) == {
        1: "label 'w', which training has not seen",
        2: "no list of labels",
        3: "label \"['q']\", which training has not seen",
    }


def test_unusable_flags_and_targets_name_their_column():
    flags = SeveralLabels.fit(FLAGS, "multilabel")
    assert flags.unusable(pd.DataFrame({"a": [0, 1], "b": [True, False], "c": [None, 1.0]})) == {0: "c: no label"}
    targets = SeveralLabels.fit(TARGETS, "regression")
    assert targets.unusable(pd.DataFrame({"a": [1, np.inf], "b": [1, 2]})) == {1: "a: 'inf' is not a finite number"}


def test_a_sigmoid_needs_targets_from_0_to_1():
    with pytest.raises(ConfigError, match="numerical_preprocessing=minmaxscaler"):
        SeveralLabels.fit(TARGETS, "regression", link="sigmoid")
    processor = SeveralLabels.fit(TARGETS, "regression", "minmaxscaler", "sigmoid")
    np.testing.assert_allclose(processor.values(np.array([[0.0, 0.0], [50.0, -50.0]])), [[3.5, 15], [6, -10]])
