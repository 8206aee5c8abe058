"""The demo's reviews are what their card says, and the demo runs from end to end on real weights."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from featherfit.demo import DATA, LANGUAGES, TRAIN_ROWS, demo_table
from featherfit.demo.run import METRICS, NAMES, plot_demo
from featherfit.errors import ConfigError

RESULT = {"languages": [{"language": name, "rows": 70, "accuracy": 0.5, "roc_auc": 0.75} for name in NAMES.values()]}


class TestReviews:
    def test_parts(self):
        assert len(demo_table("en", "train")) == TRAIN_ROWS
        assert demo_table("en").index[0] == 0
        assert set(LANGUAGES) == set(NAMES) == {path.stem for path in DATA.glob("*.csv")}

    @pytest.mark.parametrize("language", LANGUAGES)
    def test_tables(self, language):
        parts = [demo_table(language)] + ([demo_table("en", "train")] if language == "en" else [])
        for table in parts:
            assert list(table.columns) == ["text", "label", "stars", "category", "price"]
            assert not table.isna().any(axis=None)
            assert table["label"].value_counts().to_dict() == {0: len(table) // 2, 1: len(table) // 2}
            assert table["stars"].between(1, 5).all() and (table["price"] > 0).all()
            # A good review has at least three stars and a bad one at most three.
            assert (table["stars"][table["label"] == 1] >= 3).all() and (table["stars"][table["label"] == 0] <= 3).all()

    def test_no_text_twice(self):
        texts = [
            re.sub(r"\W", "", text).casefold()
            for language in LANGUAGES
            for table in ([demo_table(language)] + ([demo_table("en", "train")] if language == "en" else []))
            for text in table["text"]
        ]
        assert len(texts) == len(set(texts)) == 470 + 6 * 70

    @pytest.mark.parametrize(
        ("words", "said"), [(("xx",), "no demo reviews in 'xx'"), (("ja", "train"), "no part 'train' in 'ja'")]
    )
    def test_other_tables(self, words, said):
        with pytest.raises(ConfigError, match=said):
            demo_table(*words)


def test_plot(tmp_path):
    plot_demo(RESULT, tmp_path / "scores.png")
    assert (tmp_path / "scores.png").read_bytes()[:4] == b"\x89PNG"
    plot_demo(RESULT, tmp_path / "scores.svg")
    text = (tmp_path / "scores.svg").read_text("utf-8")
    assert text.count("<!-- 0.75 -->") == text.count("<!-- 0.50 -->") == len(NAMES)


@pytest.mark.slow
def test_the_demo(tmp_path):
    command = [sys.executable, "-m", "featherfit", "demo", "--json", "--path", "artifact", "--plot", "scores.png"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    rows = {row["language"]: row for row in result["languages"]}
    assert list(rows) == list(NAMES.values())
    assert all(row["rows"] == 70 and {*METRICS} < {*row} for row in rows.values())
    # Wide of what is measured (0.9 and 0.8): 70 rows say no more than that it learned, and that it transfers.
    assert rows["English"]["roc_auc"] > 0.75
    unseen = [row["roc_auc"] for name, row in rows.items() if name != "English"]
    assert sum(unseen) / len(unseen) > 0.65
    assert {sample["language"] for sample in result["samples"]} == set(rows)
    assert Path(tmp_path / "artifact" / "trainable.safetensors").is_file() and (tmp_path / "scores.png").is_file()
    assert result["trainable_parameters"] < 0.001 * result["total_parameters"]
    assert sum(f.stat().st_size for f in (tmp_path / "artifact").rglob("*")) < 1_000_000
