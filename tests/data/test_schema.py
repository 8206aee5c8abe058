import json

import numpy as np
import pandas as pd
import pytest

from featherfit.data.schema import UNSUPPORTED_COLUMN_TYPES, Schema, infer_schema
from featherfit.errors import DataError, UnsupportedError


def frame_with(labels, **columns):
    rows = len(labels)
    return pd.DataFrame({"text": [f"review number {row}" for row in range(rows)], **columns, "y": labels})


def test_reads_a_table(reviews):
    before = reviews.copy(deep=True)
    schema = infer_schema(reviews, "label")
    assert schema.columns == {"title": "text", "body": "text", "stars": "numerical"}
    assert schema.text_columns == ["body", "title"]
    assert schema.dropped == []
    assert schema.to_frame().iloc[2].tolist() == [
        "stars",
        "numerical",
        "`stars` is numerical because its dtype is int64.",
    ]
    assert (schema.label, schema.problem_type) == ("label", "binary")
    assert schema.reasons["stars"] == "`stars` is numerical because its dtype is int64."
    assert schema.problem_reason == "The problem is binary because the label has 2 distinct values."
    pd.testing.assert_frame_equal(reviews, before)


def test_json_round_trip(reviews):
    schema = infer_schema(reviews, "label")
    assert Schema.from_json(json.loads(json.dumps(schema.to_json()))) == schema


def test_no_label_describes_features_only(reviews):
    schema = infer_schema(reviews.drop(columns="label"), None)
    assert (schema.label, schema.problem_type) == (None, None)
    with pytest.raises(DataError, match="problem_type and data.pos_label need a label"):
        infer_schema(reviews, None, problem_type="binary")


def test_column_types_win(reviews):
    schema = infer_schema(reviews, "label", column_types={"stars": "text", "title": "categorical"})
    assert schema.text_columns == ["body", "stars"]
    assert schema.reasons["stars"] == "`stars` is text because column_types says so."


def test_label_type_settles_the_problem():
    frame = frame_with([1, 2, 3] * 40)
    assert infer_schema(frame, "y").problem_type == "multiclass"
    assert infer_schema(frame, "y", column_types={"y": "numerical"}).problem_type == "regression"
    assert infer_schema(frame_with(range(40)), "y", column_types={"y": "categorical"}).problem_type == "multiclass"
    with pytest.raises(DataError, match="a label is numerical or categorical"):
        infer_schema(frame, "y", column_types={"y": "text"})
    with pytest.raises(DataError, match="contradicts problem_type='multiclass'"):
        infer_schema(frame, "y", column_types={"y": "numerical"}, problem_type="multiclass")
    same = infer_schema(frame, "y", column_types={"y": "categorical"}, problem_type="multiclass")
    assert same.problem_type == "multiclass"


@pytest.mark.parametrize(
    ("labels", "options", "expected"),
    [
        ([0, 1] * 10, {}, "binary"),
        ([True, False] * 10, {}, "binary"),
        ([0.5, 1.5] * 10, {}, "binary"),
        (["a", "b", "c"] * 4, {}, "multiclass"),
        (pd.Categorical([1, 2, 3] * 2), {}, "multiclass"),
        ([0, 1, 2] * 10, {}, "multiclass"),  # 3 / 30 = 0.1
        ([0, 1, 2] * 9, {}, "regression"),  # 3 / 27 > 0.1
        (list(range(50)) * 20, {}, "multiclass"),  # 50 / 1000 at the share of small tables
        (list(range(51)) * 20, {}, "multiclass"),  # 51 / 1020 = 0.05
        (list(range(60)) * 19, {}, "regression"),  # 60 / 1140 > 0.05
        ([1.0, 2.0, 3.0] * 10, {}, "multiclass"),
        ([1.5, 2.0, 3.0] * 10, {}, "regression"),
        (np.linspace(0, 1, 30), {}, "regression"),
        ([str(number / 7) for number in range(40)], {}, "regression"),
        (["1", "2", "3"] * 5, {}, "multiclass"),
        ([0, 1, 2] * 10, {"eval_metric": "rmse"}, "regression"),
        ([0, 1] * 10, {"eval_metric": "MAE"}, "regression"),
        ([0, 1] * 10, {"eval_metric": "f1"}, "binary"),
        ([0, 1, 2] * 3, {"problem_type": "classification"}, "multiclass"),
        ([0, 1] * 3, {"problem_type": "Classification"}, "binary"),
        ([0, 1] * 3, {"problem_type": "regression"}, "regression"),
        ([0, 1, 2] * 3, {"problem_type": "multiclass", "eval_metric": "rmse"}, "multiclass"),
    ],
)
def test_problem_types(labels, options, expected):
    assert infer_schema(frame_with(labels), "y", **options).problem_type == expected


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        ([1, None, 2, None], {}, r"no value in 2 rows \(index 1, 3\).*dropna\(subset=\['y'\]\)"),
        (["a"] * 4, {}, r"one value only \('a' in every row\)"),
        ([2.5] * 4, {"problem_type": "regression"}, "one value only"),
        ([1.0, np.inf, 2.0], {}, r"infinite in 1 row \(index 1\)"),
        ([1.0, 2.0, -np.inf], {"problem_type": "regression"}, "infinite"),
        (["a", "1", "b"], {"problem_type": "regression"}, r"not a number in 2 rows \(index 0, 2; values 'a', 'b'\)"),
        (["a", "b"], {"eval_metric": "rmse"}, "eval_metric 'rmse' is for regression"),
        (list(range(5)), {"problem_type": "binary"}, r"5 classes \(0, 1, 2, 3, 4\).*Use 'multiclass'"),
        ([0, 1, 0], {"problem_type": "multiclass"}, "has 2 classes .*Use 'binary'"),
        ([1, "1", 2], {}, r"mixes types: integer \(2\), text \('1'\)"),
        ([[1], [2]], {}, "holds list values"),
        ([None, None], {}, "no value in 2 rows"),
        ([0, 1], {"problem_type": "regresion"}, "Unknown problem_type 'regresion'. Did you mean 'regression'?"),
        ([0, 1], {"pos_label": 2}, r"data.pos_label=2 is not a label\. Labels: 0, 1"),
        (["no", "yes"], {"pos_label": "yess"}, "Did you mean 'yes'"),
        (["a", "b", "c"], {"pos_label": "a"}, "for binary problems, and this one is multiclass"),
    ],
)
def test_labels_that_cannot_be_learnt(labels, options, message):
    with pytest.raises(DataError, match=message):
        infer_schema(frame_with(pd.Series(labels, dtype=None)), "y", **options)


def test_refuses_what_only_automm_has():
    with pytest.raises(UnsupportedError, match="problem_type='ner' is not supported"):
        infer_schema(frame_with([0, 1]), "y", problem_type="ner")
    for name in UNSUPPORTED_COLUMN_TYPES:
        with pytest.raises(UnsupportedError, match=f"column_types\\['text'\\]='{name}' is not supported"):
            infer_schema(frame_with([0, 1]), "y", column_types={"text": name})


def test_missing_label_names_columns(reviews):
    with pytest.raises(DataError, match="no label column 'lable'. Did you mean 'label'. Columns: title, body, stars"):
        infer_schema(reviews, "lable")


def test_no_column_of_use_lists_all():
    frame = pd.DataFrame({"a": [1, 1, 1], "b": [["x"], ["y"], ["x"]], "y": [0, 1, 0]})
    with pytest.raises(DataError) as caught:
        infer_schema(frame, "y")
    message = str(caught.value)
    assert "`a` is null because every row has the same value." in message
    assert "`b` is null because its values are list" in message
    assert "column_types={'a': 'text'}" in message


def test_all_problems_at_once():
    frame = pd.DataFrame({"a": [1, 2, 3], "empty": [None] * 3, "y": [0, 0, None]})
    with pytest.raises(DataError, match="5 problems in the training data") as caught:
        infer_schema(
            frame, "y", problem_type="binry", column_types={"a": "txt", "b": "text", "empty": "img", "y": "numericl"}
        )
    for part in (
        "'txt' is no column type. Did you mean 'text'?",
        "names 'b', which is",
        "'img'",
        "'numericl'",
        "'binry'",
    ):
        assert part in str(caught.value)
    with pytest.raises(DataError, match="3 problems in the training data") as caught:
        infer_schema(frame, "y", column_types={"empty": "text"})
    for part in (
        "no value in 1 row (index 2)",
        "one value only",
        "'empty' is to be text, but all its values are missing",
    ):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (pd.DataFrame({"text": [], "y": []}), "no rows"),
        (pd.DataFrame({"y": [0, 1]}), "only the label column"),
        (pd.DataFrame([["a b", 0]]), r"have to be text, but some are not: 0, 1\. Set frame.columns"),
        (pd.DataFrame([["a", "b", 0]], columns=["t", "t", "y"]), "More than one column is named 't'"),
    ],
)
def test_tables_that_cannot_be_used(frame, message):
    with pytest.raises(DataError, match=message):
        infer_schema(frame, "y")


class TestSeveralLabels:
    frame = pd.DataFrame(
        {
            "text": [f"some words about number {i}" for i in range(40)],
            "a": [i % 2 for i in range(40)],
            "b": [i % 3 == 0 for i in range(40)],
            "c": [i / 7 for i in range(40)],
            "w": [1.0 + i for i in range(40)],
        }
    )

    def test_flags_and_numbers_are_told_apart(self):
        assert infer_schema(self.frame, ["a", "b"]).problem_type == "multilabel"
        assert infer_schema(self.frame, ["a", "c"]).problem_type == "regression"
        assert infer_schema(self.frame, ["a", "w"], problem_type="regression").problem_type == "regression"
        typed = {"a": "numerical", "c": "numerical"}
        assert infer_schema(self.frame, ["a", "c"], column_types=typed).problem_type == "regression"
        assert infer_schema(self.frame, ["a", "b"], column_types={"a": "categorical"}).problem_type == "multilabel"

    def test_labels_and_weight_are_no_features(self):
        schema = infer_schema(self.frame, ["a", "b"], sample_weight="w")
        assert list(schema.columns) == ["text", "c"] and schema.label_columns == ["a", "b"]
        assert schema.sample_weight == "w" and schema.scoring_weight is None
        again = Schema.from_json(json.loads(json.dumps(schema.to_json())))
        assert again == schema
        assert infer_schema(self.frame, "a", sample_weight="w", weight_evaluation=True).scoring_weight == "w"

    def test_all_that_is_wrong_at_once(self):
        with pytest.raises(DataError) as caught:
            infer_schema(self.frame.assign(a=2, w=-1), ["a", "b"], problem_type="multilabel", sample_weight="w")
        assert "'a' has to hold 0 and 1" in str(caught.value) and "sample_weight: column 'w'" in str(caught.value)
        with pytest.raises(DataError, match="sample_weight='a' is the label"):
            infer_schema(self.frame, "a", sample_weight="a")
        with pytest.raises(DataError, match="There is no label column 'aa'. Did you mean 'a'"):
            infer_schema(self.frame, ["b", "aa"])
        with pytest.raises(DataError, match="only the label columns 'a', 'b'; add a column of text"):
            infer_schema(self.frame[["a", "b"]], ["a", "b"])
        with pytest.raises(DataError, match="data.pos_label=1 is for binary problems, and this one is multilabel"):
            infer_schema(self.frame, ["a", "b"], pos_label=1)
