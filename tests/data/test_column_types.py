import datetime
import uuid
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest

from featherfit.data.column_types import COLUMN_TYPES, RULES, count_words, describe, infer_column_type

TEXTS = {
    "english": ["it works well", "do not buy this", "arrived late and broken", "my kids love it"],
    "two words": ["good fun", "too small", "nice color", "bad smell"],
    "japanese": ["とても良い商品でした", "すぐに壊れました", "配送が早くて助かる", "二度と買いません"],
    "chinese": ["质量很好，值得购买", "物流太慢了", "味道不错", "客服态度差"],
    "thai": ["สินค้าดีมากครับ", "ส่งช้ามาก", "ไม่แนะนำให้ซื้อ", "คุ้มราคา"],
    "korean": ["정말 좋아요", "배송이 너무 늦어요", "다시는 안 사요", "가격 대비 만족"],
    "arabic": ["منتج رائع جدا", "لا أنصح به", "وصل متأخرا ومكسورا", "سعر جيد"],
    "mixed": ["iPhone用ケース最高", "サイズがS", "LED电源 ok", "カバーcase"],
    "with missing": ["it works well", None, "do not buy this", float("nan")],
}


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("dtype", [object, "string", None])
def test_texts_of_all_scripts(name, dtype):
    column = pd.Series(TEXTS[name], dtype=dtype)
    assert infer_column_type(column)[0] == "text"


def test_texts_stay_texts_in_large_tables():
    for values in TEXTS.values():
        rows = [f"{value} {number}" for number in range(200) for value in values if isinstance(value, str)]
        assert infer_column_type(pd.Series(rows))[0] == "text"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("good fun", 2),
        ("東京", 1),
        ("東", 1),
        ("東京都", 1),
        ("とても良い", 2),
        ("これは、ペンです。", 1 + 2),
        ("ดีมาก", 2),
        ("iPhone用ケース", 1 + 2),
        ("  ", 0),
        ("정말 좋아요", 2),
        ("don't stop", 2),
    ],
)
def test_words_by_script(text, words):
    assert count_words(text) == words


def repeated(*values):
    return [values[row % len(values)] for row in range(60)]


@pytest.mark.parametrize(
    ("values", "expected", "reason"),
    [
        ([None, None], "null", "missing"),
        (["same"] * 3, "null", "same value"),
        ([7, 7, 7], "null", "same value"),
        (pd.to_datetime(["2024-01-01", "2024-01-02"]), "datetime", "datetime64"),
        ([datetime.date(2024, 1, 1), datetime.date(2024, 1, 2)], "datetime", "dates"),
        ([True, False, True], "boolean", "bool"),
        ([True, None, False], "boolean", "true or false"),
        (pd.array([True, None, False], dtype="boolean"), "boolean", "dtype is boolean"),
        (pd.Categorical([True, False]), "categorical", "category"),
        (list(range(7, 47)), "identifier", "counts the rows"),
        (list(range(7, 20)), "numerical", "int64"),  # too few to tell
        ([*range(39), 50], "numerical", "int64"),
        (["2024-01-31", "2023-12-01", None], "datetime", "dates of the form ISO8601"),
        (["May 30, 2011", "September 4, 2016"], "datetime", "%B %d, %Y"),
        (["31/01/2024", "01/02/2024"], "datetime", "%d/%m/%Y"),
        (["03/04/2024", "01/02/2024"] * 2, "categorical", ""),  # which is the day?
        (["2024", "2023"], "numerical", "read as numbers"),
        (pd.Categorical(["it works well", "do not buy"]), "categorical", "category"),
        ([1.5, 2.5, None], "numerical", "float64"),
        ([1, None, 2.5], "numerical", ""),
        (["1", "2.5", "-3e4"], "numerical", "read as numbers"),
        ([["a"], ["b"]], "null", "list"),
        ([b"a", b"b"], "null", "bytes"),
        (repeated("red", "green", "blue"), "categorical", "only 3 distinct values in 60 rows"),
        (repeated("very good", "not so good"), "categorical", "only 2 distinct values"),
        (repeated("東京都", "大阪府", "京都府"), "categorical", "only 3"),
        ([str(uuid.UUID(int=number)) for number in range(40)], "identifier", "looks like an identifier"),
        ([f"user_{number:06d}" for number in range(40)], "identifier", "'user_000000'"),
        ([f"{number:x}a9f3c" for number in range(40)], "identifier", ""),
        (["apple", "pear", "plum", "fig"], "categorical", "4 distinct values have 1.0 words"),
        (["only one row of text"], "text", ""),
        (["very good", "bad thing"] * 14, "text", "2.0 words"),
        (["very good", "bad thing"] * 15, "categorical", "only 2 distinct values in 30 rows"),
        (["same", None, "same"], "categorical", ""),
        ([7, None, 7], "numerical", ""),
    ],
)
def test_rules(values, expected, reason):
    found, why = infer_column_type(pd.Series(values))
    assert (found, reason in why) == (expected, True), why


def test_twenty_distinct_values_are_the_most_categories():
    few = [f"kind {row % 20} of thing" for row in range(400)]
    many = [f"kind {row % 21} of thing" for row in range(400)]
    assert infer_column_type(pd.Series(few))[0] == "categorical"
    assert infer_column_type(pd.Series(many))[0] == "text"


def test_reason_is_a_sentence():
    assert describe("Title", *infer_column_type(pd.Series(TEXTS["two words"]))) == (
        "`Title` is text because its values have 2.0 words on average."
    )


def test_every_type_has_a_rule():
    told_by_the_user = {"document_image"}
    assert {column_type for column_type, _ in RULES} == set(COLUMN_TYPES) - told_by_the_user


def test_numbers_among_strings_do_not_hide_text():
    column = pd.Series(["it works well", 5, "do not buy this", np.int64(3)], dtype=object)
    assert infer_column_type(column)[0] == "text"


@pytest.mark.parametrize("first", ["text", 1])
def test_arrays_among_text_are_compared_with_nothing(first):
    column = pd.Series([first, np.array([1, 2])], dtype=object)
    assert infer_column_type(column)[0] == "null"


@pytest.mark.parametrize("values", [[2**63, False], [-(2**70), 1.5, "a"], [Fraction(0), Decimal("Infinity")]])
def test_numbers_that_cannot_be_compared(values):
    assert infer_column_type(pd.Series(values, dtype=object))[0] != "null"
    assert infer_column_type(pd.Series([values[0]] * 3, dtype=object))[0] == "null"
