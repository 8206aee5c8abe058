"""Edits of texts, in scripts with spaces and without."""

from __future__ import annotations

import numpy as np
import pytest

from featherfit.data.text_edits import EDITS, edited, left_alone, left_out, swapped

ENGLISH = "the kettle boils in half the time the old one took and it does not whistle"
JAPANESE = "このやかんは前のものより早く沸き、音も静かで、洗いやすく、値段も手頃でとても気に入っています。"
THAI = "กาต้มน้ำนี้เดือดเร็วกว่าอันเก่ามาก และไม่ส่งเสียงดังเลย ล้างง่ายด้วย"


def drawn(text: str, times: int = 60, most: float = 0.4, least: int = 5) -> list[str]:
    return [edited(text, most, least, np.random.default_rng(seed)) for seed in range(times)]


@pytest.mark.parametrize("text", [ENGLISH, JAPANESE, THAI])
def test_every_script_is_changed_reproducibly(text):
    out = drawn(text)
    assert out == drawn(text)
    assert 0.15 < np.mean([changed == text for changed in out]) < 0.65, (
        "a third is left alone, and weak edits do nothing"
    )
    for changed in out:
        assert set(changed) <= set(text) and len(changed) <= len(text) + 1
    assert any(len(changed) < len(text) for changed in out)
    assert any(changed != text and sorted(changed) == sorted(text) for changed in out), "some are only swapped"


def test_words_stay_whole_where_there_are_spaces():
    assert all(set(changed.split()) <= set(ENGLISH.split()) for changed in drawn(ENGLISH))


def test_short_texts_are_left_alone():
    assert set(drawn("good kettle", least=3)) == {"good kettle"}
    assert set(drawn("", least=1)) == {""}


def test_how_much_is_left_out_and_moved():
    units = [str(number) for number in range(1000)]
    random = np.random.default_rng(0)
    assert 650 < len(left_out(units, 0.3, random)) < 750
    assert left_out(["a"], 1.0, random) == ["a"]
    moved = swapped(units, 0.3, random)
    assert sorted(moved) == sorted(units)
    assert 200 < sum(a != b for a, b in zip(units, moved, strict=True)) <= 300
    assert left_alone(units, 1.0, random) is units and len(EDITS) == 3
