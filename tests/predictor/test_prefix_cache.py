"""`optim.prefix_cache`: the same fit with less to compute, told of, refused where it cannot be, and safe to interrupt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from tiny_checkpoints import quick_fit, reviews, write_checkpoint

from featherfit import MultiModalPredictor, starting
from featherfit.errors import ConfigError, StorageError
from featherfit.models.text import TextEncoder
from featherfit.report import Reporter
from featherfit.training import loop, prefix

TOP = {"optim.peft": "lora", "optim.top_layers": 1}
NEW = reviews(20, seed=5)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(Reporter, "info", lambda reporter, text: lines.append(text))
    monkeypatch.setattr(Reporter, "warn", lambda reporter, text: lines.append(f"warning: {text}"))
    return lines


@pytest.fixture
def tokens(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Rows that pass through the frozen layers, and those that begin above them."""
    seen: list[tuple[str, int]] = []
    below, states = TextEncoder.below, TextEncoder.forward

    def counted(encoder: Any, batch: Any, layer: int) -> torch.Tensor:
        seen.append(("below", len(batch)))
        return below(encoder, batch, layer)

    def forward(encoder: Any, batch: Any) -> torch.Tensor:
        seen.append(("whole" if batch.states is None else "above", len(batch)))
        return states(encoder, batch)

    monkeypatch.setattr(TextEncoder, "below", counted)
    monkeypatch.setattr(TextEncoder, "forward", forward)
    return seen


def rows(seen: list[tuple[str, int]], kind: str) -> int:
    return sum(count for own, count in seen if own == kind)


def kept(lines: list[str]) -> list[str]:
    return [line for line in lines if line.startswith("What the lowest")]


def trained(predictor: MultiModalPredictor) -> np.ndarray:
    assert predictor._fitted is not None
    return np.concatenate([p.detach().numpy().ravel() for p in predictor._fitted.model.parameters() if p.requires_grad])


@pytest.mark.parametrize("model_type", ["bert", "deberta-v2", "t5", "modernbert"])
@pytest.mark.parametrize("more", [{}, {"optim.lora.dropout": 0.3, "optim.ema_decay": 0.5, "optim.head_init": "probe"}])
@pytest.mark.filterwarnings("ignore:optim.peft=")
def test_the_same_model_comes_out(tmp_path, model_type, more):
    own = write_checkpoint(tmp_path / "own", model_type)
    fits = [
        quick_fit(own, tmp_path / word, hyperparameters={**TOP, **more, "optim.prefix_cache": word})
        for word in ("on", "off")
    ]
    on, off = fits
    np.testing.assert_allclose(trained(on), trained(off), rtol=1e-4, atol=2e-5)
    np.testing.assert_allclose(on.predict_proba(NEW), off.predict_proba(NEW), rtol=1e-4, atol=1e-5)
    one, other = (predictor.fit_summary() for predictor in fits)
    assert one["val_roc_auc"] == pytest.approx(other["val_roc_auc"], abs=1e-6) and one["steps"] == other["steps"]


def test_every_row_once(checkpoint, told, tokens):
    predictor = quick_fit(checkpoint, Path("a"), hyperparameters={**TOP, "optim.max_epochs": 3})
    distinct = len(reviews()["text"].unique())
    assert distinct - 2 <= rows(tokens, "below") <= 40 and rows(tokens, "whole") == 0
    assert rows(tokens, "above") >= 3 * 32 + 6 * 5
    first, second = kept(told)
    assert first.startswith(
        "What the lowest 1 of 2 layers make of 32 rows was computed once, since nothing beneath layer 2 "
    )
    assert "in memory); optim.prefix_cache=off computes it in every epoch." in first and "of 8 rows" in second
    tokens.clear()
    predictor.predict(NEW)
    assert {kind for kind, _ in tokens} == {"whole"}


@pytest.mark.parametrize(
    ("more", "used"),
    [
        ({"optim.max_epochs": 2}, True),
        ({"optim.max_epochs": 1}, False),
        ({"optim.max_epochs": 1, "optim.prefix_cache": "on"}, True),
        ({"optim.max_epochs": 1, "optim.head_init": "probe"}, True),
        ({"optim.max_epochs": 5, "optim.max_steps": 4}, False),
        ({"optim.few_shot": "on"}, True),
        ({"optim.prefix_cache": "off"}, False),
        ({"optim.top_layers": None}, False),
        ({"optim.peft": None, "optim.top_layers": None}, False),
        ({"model.hf_text.dropout": "on"}, False),
        ({"model.hf_text.text_trivial_aug_maxscale": 0.2}, False),
    ],
)
def test_auto(checkpoint, told, tokens, more, used):
    quick_fit(checkpoint, Path("a"), hyperparameters={**TOP, "optim.lr": 1e-3, **more})
    assert len(kept(told)) == 2 * used and (rows(tokens, "below") > 0) == used
    assert (rows(tokens, "whole") == 0) == used


def test_what_is_impossible_is_refused(checkpoint):
    for more, reason in (
        ({"optim.top_layers": None}, "trains, and no layer lies beneath it. Set optim.top_layers."),
        ({"model.hf_text.dropout": "on"}, "frozen layers drop numbers at random"),
        ({"model.hf_text.text_trivial_aug_maxscale": 0.2}, "changes the texts from epoch to epoch"),
    ):
        with pytest.raises(ConfigError, match="optim.prefix_cache='on' is not possible here: .*" + reason):
            quick_fit(checkpoint, Path("a"), hyperparameters={**TOP, "optim.prefix_cache": "on", **more})


def test_without_text_it_is_refused(told):
    frame = pd.DataFrame({"size": np.linspace(0, 1, 40), "label": [0, 1] * 20})
    given = {"optim.max_epochs": 1, "optim.prefix_cache": "on"}
    with pytest.raises(ConfigError, match="the table is read without the text encoder"):
        MultiModalPredictor("label", path="a", verbosity=0).fit(frame, hyperparameters=given)


def test_beside_another_encoder(checkpoint, tokens):
    frame = reviews().assign(size=np.linspace(0, 1, 40))
    fits = [
        quick_fit(
            checkpoint,
            Path(word),
            frame,
            hyperparameters={**TOP, "optim.prefix_cache": word, "data.mixup.turn_on": True},
        )
        for word in ("on", "off")
    ]
    np.testing.assert_allclose(trained(fits[0]), trained(fits[1]), rtol=1e-4, atol=2e-5)
    assert rows(tokens, "below") > 0


class TestDisk:
    def test_what_memory_is_not_meant_for(self, checkpoint, told, monkeypatch, tmp_path):
        monkeypatch.setenv("FEATHERFIT_HOME", str(tmp_path / "home"))
        more = {**TOP, "optim.prefix_cache": "on"}
        expected = trained(quick_fit(checkpoint, Path("a"), hyperparameters=more))
        monkeypatch.setattr(prefix, "IN_MEMORY", 1000)
        found = trained(quick_fit(checkpoint, Path("b"), hyperparameters=more))
        assert np.array_equal(found, expected)
        assert [line.count("on disk") for line in kept(told)] == [0, 0, 1, 1]
        assert list((tmp_path / "home" / "prefix").iterdir()) == []

    def test_where_memory_is_planned(self, checkpoint, told):
        quick_fit(checkpoint, Path("a"), hyperparameters={**TOP, "env.memory_budget": "4GB"})
        assert all("on disk" in line for line in kept(told)) and kept(told)

    def test_without_room(self, checkpoint, told, monkeypatch):
        def full(*arguments: Any, **named: Any) -> None:
            raise StorageError("No room.")

        monkeypatch.setattr(starting, "_with_states", full)
        quick_fit(checkpoint, Path("a"), hyperparameters=TOP)
        told_so = (
            "warning: The frozen layers are computed again in every epoch, for the same result up to rounding. No room."
        )
        assert told_so in told
        with pytest.raises(StorageError, match="No room"):
            quick_fit(checkpoint, Path("b"), hyperparameters={**TOP, "optim.prefix_cache": "on"})


class Stop(Exception):
    """Ends a fit in the middle."""


@pytest.mark.parametrize("step", [2, 6, 10])
def test_a_fit_that_was_broken_off(checkpoint, tokens, monkeypatch, step):
    more = {**TOP, "optim.max_epochs": 3, "optim.ema_decay": 0.7, "optim.lora.dropout": 0.3, "env.state_interval": 0}
    whole = quick_fit(checkpoint, Path("whole"), hyperparameters=more)
    accumulate, count = loop.accumulate, iter(range(1, 100))

    def broken(*arguments: Any, **named: Any) -> float:
        if next(count) == step:
            raise Stop
        return accumulate(*arguments, **named)

    monkeypatch.setattr(loop, "accumulate", broken)
    with pytest.raises(Stop):
        quick_fit(checkpoint, Path("a"), hyperparameters=more)
    monkeypatch.setattr(loop, "accumulate", accumulate)
    tokens.clear()
    again = MultiModalPredictor.load("a", resume=True, verbosity=0).fit(reviews())
    assert rows(tokens, "below") > 0 and rows(tokens, "whole") == 0
    assert np.array_equal(trained(again), trained(whole))
    stored = [(Path(path) / "trainable.safetensors").read_bytes() for path in ("whole", "a")]
    assert stored[0] == stored[1]


def test_training_further(checkpoint, tokens):
    """With the adapters as they are by then; where they train cannot change."""
    predictor = quick_fit(checkpoint, Path("a"), hyperparameters=TOP)
    tokens.clear()
    predictor.fit(reviews(seed=3), save_path="b")
    assert rows(tokens, "below") > 0 and rows(tokens, "whole") == 0
    with pytest.raises(ConfigError, match="optim.top_layers was 1 in the first fit and cannot become 2"):
        predictor.fit(reviews(seed=4), save_path="c", hyperparameters={"optim.top_layers": 2})
