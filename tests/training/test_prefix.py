"""What is kept of the frozen layers, against the layers themselves; when it is worth it, and when it cannot be."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from tiny_models import tiny_model

from featherfit.adapters.apply import apply_adapters
from featherfit.config.dotted import build_config
from featherfit.data.batch import collate
from featherfit.data.dataset import Dataset
from featherfit.data.processors.text import TokenizedRows
from featherfit.errors import DataError
from featherfit.models.build import MultiModalModel
from featherfit.training.device import Device
from featherfit.training.prefix import share_saved, why_not, with_states
from featherfit.training.ranks import Ranks

CPU = Device(torch.device("cpu"), "no")


def dataset(rows: int = 12) -> Dataset:
    """The last row is the first one again."""
    random = np.random.default_rng(0)
    lengths = random.integers(3, 12, size=rows)
    lengths[-1] = lengths[0]
    ids = [random.integers(4, 50, size=length).astype(np.int32) for length in lengths]
    ids[-1] = ids[0]
    labels = np.arange(rows) % 3
    return Dataset(TokenizedRows(ids, None, lengths.astype(np.int64), 0), labels, None, pd.RangeIndex(rows))


DATA = dataset()


def model_with(model_type: str = "bert", **optim: Any) -> MultiModalModel:
    model = tiny_model(model_type)
    model.encoder.disable_dropout()
    config = build_config({"optim.peft": "lora", "optim.top_layers": 1, **optim})
    apply_adapters(model, config.optim, seed=0)
    return model


def states_of(model: MultiModalModel, tmp_path, tokens: int = 40, **more: Any) -> Dataset:
    given = {"in_memory": 1 << 20, **more}
    return with_states(model, DATA, tokens=tokens, pad_id=0, device=CPU, folder=tmp_path, **given)


@pytest.mark.parametrize("in_memory", [0, 1 << 20])
@pytest.mark.parametrize("model_type", ["xlm-roberta", "deberta-v2", "t5"])
def test_rows_come_out_as_without(model_type, in_memory, tmp_path):
    model = model_with(model_type)
    kept = states_of(model, tmp_path, in_memory=in_memory)
    for rows in (np.array([11, 3, 5]), np.arange(12)):
        plain, given = (collate(one.rows, rows, 0, one.labels) for one in (DATA, kept))
        assert given.states.shape == (DATA.rows.lengths[rows].sum(), 32) and not given.states.is_inference()
        with torch.no_grad():
            torch.testing.assert_close(model(given), model(plain), rtol=0, atol=1e-6)


def test_every_row_is_computed_once(tmp_path):
    """The row that is there twice, too."""
    model, seen = model_with("deberta-v2"), []
    model.encoder.layers()["encoder.layer.0"].register_forward_hook(
        lambda module, args, output: seen.append(len(args[0]))
    )
    kept = states_of(model, tmp_path)
    assert sum(seen) == 11 and len(seen) > 1
    seen.clear()
    model(collate(kept.rows, np.arange(12), 0))
    assert len(seen) == 0 or seen == [12]  # passed through, and not computed: test_prefix.py of the models
    assert len(kept.rows.states.flat) == DATA.rows.lengths[:-1].sum()


def test_what_is_kept_does_not_depend_on_the_order(tmp_path):
    model = model_with()
    order = np.random.default_rng(1).permutation(12)
    rows = TokenizedRows([DATA.rows.ids[row] for row in order], None, DATA.rows.lengths[order], 0)
    shuffled = replace(DATA, rows=rows)
    one = states_of(model, tmp_path).rows.states
    other = with_states(model, shuffled, tokens=40, pad_id=0, device=CPU, in_memory=0, folder=tmp_path).rows.states
    assert torch.equal(other.take(np.argsort(order)), one.take(np.arange(12)))


def test_memory_that_does_not_suffice(tmp_path, monkeypatch):
    model = model_with()
    expected = states_of(model, tmp_path).rows.states.take(np.arange(12))
    below = type(model.encoder).below

    def tight(encoder: Any, batch: Any, layer: int) -> torch.Tensor:
        if batch.attention_mask.sum() > limit:
            raise MemoryError
        return below(encoder, batch, layer)

    monkeypatch.setattr(type(model.encoder), "below", tight)
    limit = 15
    with pytest.warns(UserWarning, match=r"The frozen layers: memory did not suffice for a forward of \d+ tokens"):
        found = states_of(model, tmp_path).rows.states.take(np.arange(12))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    limit = 5
    with pytest.raises(DataError, match=r"Memory does not suffice for the row with index \d+ alone"):
        with pytest.warns(UserWarning):
            states_of(model, tmp_path)


def test_why_it_cannot_be():
    def reason(model: MultiModalModel, settings: dict[str, Any] | None = None, device: Device = CPU) -> str | None:
        return why_not(model, build_config(settings or {}), device)

    assert reason(model_with()) is None
    assert reason(model_with(**{"optim.peft": "lora_norm"})) is None
    told = reason(model_with(**{"optim.top_layers": None}))
    assert told == (
        "'encoder.layer.0.attention.self.query.lora_a' trains, and no layer lies beneath it. Set optim.top_layers."
    )
    told = reason(model_with(**{"optim.extra_trainable_params": [".*word_embeddings"]}))
    assert told.startswith("'embeddings.word_embeddings.weight' trains")
    assert "from epoch to epoch" in reason(model_with(), {"model.hf_text.text_trivial_aug_maxscale": 0.1})
    assert "each of the 2 processes" in reason(model_with(), device=replace(CPU, ranks=Ranks(0, 2)))
    assert reason(model_with(**{"optim.lora.dropout": 0.5})) is None
    drops = tiny_model("t5")
    apply_adapters(drops, build_config({"optim.peft": "lora", "optim.top_layers": 1}).optim, seed=0)
    assert "frozen layers drop numbers at random. Set model.hf_text.dropout=off." == reason(drops)
    unknown = model_with()
    unknown.encoder.listed = False
    assert "this architecture" in reason(unknown)


@pytest.mark.parametrize(("visits", "share"), [(1, 0), (0.5, 0), (2, 1 / 6), (5, 4 / 15), (1e9, 1 / 3)])
def test_the_share_of_the_time_that_is_saved(visits, share):
    """Of two layers one is frozen: an epoch takes 1 + 2, and without it 2."""
    assert share_saved(model_with(), visits) == pytest.approx(share)
