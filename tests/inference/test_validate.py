"""Validation rows are scored slice by slice, and their mean or the worst of them chooses the weights."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from tiny_checkpoints import quick_fit, reviews

from featherfit import ConfigError, DataError, MultiModalPredictor
from featherfit.config.resolve import resolve_config
from featherfit.inference.validate import averaged

pytestmark = pytest.mark.filterwarnings("ignore:The model has learnt nothing")  # three steps are few

TUNING = reviews(30, seed=4).assign(language=["en"] * 16 + ["de"] * 8 + ["ja"] * 6)
BY = {"optim.validation_by": "language"}
SCORES = {"en": 0.9, "de": 0.5, "xx": math.nan}


def test_averages():
    assert averaged(SCORES, "macro", greater_is_better=True) == pytest.approx(0.7)
    assert averaged(SCORES, "worst", greater_is_better=True) == 0.5
    assert averaged(SCORES, "worst", greater_is_better=False) == 0.9
    assert math.isnan(averaged({"xx": math.nan}, "macro", greater_is_better=True))


@pytest.mark.parametrize(("average", "combine"), [("macro", np.mean), ("worst", min)])
def test_the_score_is_that_of_the_slices(checkpoint, tmp_path, average, combine):
    more = {**BY, "optim.validation_average": average, "optim.calibration": None}
    predictor = quick_fit(checkpoint, tmp_path / "artifact", tuning_data=TUNING, hyperparameters=more)
    summary = predictor.fit_summary()
    parts = {name: rows for name, rows in TUNING.groupby("language")}
    expected = {name: predictor.evaluate(rows)["roc_auc"] for name, rows in parts.items()}
    assert summary["validation_slices"] == pytest.approx(expected)
    assert summary["val_roc_auc"] == pytest.approx(combine(list(expected.values())))
    assert len(set(expected.values())) > 1, "they could not be told apart"
    assert MultiModalPredictor.load(predictor.path, verbosity=0).fit_summary() == summary


def test_each_slice_is_shown(checkpoint, tmp_path, capsys):
    from tiny_checkpoints import settings

    predictor = MultiModalPredictor(label="label", path=tmp_path / "artifact", verbosity=2)
    predictor.fit(reviews(), tuning_data=TUNING, hyperparameters={**settings(checkpoint), **BY})
    told = re.findall(
        r"Validation roc_auc by language: en (\S+), de (\S+), ja (\S+); macro (\S+)\.\n", capsys.readouterr().err
    )
    assert len(told) >= 3
    for *slices, score in told:
        assert float(score) == pytest.approx(np.mean([float(each) for each in slices]), abs=2e-4)


def test_a_slice_of_one_class_does_not_count(checkpoint, tmp_path):
    tuning = TUNING.assign(language=np.where(TUNING["label"] == 1, "en", TUNING["language"]))
    with pytest.warns(UserWarning, match="roc_auc is not defined on the validation rows of 'de', 'ja'"):
        predictor = quick_fit(checkpoint, tmp_path / "artifact", tuning_data=tuning, hyperparameters=BY)
    summary = predictor.fit_summary()
    assert summary["val_roc_auc"] == summary["validation_slices"]["en"]
    assert math.isnan(summary["validation_slices"]["de"])


def test_mistakes(checkpoint, tmp_path):
    with pytest.raises(DataError, match=r"optim.validation_by names 'langage'.* Did you mean 'language'\?"):
        quick_fit(
            checkpoint, tmp_path / "artifact", tuning_data=TUNING, hyperparameters={"optim.validation_by": "langage"}
        )
    with pytest.raises(ConfigError, match="optim.validation_average='worst' averages slices"):
        resolve_config(None, {"optim.validation_average": "worst"}, has_gpu=False)
