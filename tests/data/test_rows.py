"""Which rows of a table can be trained on, before anything is known but the table."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd
import pytest

from featherfit.data.rows import left_out, screen_training, spread


def table(texts: list[Any], labels: list[Any] | None = None) -> pd.DataFrame:
    given = [0, 1] * len(texts) if labels is None else labels
    return pd.DataFrame({"text": pd.Series(texts, dtype=object), "label": pd.Series(given[: len(texts)], dtype=object)})


def rejected(frame: pd.DataFrame, **options: Any) -> dict[tuple[int, str], str]:
    cells = screen_training(frame, "label", **options).rejected
    return {(cell["position"], cell["column"]): cell["reason"] for cell in cells.to_dict("records")}


WORDS = [f"a kettle of {number} words" for number in range(6)]


class TestCells:
    def test_in_a_column_that_is_text_without_them(self):
        found = rejected(table([*WORDS, b"x", "\ud800", None, 3.0]))
        assert found == {
            (6, "text"): "bytes is neither text nor a number", (7, "text"): "half of a surrogate pair, which is no text",
        }  # fmt: skip

    def test_a_column_of_which_most_cannot_be_read_is_not_text(self):
        assert rejected(table([*WORDS[:2], b"x", b"y", b"z"])) == {}

    def test_unless_it_is_said_to_be(self):
        odd = table([*WORDS[:2], b"x", b"y", b"z"])
        assert set(rejected(odd, column_types={"text": "text"})) == {(2, "text"), (3, "text"), (4, "text")}

    def test_columns_that_are_something_else_keep_their_rows(self):
        frame = table(WORDS).assign(box=pd.Series([1, 2, [3], 4, 5, 6], dtype=object))
        assert rejected(frame) == {} and rejected(frame, column_types={"text": "categorical"}) == {}


class TestLabels:
    @pytest.mark.parametrize(
        ("labels", "wrong"),
        [
            ([0, 1, None, 0, 1, 0], {2: "no label"}),
            ([0, 1, "1", 0, 1, 0], {2: "'1' is a label of another type"}),
            (["a", "b", True, "a", "b", "a"], {2: "'True' is a label of another type"}),
            ([0, 1, [1], 0, 1, 0], {2: "list is no label"}),
            ([0.5, 1, float("-inf"), Decimal("Infinity"), Fraction(2, 7), 2], {2: "'-inf' is not a finite number", 3: "'Infinity' is not a finite number"}),
            ([0, 1, 10**400, 0, 1, 0], {2: f"'1{'0' * 59}' is not a finite number"}),
            (["a", "b", "\ud800", "a", "b", "a"], {2: "half of a surrogate pair, which is no text"}),
            ([0, 1, 0, 1, 0, 1], {}),
            ([0, 1, 2.5, 1, np.int8(0), np.float32(1)], {}),
        ],
    )  # fmt: skip
    def test_what_is_no_label(self, labels, wrong):
        assert rejected(table(WORDS, labels)) == {(place, "label"): why for place, why in wrong.items()}

    def test_of_two_types_alike_neither_is_the_odd_one(self):
        assert rejected(table(WORDS, [0, 1, 0, "a", "b", "a"])) == {}

    def test_regression(self):
        labels = ["1.5", "2", "n/a", "3", "inf", "4"]
        assert rejected(table(WORDS, labels)) == {}
        wrong = {(2, "label"): "'n/a' is not a finite number", (4, "label"): "'inf' is not a finite number"}
        assert rejected(table(WORDS, labels), problem_type="regression") == wrong

    def test_no_label_column(self):
        assert rejected(table(WORDS).drop(columns="label")) == {}


def test_what_is_left_and_its_list():
    rows = screen_training(table([*WORDS[:3], b"x"], [0, 1, None, None]).set_axis([7, 7, 7, 8]), "label")
    assert rows.frame.index.tolist() == [7, 7] and rows.set_aside == 2
    with pytest.warns(UserWarning, match=r"2 rows of 4 in train_data could not be processed and are left out"):
        listed = left_out(rows, "train_data")
    assert listed["position"].tolist() == [2, 3, 3] and listed["table"].tolist() == ["train_data"] * 3


def test_a_sound_table_is_returned_as_it_is():
    frame = table(WORDS)
    assert screen_training(frame, "label").frame is frame


def test_spread():
    usable = np.array([True, False, True])
    assert spread(np.array([1, 2]), usable).tolist() == [1, None, 2]
    assert np.array_equal(spread(np.array([[0.5], [1.0]]), usable), [[0.5], [np.nan], [1.0]], equal_nan=True)
    assert spread(np.array(["a", "b"], dtype=object), usable).tolist() == ["a", None, "b"]


class TestSeveralLabels:
    """Rows of several labels, and of weights, that cannot be trained on."""

    def frame(self, **columns):
        return pd.DataFrame({"text": [f"some words about {i}" for i in range(6)], **columns})

    def test_flags(self):
        frame = self.frame(a=pd.Series([0, 1, None, 2, 1, 0], dtype=object), b=[True, False, True, True, False, True])
        found = screen_training(frame, ["a", "b"], problem_type="multilabel").rejected
        assert found[["position", "column", "reason"]].to_numpy().tolist() == [
            [2, "a", "no label"],
            [3, "a", "'2' is neither 0 nor 1"],
        ]

    def test_lists(self):
        frame = self.frame(tags=pd.Series([["x"], [], None, "x", [["y"]], {"y"}], dtype=object))
        found = screen_training(frame, "tags", problem_type="multilabel").rejected
        assert found[["position", "reason"]].to_numpy().tolist() == [
            [2, "no list of labels"],
            [3, "no list of labels"],
            [4, "a list with values that are no labels"],
        ]

    def test_targets(self):
        frame = self.frame(a=[1.0, 2, 3, 4, 5, float("inf")], b=[1.0, None, 3, 4, 5, 6])
        found = screen_training(frame, ["a", "b"]).rejected
        assert found[["position", "column"]].to_numpy().tolist() == [[1, "b"], [5, "a"]]

    def test_weights(self):
        frame = self.frame(label=[0, 1] * 3, weight=[1, -1, 2, None, 0, 3])
        rows = screen_training(frame, "label", weight="weight")
        assert (
            rows.rejected["reason"].tolist() == ["'-1.0' is no weight", "'nan' is no weight"] and len(rows.frame) == 4
        )
