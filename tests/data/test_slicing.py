"""The slice of every row, and languages found without a network."""

from __future__ import annotations

import sys
from types import ModuleType

import pandas as pd
import pytest

from featherfit.data.languages import detect_languages
from featherfit.data.slicing import MISSING, only_values, row_slices
from featherfit.errors import ConfigError, DataError, MissingDependencyError

FRAME = pd.DataFrame(
    {
        "text": ["a b", "c", "d"],
        "language": ["de", None, "en"],
        "year": [2001.0, 2001.0, float("nan")],
        "auto": ["x", "y", "x"],
    },
    index=[7, 8, 9],
)
SENTENCES = {
    "en": ["the kettle broke after two days", "a lovely book for children", "I would buy this again"],
    "de": ["der Wasserkocher ging nach zwei Tagen kaputt", "ein schönes Buch für Kinder", "ich würde es wieder kaufen"],
    "ja": ["二日で壊れてしまいました", "子供にとても良い本です", "また買いたいと思います"],
}


def test_columns():
    assert row_slices(FRAME, "language", ["text"]) == (["language"], [("de",), (MISSING,), ("en",)])
    names, rows = row_slices(FRAME, ["language", "year"], ["text"])
    assert names == ["language", "year"] and rows == [("de", "2001"), (MISSING, "2001"), ("en", MISSING)]


def test_a_column_called_auto_is_that_column():
    assert row_slices(FRAME, "auto", ["text"]) == (["auto"], [("x",), ("y",), ("x",)])


def test_what_cannot_be_sliced_by():
    with pytest.raises(DataError, match=r"by names 'langage', which is not a column. Did you mean 'language'\?"):
        row_slices(FRAME, "langage", ["text"])
    for wrong in (3, [], [3]):
        with pytest.raises(ConfigError, match="has to be the name of a column"):
            row_slices(FRAME, wrong, ["text"])
    with pytest.raises(ConfigError, match="makes 201 slices of 201 rows, and at most 200"):
        row_slices(pd.DataFrame({"id": range(201)}), "id", [])


def test_columns_with_one_value():
    frame = FRAME.assign(source="shop", year=2001.0, essay="x" * 101)
    assert only_values(frame, frame.columns) == {"year": "2001", "source": "shop"}
    assert only_values(frame.head(0), frame.columns) == {}


def fake_detector(monkeypatch: pytest.MonkeyPatch) -> None:
    """Finds the language that a text's words name, most frequent first."""

    class LanguageIdentifier:
        @classmethod
        def from_model_file(cls, file, norm_probs):
            return cls()

        def rank(self, text):
            words = text.split()
            return sorted({word: words.count(word) for word in ("en", "de", "xx")}.items(), key=lambda at: -at[1])

    module = ModuleType("py3langid.langid")
    module.LanguageIdentifier, module.MODEL_FILE = LanguageIdentifier, "model"
    monkeypatch.setitem(sys.modules, "py3langid", ModuleType("py3langid"))
    monkeypatch.setitem(sys.modules, "py3langid.langid", module)


def test_rare_languages_are_taken_for_the_likeliest_common_one(monkeypatch):
    fake_detector(monkeypatch)
    texts = ["en"] * 120 + ["de"] * 60 + ["xx xx de", "123 !", ""]
    assert detect_languages(texts) == ["en"] * 120 + ["de"] * 60 + ["de", "und", "und"]
    assert detect_languages(["xx xx de", "de"]) == ["xx", "de"]


def test_auto_reads_all_text_columns(monkeypatch):
    fake_detector(monkeypatch)
    frame = pd.DataFrame({"title": ["de", "en en"], "text": ["de en", None]})
    assert row_slices(frame, "auto", ["text", "title"]) == (["language"], [("de",), ("en",)])


def test_real_languages():
    pytest.importorskip("py3langid")
    texts = [text for sentences in SENTENCES.values() for text in sentences]
    assert detect_languages(texts) == [language for language, sentences in SENTENCES.items() for _ in sentences]


def test_without_the_detector(monkeypatch):
    monkeypatch.setitem(sys.modules, "py3langid.langid", None)
    with pytest.raises(MissingDependencyError, match=r'pip install "featherfit\[languages\]"'):
        detect_languages(["a"])
