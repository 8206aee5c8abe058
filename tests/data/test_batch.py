import numpy as np
import pytest
import torch

from featherfit.data.batch import collate, inference_batches, training_batches
from featherfit.data.processors.text import TokenizedRows


def tokenized(*rows, segments=None):
    ids = [np.array(row, dtype=np.int32) for row in rows]
    segments = None if segments is None else [np.array(row, dtype=np.int32) for row in segments]
    return TokenizedRows(ids, segments, np.array([len(row) for row in rows], dtype=np.int64), 0)


def test_collate_by_hand():
    rows = tokenized([1, 2, 3], [4], [5, 6], segments=[[0, 0, 1], [0], [0, 1]])
    labels, weights = np.array([7, 8, 9]), np.array([0.5, 1.0, 2.0])
    batch = collate(rows, [2, 1], pad_id=99, labels=labels, weights=weights)
    assert batch.input_ids.tolist() == [[5, 6], [4, 99]]
    assert batch.attention_mask.tolist() == [[1, 1], [1, 0]]
    assert batch.token_type_ids.tolist() == [[0, 1], [0, 0]]
    assert batch.labels.tolist() == [9, 8]
    assert batch.weights.tolist() == [2.0, 1.0]
    assert batch.rows.tolist() == [2, 1]
    assert len(batch) == 2
    dtypes = [batch.input_ids.dtype, batch.attention_mask.dtype, batch.token_type_ids.dtype, batch.labels.dtype]
    assert dtypes == [torch.int64] * 4
    assert batch.weights.dtype == torch.float32


def test_collate_without_options():
    batch = collate(tokenized([1], [2, 3]), np.array([1]), pad_id=0)
    assert batch.input_ids.tolist() == [[2, 3]]
    assert (batch.token_type_ids, batch.labels, batch.weights) == (None, None, None)
    labels = np.array([0.5, -1.5], dtype=np.float32)
    assert collate(tokenized([1], [2]), [1], 0, labels).labels.dtype == torch.float32


@pytest.mark.parametrize(("rows", "batch_size", "micro"), [(25, 10, 4), (8, 8, 8), (3, 128, 8), (7, 1, 1)])
def test_steps_have_every_row_once(rows, batch_size, micro):
    lengths = np.random.default_rng(0).integers(1, 50, rows)
    steps = training_batches(lengths, batch_size, micro, seed=0, epoch=0)
    sizes = [sum(map(len, step)) for step in steps]
    assert sizes[:-1] == [batch_size] * (len(steps) - 1)
    assert sorted(np.concatenate([part for step in steps for part in step])) == list(range(rows))
    for step in steps:
        assert all(len(part) == micro for part in step[:-1])
        assert 1 <= len(step[-1]) <= micro
        in_order = lengths[np.concatenate(step)]
        assert (np.diff(in_order) <= 0).all()


def test_order_depends_on_seed_and_epoch_only():
    def composition(lengths, **options):
        return [sorted(np.concatenate(step)) for step in training_batches(lengths, 8, 4, **options)]

    lengths = np.arange(1, 41)
    first = composition(lengths, seed=1, epoch=0)
    assert composition(lengths, seed=1, epoch=0) == first
    assert composition(lengths[::-1].copy(), seed=1, epoch=0) == first  # lengths do not choose a step's rows
    assert composition(lengths, seed=1, epoch=1) != first
    assert composition(lengths, seed=2, epoch=0) != first


def test_prediction_batches_do_not_depend_on_row_order():
    rows = [[3, 1], [2], [1, 300], [1, 2, 3], [9], [2], [1, 3]]
    segments = [[0] * len(row) for row in rows]
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(len(rows))
        shuffled = tokenized(*[rows[place] for place in order], segments=[segments[place] for place in order])
        batches = inference_batches(shuffled, 3)
        assert sorted(np.concatenate(batches)) == list(range(len(rows)))
        contents = [[shuffled.ids[place].tolist() for place in batch] for batch in batches]
        if seed == 0:
            first = contents
        assert contents == first
        lengths = np.concatenate([shuffled.lengths[batch] for batch in batches])
        assert (np.diff(lengths) >= 0).all()
    assert inference_batches(tokenized(), 4) == []
