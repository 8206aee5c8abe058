import itertools

import numpy as np
import pytest
import torch

from featherfit.data.batch import collate, cut, cut_evenly, inference_plan, training_batches
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


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize(
    ("rows", "batch_size", "tokens"), [(25, 10, 100), (8, 8, 400), (3, 128, 60), (7, 1, 1), (40, 8, 30)]
)
def test_steps_have_every_row_once(rows, batch_size, tokens, padded):
    lengths = np.random.default_rng(0).integers(1, 50, rows)
    steps = training_batches(lengths, batch_size, tokens, padded=padded, seed=0, epoch=0)
    sizes = [sum(map(len, step)) for step in steps]
    assert sizes[:-1] == [batch_size] * (len(steps) - 1)
    assert sorted(np.concatenate([part for step in steps for part in step])) == list(range(rows))
    for step in steps:
        in_order = lengths[np.concatenate(step)]
        assert (np.diff(in_order) <= 0).all()
        assert all(len(part) == 1 or size_of(lengths[part], padded) <= tokens for part in step)


def size_of(lengths: np.ndarray, padded: bool) -> int:
    """Tokens a forward of these rows computes."""
    return int(lengths.max() * len(lengths) if padded else lengths.sum())


@pytest.mark.parametrize("padded", [False, True])
def test_a_cut_keeps_the_order_and_fills_every_batch(padded):
    """Every batch but the last is full: with the next row it would be too large."""
    for seed in range(50):
        random = np.random.default_rng(seed)
        lengths = random.integers(1, 20, random.integers(1, 30))
        order, tokens = random.permutation(len(lengths)), int(random.integers(1, 60))
        batches = cut(order, lengths, tokens, padded=padded)
        assert np.concatenate(batches).tolist() == order.tolist() and all(map(len, batches))
        assert all(len(batch) == 1 or size_of(lengths[batch], padded) <= tokens for batch in batches)
        for batch, following in itertools.pairwise(batches):
            assert size_of(lengths[[*batch, following[0]]], padded) > tokens


def test_a_cut_by_hand():
    lengths, order = np.array([5, 3, 3, 2, 9, 1]), np.array([0, 1, 2, 3, 4, 5])
    unpadded = [batch.tolist() for batch in cut(order, lengths, 8, padded=False)]
    assert unpadded == [[0, 1], [2, 3], [4], [5]]
    assert [batch.tolist() for batch in cut(order, lengths, 10, padded=True)] == [[0, 1], [2, 3], [4], [5]]
    assert [batch.tolist() for batch in cut(order, lengths, 9, padded=True)] == [[0], [1, 2, 3], [4], [5]]
    assert cut(order[:0], lengths, 8, padded=False) == []


def test_an_even_cut_by_hand():
    lengths, order = np.array([9, 8, 7, 6, 5, 4]), np.arange(6)
    assert [batch.tolist() for batch in cut(order, lengths, 30, padded=False)] == [[0, 1, 2, 3], [4, 5]]
    assert [batch.tolist() for batch in cut_evenly(order, lengths, 30, padded=False)] == [[0, 1], [2, 3, 4, 5]]
    assert [batch.tolist() for batch in cut_evenly(order, lengths, 39, padded=False)] == [[0, 1, 2, 3, 4, 5]]
    assert [batch.tolist() for batch in cut_evenly(order, lengths, 3, padded=False)] == [[row] for row in range(6)]


@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize("tokens", [20, 64, 100, 1000])
def test_an_even_cut_has_as_many_batches_and_no_smaller_limit_would_do(tokens, padded):
    lengths = np.random.default_rng(tokens).integers(1, 40, 60)
    order = np.argsort(-lengths, kind="stable")
    even, greedy = (function(order, lengths, tokens, padded=padded) for function in (cut_evenly, cut))
    assert len(even) == len(greedy) and np.concatenate(even).tolist() == order.tolist()
    sizes = [lengths[b].max() * len(b) if padded else lengths[b].sum() for b in even]
    assert all(size <= tokens or len(b) == 1 for size, b in zip(sizes, even, strict=True))
    limit = max(size for size, b in zip(sizes, even, strict=True))
    if limit > lengths.max():
        assert len(cut(order, lengths, int(limit) - 1, padded=padded)) > len(greedy)


def test_order_depends_on_seed_and_epoch_only():
    def composition(lengths, **options):
        return [sorted(np.concatenate(step)) for step in training_batches(lengths, 8, 64, padded=False, **options)]

    lengths = np.arange(1, 41)
    first = composition(lengths, seed=1, epoch=0)
    assert composition(lengths, seed=1, epoch=0) == first
    assert composition(lengths[::-1].copy(), seed=1, epoch=0) == first  # lengths do not choose a step's rows
    assert composition(lengths, seed=1, epoch=1) != first
    assert composition(lengths, seed=2, epoch=0) != first


@pytest.mark.parametrize("padded", [False, True])
def test_prediction_batches_do_not_depend_on_row_order(padded):
    rows = [[3, 1], [2], [1, 300], [1, 2, 3], [9], [1, 3]]
    segments = [[0] * len(row) for row in rows]
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(len(rows))
        shuffled = tokenized(*[rows[place] for place in order], segments=[segments[place] for place in order])
        plan = inference_plan(shuffled, 4, padded=padded)
        assert sorted(np.concatenate(plan.batches)) == list(range(len(rows)))
        assert plan.same_as.tolist() == list(range(len(rows)))
        contents = [[shuffled.ids[place].tolist() for place in batch] for batch in plan.batches]
        if seed == 0:
            first = contents
        assert contents == first
        lengths = np.concatenate([shuffled.lengths[batch] for batch in plan.batches])
        assert (np.diff(lengths) >= 0).all()
        assert all(len(batch) == 1 or size_of(shuffled.lengths[batch], padded) <= 4 for batch in plan.batches)
    empty = inference_plan(tokenized(), 4, padded=padded)
    assert (empty.batches, empty.same_as.tolist()) == ([], [])


def test_equal_rows_are_planned_once():
    """The first of equal rows is computed; a row whose segments differ is another one."""
    rows = tokenized([7, 8], [7], [7, 8], [7, 8], [7], segments=[[0, 0], [0], [0, 0], [0, 1], [0]])
    plan = inference_plan(rows, 100, padded=False)
    assert plan.same_as.tolist() == [0, 1, 0, 3, 1]
    assert [batch.tolist() for batch in plan.batches] == [[1, 0, 3]]


def test_a_prefix_is_another_row():
    plan = inference_plan(tokenized([1, 2], [1], [1, 2, 0]), 100, padded=False)
    assert plan.same_as.tolist() == [0, 1, 2]
