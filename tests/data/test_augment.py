"""What training sees from epoch to epoch: edited texts and changed images, drawn by seed, epoch and row."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from featherfit.config.dotted import build_config
from featherfit.config.schema import HfTextConfig
from featherfit.data.augment import augmented
from featherfit.data.dataset import Dataset
from featherfit.data.processors.text import TextProcessor

TEXT = "the kettle boils in half the time the old one took and it does not whistle at all"
ROWS = 12


@pytest.fixture
def frame() -> pd.DataFrame:
    return pd.DataFrame({"title": ["short"] * ROWS, "body": [f"{TEXT} {row}" for row in range(ROWS)]})


@pytest.fixture
def made(frame, bert_checkpoint):
    text = TextProcessor.from_checkpoint(bert_checkpoint, ["body", "title"], HfTextConfig())
    dataset = Dataset(text(frame), None, None, frame.index)

    def make(most: float, seed: int = 0) -> Dataset:
        config = build_config({"model.hf_text.text_trivial_aug_maxscale": most})
        return augmented(dataset, frame, text, ["title", "body"], config, seed)

    return make


def ids(dataset: Dataset) -> list[bytes]:
    return [row.tobytes() for row in dataset.rows.ids]


def test_it_is_off_unless_asked_for(made):
    plain = made(0.0)
    assert plain.augment is None and plain.of_epoch(3) is plain


def test_texts_change_from_epoch_to_epoch_and_not_otherwise(made, frame):
    before = frame.copy()
    plain, edited = ids(made(0.0)), made(0.5)
    first, second = ids(edited.of_epoch(0)), ids(edited.of_epoch(1))
    assert ids(edited) == plain, "the rows themselves stay as they are"
    assert first != plain and second != first and ids(edited.of_epoch(0)) == first
    assert ids(made(0.5, seed=1).of_epoch(0)) != first
    unchanged = np.mean([a == b for a, b in zip(first, plain, strict=True)])
    assert 0 < unchanged < 0.8
    pd.testing.assert_frame_equal(frame, before)


def test_edited_texts_are_not_kept_on_disk(made, monkeypatch):
    edited = made(0.5)
    monkeypatch.setattr("featherfit.data.processors.text.encode_once", lambda *_: pytest.fail("it would be kept"))
    assert len(edited.of_epoch(0)) == ROWS


def test_lengths_are_those_of_the_epoch(made):
    edited = made(0.5).of_epoch(0)
    assert edited.lengths.tolist() == [len(row) for row in edited.rows.ids]
    assert edited.lengths.tolist() != made(0.0).lengths.tolist()
