import json

import numpy as np
import pandas as pd
import pytest

from featherfit.data.processors.label import LabelProcessor
from featherfit.errors import ConfigError, DataError

COLUMNS = {
    "int": pd.Series([3, -1, 3, -1]),
    "int8": pd.Series([3, -1, 3, -1], dtype="int8"),
    "uint64": pd.Series([2**64 - 1, 2**63, 2**63, 2**63], dtype="uint64"),
    "Int64": pd.Series([3, -1, 3, -1], dtype="Int64"),
    "object int": pd.Series([3, -1, 3, -1], dtype=object),
    "str": pd.Series(["no", "yes", "no", "yes"]),
    "object str": pd.Series(["no", "yes", "no", "yes"], dtype=object),
    "string": pd.Series(["いいえ", "はい", "はい", "はい"], dtype="string"),
    "bool": pd.Series([True, False, True, True]),
    "boolean": pd.Series([True, False, True, True], dtype="boolean"),
    "float": pd.Series([0.1, 0.3, 0.1, 0.3]),
    "float32": pd.Series([0.1, 0.3, 0.1, 0.3], dtype="float32"),
    "category str": pd.Series(["b", "a", "b", "a"], dtype=pd.CategoricalDtype(["b", "a", "unused"])),
    "category int": pd.Series([2, 1, 2, 1], dtype="category"),
}
KINDS = {
    "int8": np.int8,
    "uint64": np.uint64,
    "float": np.float64,
    "float32": np.float32,
    "bool": np.bool_,
    "int": np.int64,
}


@pytest.mark.parametrize("name", COLUMNS)
def test_labels_come_back_as_they_went_in(name):
    column = COLUMNS[name]
    before = column.copy(deep=True)
    fitted = LabelProcessor.fit(column, "binary")
    again = LabelProcessor.from_json(json.loads(json.dumps(fitted.to_json())))
    for processor in (fitted, again):
        ids = processor.encode(column)
        assert ids.dtype == np.int64
        assert set(ids) == {0, 1}
        decoded = processor.decode(ids)
        assert decoded.tolist() == column.tolist()
        assert [type(value) for value in decoded.tolist()] == [type(value) for value in column.tolist()]
        assert decoded.dtype == KINDS.get(name, decoded.dtype)
        assert processor.classes.dtype == decoded.dtype
        assert processor.classes.tolist() == sorted(set(column.tolist()))
        assert processor.positive_class == max(column.tolist())
    pd.testing.assert_series_equal(column, before)


def test_pos_label_has_id_one():
    column = pd.Series(["ham", "spam", "spam"])
    assert LabelProcessor.fit(column, "binary").encode(column).tolist() == [0, 1, 1]
    processor = LabelProcessor.fit(column, "binary", pos_label="ham")
    assert processor.encode(column).tolist() == [1, 0, 0]
    assert processor.positive_class == "ham"
    assert LabelProcessor.from_json(processor.to_json()).classes.tolist() == ["spam", "ham"]
    with pytest.raises(DataError, match="data.pos_label='hamm' is not a label. Did you mean 'ham'"):
        LabelProcessor.fit(column, "binary", pos_label="hamm")
    with pytest.raises(ConfigError, match="this one is multiclass"):
        LabelProcessor.fit(pd.Series(["a", "b", "c"]), "multiclass", pos_label="a")


def test_multiclass_ids_are_sorted_and_decode_keeps_shape():
    processor = LabelProcessor.fit(pd.Series(["c", "a", "b", "a"]), "multiclass")
    assert processor.encode(pd.Series(["b", "c"])).tolist() == [1, 2]
    assert processor.decode(np.array([[0, 2], [1, 1]])).tolist() == [["a", "c"], ["b", "b"]]
    assert processor.positive_class is None


def test_unknown_labels_are_all_named():
    processor = LabelProcessor.fit(pd.Series(["a", "b"], name="y"), "binary")
    column = pd.Series(["a", "x", "z", "x"], index=[5, 6, 7, 8], name="y")
    with pytest.raises(DataError) as caught:
        processor.encode(column)
    assert str(caught.value) == (
        "Label column 'y' has 2 labels that training has not seen: 'x' (2 rows), 'z' (1 row); index 6, 7, 8. "
        "Known: 'a', 'b'."
    )
    numeric = LabelProcessor.fit(pd.Series([0, 1]), "binary")
    with pytest.raises(DataError, match="'0' .1 row.* They differ in type only"):
        numeric.encode(pd.Series(["0", "1"]))


def test_whole_floats_find_integer_classes():
    processor = LabelProcessor.fit(pd.Series([0, 1]), "binary")
    assert processor.encode(pd.Series([1.0, 0.0])).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("method", "center", "scale"),
    [("standardscaler", 3.0, np.sqrt(8 / 3)), ("minmaxscaler", 1.0, 4.0), (None, 0.0, 1.0)],
)
def test_regression_scaling_by_hand(method, center, scale):
    column = pd.Series([1, 3, 5])
    processor = LabelProcessor.fit(column, "regression", numerical_preprocessing=method)
    processor = LabelProcessor.from_json(json.loads(json.dumps(processor.to_json())))
    scaled = processor.encode(column)
    assert scaled.dtype == np.float32
    np.testing.assert_allclose(scaled, (np.array([1, 3, 5]) - center) / scale, rtol=1e-6)
    np.testing.assert_allclose(processor.inverse_scale(scaled), [1, 3, 5], rtol=1e-6)
    assert processor.inverse_scale(scaled).dtype == np.float64
    assert len(processor.classes) == 0


def test_numeric_text_is_a_target():
    processor = LabelProcessor.fit(pd.Series(["1", "2.5", "4"]), "regression", numerical_preprocessing=None)
    assert processor.encode(pd.Series(["2.5", "7"])).tolist() == [2.5, 7.0]


@pytest.mark.parametrize(
    ("values", "problem_type", "message"),
    [
        ([1, "a"], "binary", "mixes types"),
        ([True, 2], "binary", "mixes types"),
        ([0, None], "binary", "no value in 1 row"),
        (["a", "a"], "binary", "one value only"),
        ([1.0, np.inf], "regression", "infinite"),
        ([1.0, "a"], "regression", "mixes types"),
        (["1", "a"], "regression", "not a number"),
        ([2, 2], "regression", "one value only"),
        ([1e308, -1e308], "regression", "cannot be scaled"),
        ([2**70, 1], "binary", "beyond 64 bits"),
        ([10**400, 1, 2], "regression", "is not a number in 1 row"),
        ([-(10**400), 1.5, 2], "regression", "is infinite in 1 row"),
    ],
)
def test_labels_it_refuses(values, problem_type, message):
    with pytest.raises(DataError, match=message):
        LabelProcessor.fit(pd.Series(values, dtype=object), problem_type)


def test_encode_refuses_missing_and_infinite():
    classes = LabelProcessor.fit(pd.Series(["a", "b"]), "binary")
    with pytest.raises(DataError, match=r"no value in 1 row \(index 1\)"):
        classes.encode(pd.Series(["a", None]))
    target = LabelProcessor.fit(pd.Series([1.0, 2.0]), "regression")
    with pytest.raises(DataError, match=r"not a finite number in 1 row \(index 1; values inf\)"):
        target.encode(pd.Series([1.0, np.inf]))


def test_quantiles_do_not_cross():
    processor = LabelProcessor.fit(pd.Series([0.0, 10.0, 20.0]), "quantile", levels=(0.1, 0.5, 0.9))
    given = processor.values(np.array([[1.0, 0.0, 2.0], [-1.0, 0.0, 1.0]]))
    scale = np.std([0, 10, 20])
    np.testing.assert_allclose(given, [[10, 10 + scale, 10 + 2 * scale], [10 - scale, 10, 10 + scale]])
    assert (processor.outputs, processor.names, processor.numeric) == (3, [0.1, 0.5, 0.9], True)
    again = LabelProcessor.from_json(json.loads(json.dumps(processor.to_json())))
    assert again.levels == (0.1, 0.5, 0.9) and again.center == processor.center
