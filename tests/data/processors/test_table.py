import json

import numpy as np
import pandas as pd
import pytest

from featherfit.config.dotted import build_config
from featherfit.data.modalities import columns_by_encoder
from featherfit.data.processors.fitting import fit_parts, parts_from_json
from featherfit.data.schema import infer_schema
from featherfit.errors import DataError


@pytest.fixture
def frame():
    draw = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "colour": draw.choice(["red", "green", None], 40),
            "ok": draw.random(40) < 0.5,
            "price": draw.exponential(size=40),
            "when": pd.date_range("2024-01-01", periods=40, freq="31h"),
            "y": [0, 1] * 20,
        }
    )


def processor_of(frame, **flat):
    config = build_config({name.replace("__", "."): value for name, value in flat.items()})
    schema = infer_schema(frame, "y")
    return fit_parts(frame, columns_by_encoder(schema, config), schema, config, {})["ft_transformer"]


def test_rows(frame):
    before = frame.copy(deep=True)
    processor = processor_of(frame)
    rows = processor(frame[frame.columns[::-1]].drop(columns="y"))
    assert processor.columns == ["colour", "ok", "price", "when"]
    assert rows.categories.shape == (40, 2) and rows.numbers.shape == (40, 1 + 1 + 3 * 2)
    assert (rows.categories < processor.spec.codes).all() and len(processor.spec.edges) == 8
    assert rows.lengths.tolist() == [2] * 40
    tensors = rows.tensors(np.array([3, 1]))
    assert tensors["categories"].tolist() == rows.categories[[3, 1]].tolist()
    assert np.array_equal(tensors["numbers"].numpy(), rows.numbers[[3, 1]])
    pd.testing.assert_frame_equal(frame, before)


def test_content_is_that_of_the_row_alone(frame):
    processor = processor_of(frame)
    rows, turned = processor(frame), processor(frame[::-1])
    assert [rows.content(place) for place in range(40)] == [turned.content(39 - place) for place in range(40)]
    assert len({rows.content(place) for place in range(40)}) == 40


def test_json_round_trip(frame):
    processor = processor_of(frame)
    again = parts_from_json(json.loads(json.dumps({"ft_transformer": processor.to_json()})), build_config({}))[
        "ft_transformer"
    ]
    assert again == processor
    assert np.array_equal(again(frame).numbers, processor(frame).numbers)


def test_odd_cells_are_named_or_listed(frame):
    processor = processor_of(frame)
    odd = frame.astype(object).set_axis(range(100, 140))
    odd.loc[103, "price"] = "dear"
    odd.loc[101, "when"] = "some day"
    with pytest.raises(DataError, match=r"Row 101, column 'when': 'some day' is no date \(and 1 more cells\)"):
        processor(odd)
    assert processor.unreadable(odd) == [(3, "price", "'dear' is no number"), (1, "when", "'some day' is no date")]


def test_missing_columns(frame):
    processor = processor_of(frame)
    with pytest.raises(
        DataError, match=r"lacks the columns 'price'\. Needed: colour, ok, price, when\. Given: colour, ok"
    ):
        processor(frame.drop(columns="price"))


def test_number_of_pieces(frame):
    assert max(map(len, processor_of(frame, model__ft_transformer__numerical_bins=4).spec.edges)) == 5
