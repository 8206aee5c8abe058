"""Outputs land in the table's order, and are scored in the label's own unit."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
import torch
from tiny_models import tiny_model

from featherfit.data.batch import collate
from featherfit.data.dataset import Dataset
from featherfit.data.processors.label import LabelProcessor
from featherfit.data.processors.text import TokenizedRows
from featherfit.errors import DataError
from featherfit.evaluation.decision import probabilities
from featherfit.evaluation.outputs import model_outputs, score_outputs
from featherfit.evaluation.reading import Reading
from featherfit.models.text import TextEncoder
from featherfit.training.device import Device

CPU = Device(torch.device("cpu"), "no")


def dataset(rows: int = 13) -> Dataset:
    random = np.random.default_rng(0)
    lengths = random.integers(2, 12, size=rows).astype(np.int64)
    ids = [random.integers(4, 50, size=length).astype(np.int32) for length in lengths]
    return Dataset(TokenizedRows(ids, None, lengths, 0), None, None, pd.RangeIndex(rows))


@pytest.mark.parametrize("embeddings", [False, True])
@pytest.mark.parametrize("tokens", [1, 20, 1000])
@pytest.mark.parametrize("model_type", ["bert", "mpnet"])
def test_each_row_gets_its_own(model_type, tokens, embeddings):
    """Packed and padded alike."""
    model, data = tiny_model(model_type), dataset()
    model.train()
    given = model_outputs(model, data, tokens=tokens, pad_id=0, device=CPU, embeddings=embeddings)
    assert not model.training and given.dtype == np.float32
    run = model.embed if embeddings else model
    with torch.no_grad():
        alone = torch.cat([run(collate(data.rows, [row], 0)) for row in range(len(data))]).numpy()
    assert given.shape == alone.shape == (13, 32 if embeddings else 3)
    np.testing.assert_allclose(given, alone, atol=1e-5)


def test_order_of_rows_does_not_change_a_bit():
    model, data = tiny_model("bert"), dataset()
    order = np.random.default_rng(1).permutation(13)
    rows = TokenizedRows([data.rows.ids[i] for i in order], None, data.rows.lengths[order], 0)
    shuffled = Dataset(rows, None, None, pd.RangeIndex(13))
    one = model_outputs(model, data, tokens=20, pad_id=0, device=CPU)
    other = model_outputs(model, shuffled, tokens=20, pad_id=0, device=CPU)
    assert other.tobytes() == one[order].tobytes()


def test_no_rows_and_progress():
    model = tiny_model("bert")
    empty = Dataset(TokenizedRows([], None, np.empty(0, dtype=np.int64), 0), None, None, pd.RangeIndex(0))
    assert model_outputs(model, empty, tokens=20, pad_id=0, device=CPU).shape == (0, 3)
    done: list[int] = []
    model_outputs(model, dataset(), tokens=20, pad_id=0, device=CPU, progress=done.append)
    assert sum(done) == 13 and len(done) > 3


class TestEqualRows:
    """A row is computed once, however often it is there."""

    order = np.array([0, 1, 0, 2, 1, 0, 3])

    @pytest.fixture
    def repeated(self) -> Dataset:
        data = dataset(4)
        rows = TokenizedRows([data.rows.ids[i] for i in self.order], None, data.rows.lengths[self.order], 0)
        return Dataset(rows, None, None, pd.RangeIndex(7))

    @pytest.fixture
    def forwards(self, monkeypatch) -> list[int]:
        """Rows of every forward."""
        seen: list[int] = []
        forward = TextEncoder.forward

        def spy(encoder, batch):
            seen.append(len(batch))
            return forward(encoder, batch)

        monkeypatch.setattr(TextEncoder, "forward", spy)
        return seen

    def test_are_computed_once(self, repeated, forwards):
        model, done = tiny_model("bert"), []
        given = model_outputs(model, repeated, tokens=1000, pad_id=0, device=CPU, progress=done.append)
        assert (forwards, done) == ([4], [7])
        forwards.clear()
        assert model_outputs(model, repeated, tokens=1, pad_id=0, device=CPU).shape == (7, 3)
        assert forwards == [1, 1, 1, 1]
        once = model_outputs(model, dataset(4), tokens=1000, pad_id=0, device=CPU)
        assert given.tobytes() == once[self.order].tobytes()

    def test_progress_counts_the_copies_of_what_was_computed(self, repeated):
        done: list[int] = []
        model_outputs(tiny_model("bert"), repeated, tokens=1, pad_id=0, device=CPU, progress=done.append)
        lengths = repeated.rows.lengths
        assert sorted(done) == [1, 1, 2, 3] and len(set(lengths[[0, 1, 3, 6]])) > 1


class TestOutOfMemory:
    @pytest.fixture
    def room(self, monkeypatch) -> Callable[[int], list[int]]:
        """Makes forwards of more tokens fail; gives the tokens of each forward."""

        def limit(most: int) -> list[int]:
            seen: list[int] = []
            forward = TextEncoder.forward

            def short_of_memory(encoder, batch):
                tokens = int(batch.attention_mask.sum() if encoder.family.packs else batch.input_ids.numel())
                seen.append(tokens)
                out = forward(encoder, batch)
                if tokens > most:
                    raise torch.OutOfMemoryError("2 GiB")
                return out

            monkeypatch.setattr(TextEncoder, "forward", short_of_memory)
            return seen

        return limit

    @pytest.mark.parametrize("embeddings", [False, True])
    @pytest.mark.parametrize("most", [40, 12])
    @pytest.mark.parametrize("model_type", ["bert", "mpnet"])
    def test_smaller_forwards_give_the_same(self, model_type, most, embeddings, room):
        model, data, done = tiny_model(model_type), dataset(31), []
        expected = model_outputs(model, data, tokens=100, pad_id=0, device=CPU, embeddings=embeddings)
        seen = room(most)
        with pytest.warns(UserWarning, match="Prediction: memory did not suffice .* env.per_gpu_batch_size") as caught:
            given = model_outputs(
                model, data, tokens=100, pad_id=0, device=CPU, embeddings=embeddings, progress=done.append
            )
        np.testing.assert_allclose(given, expected, rtol=1e-5, atol=1e-6)
        assert sum(done) == 31
        failed = [place for place, tokens in enumerate(seen) if tokens > most]
        assert len(caught) == len(failed) <= 4 and len(seen) > failed[-1] + 3  # the limit stays where it is

    def test_a_single_row_that_does_not_fit(self, room):
        data = dataset(13)
        data = Dataset(data.rows, None, None, pd.Index([f"r{row}" for row in range(13)]))
        longest = int(data.rows.lengths.max())
        room(longest - 1)
        named = f"row with index 'r\\d+' alone, of {longest} tokens.*model.hf_text.max_text_len"
        with pytest.warns(UserWarning, match="did not suffice"), pytest.raises(DataError, match=named):
            model_outputs(tiny_model("bert"), data, tokens=1000, pad_id=0, device=CPU)


def test_probabilities_are_softmax():
    logits = np.array([[1.0, 2.0, 0.5], [1000.0, 0.0, -1000.0]], dtype=np.float32)
    given = probabilities(logits)
    expected = np.exp([1.0, 2.0, 0.5]) / np.exp([1.0, 2.0, 0.5]).sum()
    np.testing.assert_allclose(given[0], expected, rtol=1e-6)
    assert given[1].tolist() == [1.0, 0.0, 0.0] and given.dtype == np.float32


def test_classification_scores():
    label = LabelProcessor.fit(pd.Series(["a", "b", "b"], name="y"), "binary")
    logits = np.array([[2.0, 0.0], [0.0, 1.0], [1.0, 0.0]], dtype=np.float32)
    scores = score_outputs(["accuracy", "log_loss", "roc_auc"], logits, np.array([0, 1, 1]), Reading(label))
    losses = [math.log(1 + math.exp(-2)), math.log(1 + math.exp(-1)), math.log(1 + math.exp(1))]
    assert scores == pytest.approx({"accuracy": 2 / 3, "log_loss": sum(losses) / 3, "roc_auc": 1.0}, rel=1e-6)


def test_regression_scores_are_in_the_labels_unit():
    label = LabelProcessor.fit(pd.Series([100.0, 200.0, 300.0], name="y"), "regression")
    truth = label.encode(pd.Series([100.0, 300.0], name="y"))
    logits = np.array([[0.0], [0.0]], dtype=np.float32)  # the mean, 200
    scores = score_outputs(["rmse", "mae"], logits, truth, Reading(label))
    assert scores == pytest.approx({"rmse": 100.0, "mae": 100.0}, rel=1e-5)
