"""Each finding, on a table that has it and on one that has not."""

from __future__ import annotations

import itertools
import sys
import time

import numpy as np
import pandas as pd
import pytest

from featherfit.data import findings
from featherfit.data.findings import DataReport, Finding, check_data
from featherfit.data.schema import infer_schema
from featherfit.data.scripts import script_of, script_shares
from featherfit.demo import demo_table

NOUNS = ("kettle", "lamp", "chair", "cup", "table", "phone", "bag", "pen", "shelf", "hat", "coat")


def table(rows: int = 60, **columns) -> pd.DataFrame:
    """Texts that differ, and labels that nothing tells."""
    draw = np.random.default_rng(0)
    words = draw.choice(NOUNS, size=(rows, 6))
    frame = pd.DataFrame(
        {"text": [f"{' '.join(row)} {i}x {row[0]}" for i, row in enumerate(words)], "label": draw.integers(0, 2, rows)}
    )
    return frame.assign(**columns)


def found(frame: pd.DataFrame, tuning: pd.DataFrame | None = None, label: str | None = "label", **options) -> dict:
    """Findings by kind, but for the scripts that every table has."""
    report = check_data(frame, tuning, infer_schema(frame, label, **options))
    return {finding.kind: finding for finding in report if finding.kind not in ("scripts", "languages")}


class TestLanguages:
    def note(self, texts: list[str]) -> Finding | None:
        report = check_data(pd.DataFrame({"text": texts}), None, infer_schema(pd.DataFrame({"text": texts}), None))
        return next((finding for finding in report if finding.kind == "languages"), None)

    def demo(self, languages: str, each: int) -> list[str]:
        return [text for language in languages.split() for text in demo_table(language)["text"].head(each)]

    def test_shares_of_a_sample(self):
        pytest.importorskip("py3langid")
        finding = self.note([*demo_table("en", "train")["text"].head(100), *self.demo("de ja", 50)])
        assert finding.message == "Languages, by 200 texts of them: en 50.0%, de 25.0%, ja 25.0%."
        assert (finding.severity, finding.count) == ("note", 3)

    def test_those_of_a_text_or_three_are_not_named(self, monkeypatch):
        found = ["en"] * 180 + ["fr"] * 15 + ["af"] * 3 + ["nl"] * 2
        monkeypatch.setattr(findings, "detect_languages", lambda texts: found)
        assert self.note(self.demo("en de fr", 70)).message.endswith(": en 90.0%, fr 7.5%, others 2.5%.")

    def test_texts_without_a_letter_do_not_count(self):
        pytest.importorskip("py3langid")
        finding = self.note([*self.demo("de", 70), *("12 : 34" for _ in range(60))])
        assert finding.message == "Languages, by 70 texts of them: de 100.0%."

    def test_without_the_detector_it_says_which_extra_has_it(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "py3langid.langid", None)
        finding = self.note(self.demo("en de", 60))
        assert 'pip install "featherfit[languages]"' in finding.message and finding.count == 0

    def test_few_texts_say_too_little(self):
        assert self.note(self.demo("en", 70)) is None

    def test_a_sample_of_a_large_table(self, monkeypatch):
        seen = []
        monkeypatch.setattr(findings, "detect_languages", lambda texts: seen.extend(texts) or ["en"] * len(texts))
        self.note([f"the text of row {row} " + "and so on " * 100 for row in range(5000)])
        assert len(seen) == 200 and max(map(len, seen)) == 300 and seen[-1].startswith("the text of row 4975")


def test_a_sound_table_has_none():
    assert found(table(), table(20).assign(text=lambda frame: frame["text"] + " more")) == {}


class TestLeakage:
    def test_a_column_that_decides_the_label(self):
        frame = table()
        frame["verdict"] = frame["label"].map({0: "send it back", 1: "keep it please"})
        finding = found(frame, column_types={"verdict": "text"})["leakage"]
        assert finding.severity == "warning" and "Column 'verdict' decides the label" in finding.message

    def test_one_that_is_not_used(self):
        frame = table()
        frame["stars"] = frame["label"] * 4 + 1
        used, unused = (
            {one.kind: one for one in check_data(frame, None, infer_schema(frame, "label"), read)}["leakage"]
            for read in (None, ["text"])
        )
        assert used.severity == "warning" and "'stars' decides the label. Is it known" in used.message
        assert unused.severity == "note" and "'stars'" in unused.message and "not used" in unused.message

    def test_one_error_in_two_hundred_is_still_a_leak_and_ten_are_not(self):
        frame = table(200)
        frame["stars"] = frame["label"]
        for wrong, leaks in ((1, True), (10, False)):
            stars = frame["label"].to_numpy().copy()
            stars[:wrong] = 1 - stars[:wrong]
            assert ("leakage" in found(frame.assign(stars=stars))) == leaks

    def test_a_column_of_distinct_values_tells_nothing(self):
        assert "leakage" not in found(table(title=[f"a title {i}" for i in range(60)]))

    def test_a_common_class_alone_is_no_leak(self):
        frame = table(200, label=[1] * 3 + [0] * 197, stars=np.arange(200) % 2)
        assert "leakage" not in found(frame)

    def test_the_text_names_its_class(self):
        frame = table()
        frame["label"] = frame["label"].map({0: "negative", 1: "positive"})
        frame["text"] = [
            f"{text[:20]}: Negative {text}" if label == "negative" else f"a positive {text}"
            for text, label in zip(frame["text"], frame["label"], strict=True)
        ]
        assert found(frame)["leakage"].count == 60

    @pytest.mark.parametrize(("form", "word"), [("{0} {1}", "first"), ("{1} {0}", "last")])
    def test_the_first_or_last_word(self, form, word):
        frame = table()
        frame["text"] = [
            form.format(("<neg>", "<pos>")[label], text)
            for text, label in zip(frame["text"], frame["label"], strict=True)
        ]
        assert f"The {word} word of column 'text' decides the label" in found(frame)["leakage"].message

    def test_regression(self):
        frame = table(200, label=np.linspace(0, 1, 200).repeat(1))
        frame["grade"] = 7
        assert "leakage" not in found(frame)
        frame = table(400)
        frame["label"] = np.random.default_rng(0).integers(0, 40, 400) / 4
        assert "leakage" in found(frame.assign(code=frame["label"] * 10), problem_type="regression")


class TestRows:
    def test_conflicts(self):
        frame = table()
        frame.loc[[0, 1, 2], "text"] = "the very same words"
        frame.loc[[0, 1, 2], "label"] = [0, 1, 1]
        assert found(frame)["conflicts"].count == 3
        frame.loc[[0, 1, 2], "label"] = 1
        assert "conflicts" not in found(frame)

    def test_conflicts_in_regression(self):
        frame = table(label=np.linspace(0, 1, 60))
        frame.loc[[0, 1], "text"] = "the very same words"
        assert "other numbers" in found(frame)["conflicts"].message

    def test_duplicates_and_overlap(self):
        frame = table()
        frame.loc[[3, 4, 5], "text"] = frame.loc[0, "text"]
        frame.loc[[0, 3, 4, 5], "label"] = 1
        assert found(frame)["duplicates"].count == 3
        overlap = found(frame, frame.iloc[[0, 3, 10]])["overlap"]
        assert (overlap.count, overlap.severity) == (3, "warning")

    def test_all_text_columns_count(self):
        frame = table(body=["one and the same body"] * 30 + ["another body, this one"] * 30)
        assert "duplicates" not in found(frame, column_types={"body": "text"})

    def test_empty_texts(self):
        frame = table()
        frame.loc[[0, 1], "text"] = ["", "  "]
        assert (found(frame)["empty"].count, found(frame)["empty"].severity) == (2, "note")
        frame.loc[range(20), "text"] = None
        assert found(frame)["empty"].severity == "warning" and "duplicates" not in found(frame)


class TestClasses:
    def test_tiny(self):
        finding = found(table(label=["a"] * 40 + ["b"] * 11 + ["c"] * 9))["tiny_classes"]
        assert finding.count == 1 and "'c'" in finding.message

    def test_lopsided(self):
        assert found(table(400, label=[0] * 385 + [1] * 15))["lopsided"].count == 385
        assert "lopsided" not in found(table(400, label=[0] * 375 + [1] * 25))

    def test_not_validated(self):
        frame = table(label=[0, 1, 2] * 20)
        assert found(frame, frame[frame["label"] != 1].assign(text="new words, these"))["not_validated"].count == 1


def test_constant_columns():
    finding = found(table(source="shop"))["constant"]
    assert finding.count == 1 and "`source` is null because every row has the same value" in finding.message


def test_lengths():
    report = DataReport().with_lengths(100, 20, 345, 16)
    assert [(f.kind, f.severity, f.count) for f in report] == [
        ("too_long", "warning", 20)
    ] and "lose 345 tokens" in str(report)
    assert DataReport().with_lengths(100, 2, 3, 16).findings[0].severity == "note"
    assert str(DataReport().with_lengths(100, 0, 0, 16)) == "Nothing odd was found."


class TestScripts:
    @pytest.mark.parametrize(
        ("letter", "name"),
        [("a", "Latin"), ("é", "Latin"), ("я", "Cyrillic"), ("ω", "Greek"), ("ש", "Hebrew"), ("م", "Arabic"), ("क", "Devanagari"),
         ("ก", "Thai"), ("漢", "Han"), ("か", "Kana"), ("カ", "Kana"), ("한", "Hangul"), ("\U00020000", "Han"), ("ა", "Georgian"),
         ("\u13a0", "other"), ("\u0250", "Latin")],
    )  # fmt: skip
    def test_letters(self, letter, name):
        assert script_of(letter) == name
        if name not in ("other", "Han", "Kana"):
            import unicodedata

            assert unicodedata.name(letter).startswith(name.upper())

    def test_ranges_are_in_order(self):
        from featherfit.data.scripts import _RANGES

        assert all(start <= end for start, end, _ in _RANGES)
        assert all(one[1] < other[0] for one, other in itertools.pairwise(_RANGES))

    def test_shares(self):
        assert script_shares(["abc 12!", "漢"]) == {"Latin": 0.75, "Han": 0.25}
        assert script_shares([]) == script_shares(["123"]) == {}

    def test_a_script_that_training_lacks(self):
        held = table(20, text=[f"これは {i} の とても 良い 箱 です" for i in range(20)])
        assert "Kana" in found(table(), held)["new_script"].message


def test_the_report():
    report = check_data(
        table(label=[0] * 59 + [1], source="shop"),
        None,
        infer_schema(table(label=[0] * 59 + [1], source="shop"), "label"),
    )
    severities = [finding.severity for finding in report]
    assert severities == sorted(severities, key="warning note".index) and {"warning", "note"} == set(severities)
    assert report.to_frame()["kind"].tolist() == [finding["kind"] for finding in report.to_json()]
    assert str(report).startswith("warning: ")


def test_the_table_is_left_alone():
    frame = table()
    before = frame.copy(deep=True)
    check_data(frame, frame, infer_schema(frame, "label"))
    pd.testing.assert_frame_equal(frame, before)


@pytest.mark.slow
def test_time_grows_with_the_rows():
    """Measured in processor time: a hundred times the rows take no more than two hundred times as long."""
    took = []
    for rows in (1_000, 100_000):
        frame = table(rows)
        schema = infer_schema(frame, "label")
        start = time.process_time()
        check_data(frame, frame, schema)
        took.append(time.process_time() - start)
    assert took[1] < 200 * max(took[0], 0.005)


def test_rows_are_the_same_if_all_their_columns_are():
    frame = pd.DataFrame(
        {"text": ["it works well", "do not buy"] * 20, "price": np.arange(40) / 7, "label": [0, 1, 1, 0] * 10}
    )
    kinds = {one.kind: one for one in check_data(frame, frame[:3], infer_schema(frame, "label"))}
    assert not kinds.keys() & {"duplicates", "conflicts"}
    assert "3 validation rows of 3 have the values of a training row" in kinds["overlap"].message
    again = pd.concat([frame, frame[:2].assign(label=[1, 1])])
    kinds = {one.kind: one for one in check_data(again, frame[:3].assign(price=-1.0), infer_schema(again, "label"))}
    assert "2 training rows of 42 have the values of an earlier one" in kinds["duplicates"].message
    assert "2 training rows have values that other rows give other labels" in kinds["conflicts"].message
    assert "overlap" not in kinds


class TestSeveralLabels:
    def flags(self, rows: int = 60) -> pd.DataFrame:
        draw = np.random.default_rng(1)
        return table(rows, b=draw.integers(0, 2, rows), rare=[1] * 3 + [0] * (rows - 3))

    def test_a_rare_label_and_one_that_is_not_validated(self):
        tuning = self.flags(20).assign(rare=0, text=lambda frame: frame["text"] + " more")
        report = found(self.flags(), tuning, ["label", "b", "rare"])
        assert set(report) == {"tiny_classes", "not_validated"}
        assert report["tiny_classes"].message == "1 label has fewer than 10 training rows: 'rare'."
        assert report["not_validated"].message == "1 label has no validation row: 'rare'."

    def test_a_column_that_decides_one_of_them(self):
        frame = self.flags().assign(source=lambda frame: frame["b"].map({0: "shop", 1: "web"}))
        assert (
            found(frame, None, ["label", "b"])["leakage"].message
            == "Column 'source' decides 'b'. Is it known when predicting?"
        )

    def test_conflicts_of_lists(self):
        frame = pd.concat([table(30)] * 2, ignore_index=True)
        frame["label"] = [["x", "y"], ["x"]] * 15 + [["y", "x"], ["x"]] * 15
        assert "conflicts" not in found(frame, None, "label", problem_type="multilabel")
        frame.at[0, "label"] = []
        assert found(frame, None, "label", problem_type="multilabel")["conflicts"].count == 2
