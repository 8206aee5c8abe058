import numpy as np
import pandas as pd
import pytest

from featherfit.data.schema import Schema
from featherfit.data.split import default_holdout_frac, split_holdout
from featherfit.errors import ConfigError, DataError


def table(labels):
    return pd.DataFrame({"text": ["a b"] * len(labels), "y": labels}, index=[f"r{row}" for row in range(len(labels))])


def schema(problem_type):
    return Schema({"text": "text"}, {"text": ""}, "y", problem_type)


@pytest.mark.parametrize(
    ("rows", "share"),
    [
        (10, 0.2),
        (2500, 0.2),
        (4000, 0.125),
        (4999, 500 / 4999),
        (5000, 0.1),
        (25000, 0.1),
        (50000, 0.05),
        (10**6, 0.01),
    ],
)
def test_share_follows_autogluon(rows, share):
    assert default_holdout_frac(rows) == pytest.approx(share)


def test_classes_keep_their_shares_and_no_row_is_lost():
    frame = table(["a"] * 60 + ["b"] * 40)
    before = frame.copy(deep=True)
    train, held = split_holdout(frame, schema("binary"))
    assert held["y"].value_counts().to_dict() == {"a": 12, "b": 8}
    assert sorted([*train.index, *held.index]) == sorted(frame.index)
    pd.testing.assert_frame_equal(pd.concat([train, held]).loc[frame.index], frame)
    pd.testing.assert_frame_equal(frame, before)


def test_same_rows_as_scikit_learn_draws():
    from sklearn.model_selection import train_test_split

    frame = table([0, 1, 2] * 20)
    expected = train_test_split(frame, test_size=0.2, random_state=7, stratify=frame["y"])[1]
    assert set(split_holdout(frame, schema("multiclass"), seed=7)[1].index) == set(expected.index)
    assert set(split_holdout(frame, schema("multiclass"), seed=8)[1].index) != set(expected.index)


def test_single_rows_of_a_class_stay_in_training():
    frame = table(["a"] * 20 + ["b"] * 20 + ["once", "too"])
    train, held = split_holdout(frame, schema("multiclass"))
    assert {"once", "too"} < set(train["y"])
    assert set(held["y"]) == {"a", "b"}
    assert len(held) == 8  # 0.2 of the 40 rows that can be held out


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("labels", [list(range(50)) * 2, [0, 0, 0, 1], [0, 0, 1, 1], [0] * 30 + [1, 1]])
def test_training_has_every_class(labels, seed):
    frame = table(labels)
    train, held = split_holdout(frame, schema("multiclass"), seed=seed)
    assert set(train["y"]) == set(labels)
    assert len(held) >= 1
    assert len(train) + len(held) == len(frame)


def test_regression_and_large_share():
    frame = table(np.arange(10.0))
    assert len(split_holdout(frame, schema("regression"))[1]) == 2
    train, held = split_holdout(frame, schema("regression"), 0.99)
    assert (len(train), len(held)) == (1, 9)


def test_duplicate_index_labels_are_fine():
    frame = table([0, 1] * 10).set_axis([0] * 20)
    train, held = split_holdout(frame, schema("binary"))
    assert (len(train), len(held)) == (16, 4)


def test_refuses():
    with pytest.raises(DataError, match="3 rows are too few"):
        split_holdout(table([0, 1, 0]), schema("binary"))
    with pytest.raises(DataError, match="Every class has one row only"):
        split_holdout(table([0, 1, 2, 3, 4]), schema("multiclass"))
    for share in (0, 1, -0.1, float("nan")):
        with pytest.raises(ConfigError, match="holdout_frac"):
            split_holdout(table([0, 1] * 4), schema("binary"), share)


class TestSeveralLabels:
    labels = pd.DataFrame({"a": [1, 0] * 50, "b": [1] * 4 + [0] * 96})

    def test_a_rare_label_is_in_both_parts(self):
        frame = self.labels.assign(text="a b")
        schema = Schema({"text": "text"}, {"text": ""}, ["a", "b"], "multilabel")
        for seed in range(10):
            train, held = split_holdout(frame, schema, 0.25, seed=seed)
            assert held["b"].sum() == 1 and train["b"].sum() == 3 and len(held) == 25

    def test_lists_are_split_as_columns_are(self):
        lists = [[name for name in ("a", "b") if row[name]] for _, row in self.labels.iterrows()]
        by_columns = Schema({"text": "text"}, {"text": ""}, ["a", "b"], "multilabel")
        by_lists = Schema({"text": "text"}, {"text": ""}, "y", "multilabel")
        _, one = split_holdout(self.labels.assign(text="a b"), by_columns)
        _, other = split_holdout(pd.DataFrame({"text": "a b", "y": lists}), by_lists)
        assert one.index.equals(other.index)
