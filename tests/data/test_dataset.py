import numpy as np
import pandas as pd
import pytest

from featherfit.config.schema import HfTextConfig
from featherfit.data.batch import collate, training_batches
from featherfit.data.dataset import make_dataset
from featherfit.data.processors.label import LabelProcessor
from featherfit.data.processors.text import TextProcessor
from featherfit.data.schema import infer_schema
from featherfit.errors import ConfigError, DataError


@pytest.fixture
def parts(bert_checkpoint, reviews):
    schema = infer_schema(reviews, "label")
    text = TextProcessor.from_checkpoint(bert_checkpoint, schema.text_columns, HfTextConfig())
    return schema, text, LabelProcessor.fit(reviews["label"], schema.problem_type)


def test_from_table_to_batch(parts, reviews):
    before = reviews.copy(deep=True)
    schema, text, label = parts
    data = make_dataset(reviews, schema, text, label)
    assert len(data) == 4
    assert data.labels.tolist() == [1, 0, 0, 1]
    assert data.weights is None
    assert data.index.tolist() == [10, 20, 30, 40]
    ((micro,),) = training_batches(data.rows.lengths, 4, 1000, padded=False, seed=0, epoch=0)
    batch = collate(data.rows, micro, text.pad_id, data.labels)
    assert batch.labels.tolist() == [reviews["label"].iloc[row] for row in batch.rows.tolist()]
    assert batch.attention_mask.sum(1).tolist() == data.rows.lengths[micro].tolist()
    assert (batch.input_ids[batch.attention_mask == 0] == text.pad_id).all()
    pd.testing.assert_frame_equal(reviews, before)


def test_prediction_needs_no_label(parts, reviews):
    schema, text, label = parts
    bare = reviews.drop(columns="label")
    assert make_dataset(bare, schema, text, None).labels is None
    with pytest.raises(DataError, match="no label column 'label'"):
        make_dataset(bare, schema, text, label)


def test_class_weights_by_hand(parts, reviews):
    schema, text, label = parts
    frame = reviews.assign(label=[1, 0, 0, 0])

    def weights(wanted):
        return make_dataset(frame, schema, text, label, wanted).weights.tolist()

    np.testing.assert_allclose(weights("balanced"), [4 / (2 * 1), *[4 / (2 * 3)] * 3], rtol=1e-6)
    assert weights({1: 3}) == [3.0, 1.0, 1.0, 1.0]
    assert weights({"0": 0.5, "1": 2.0}) == [2.0, 0.5, 0.5, 0.5]
    assert make_dataset(frame, schema, text, label).weights is None


def test_class_weights_refused(parts, reviews):
    schema, text, label = parts
    with pytest.raises(ConfigError, match="'balance' is unknown"):
        make_dataset(reviews, schema, text, label, "balance")
    with pytest.raises(ConfigError) as caught:
        make_dataset(reviews, schema, text, label, {"2": 1.0, "0": -1.0, "1": float("nan")})
    assert len(caught.value.problems) == 3
    target = LabelProcessor.fit(reviews["stars"], "regression")
    with pytest.raises(ConfigError, match="this problem is regression"):
        make_dataset(reviews, schema, text, target, "balanced")


def test_weights_of_rows_multiply_with_those_of_classes(parts, reviews):
    schema, text, label = parts
    frame = reviews.assign(label=[1, 0, 0, 0], weight=[1, 2, 0, 4])
    assert make_dataset(frame, schema, text, label, weight="weight").weights.tolist() == [0.25, 0.5, 0.0, 1.0]
    both = make_dataset(frame, schema, text, label, {1: 3}, weight="weight").weights
    assert both.dtype == np.float32 and both.tolist() == [0.75, 0.5, 0.0, 1.0]


def test_other_weights_have_another_fingerprint(parts, reviews):
    schema, text, label = parts
    prints = {
        make_dataset(reviews.assign(weight=weights), schema, text, label, weight="weight").fingerprint()
        for weights in ([1, 2, 3, 4], [1, 2, 3, 5], [1, 1, 1, 1])
    }
    assert len(prints) == 3
