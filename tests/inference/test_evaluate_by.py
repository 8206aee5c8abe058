"""`evaluate(by=...)` of a fitted predictor, from the table to the record."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny_checkpoints import quick_fit, reviews

from featherfit import ConfigError, DataError, MultiModalPredictor

TEST = reviews(60, seed=5).assign(language=["de"] * 30 + ["en"] * 14 + [None] * 12 + ["ja"] * 4)


@pytest.fixture(scope="module")
def english(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> MultiModalPredictor:
    """Trained on a table whose only language is `en`."""
    train = reviews().assign(language="en", year=2020)
    with pytest.warns(UserWarning, match="'id' .* are not used"):
        return quick_fit(checkpoint, tmp_path_factory.mktemp("english") / "artifact", train.assign(id=range(40)))


def test_every_slice_is_scored_as_by_itself(english):
    scores, predictions = english.evaluate(
        TEST, by="language", metrics=["accuracy", "log_loss"], return_pred=True, resamples=100
    )
    assert [part.name for part in scores.slices] == ["en", "de", "(missing)", "ja"]
    for name, rows in TEST.fillna({"language": "(missing)"}).groupby("language"):
        alone = english.evaluate(rows, metrics=["accuracy", "log_loss"])
        found = {metric: estimate.value for metric, estimate in scores[name].scores.items()}
        assert found == pytest.approx(alone, rel=1e-5) and scores[name].rows == len(rows)
    assert scores.overall == pytest.approx(english.evaluate(TEST, metrics=["accuracy", "log_loss"]), rel=1e-5)
    assert predictions.tolist() == english.predict(TEST).tolist() and predictions.index.equals(TEST.index)


def test_the_reference_is_what_training_rows_were(english):
    scores = english.evaluate(TEST, by="language", resamples=100)
    assert (scores.reference, scores.reference_reason) == ("en", "which all training rows were")
    loaded = MultiModalPredictor.load(english.path, verbosity=0)
    assert loaded.evaluate(TEST, by="language", resamples=100) == scores
    assert english.evaluate(TEST, by="language", reference="ja", resamples=100).reference == "ja"
    elsewhere = english.evaluate(TEST[TEST["language"] != "en"], by="language", resamples=100)
    assert elsewhere.reference == "de" and "most rows" in elsewhere.reference_reason


def test_several_columns_and_another_label(english):
    frame = TEST.rename(columns={"label": "truth"}).assign(year=np.where(np.arange(60) % 2, 2020, 2021))
    scores = english.evaluate(frame, by=["language", "year"], label="truth", metrics="accuracy", resamples=100)
    assert scores.by == ("language", "year") and scores.reference == "en / 2020"


def test_the_seed_decides(english):
    one, same, other = (english.evaluate(TEST, by="language", resamples=100, seed=seed) for seed in (3, 3, 4))
    assert str(one) == str(same) != str(other)


def test_a_second_fit_of_other_rows_forgets_the_reference(checkpoint, tmp_path):
    predictor = quick_fit(checkpoint, tmp_path / "one", reviews().assign(language="en", shop="a"))
    predictor.fit(reviews(seed=2).assign(language="de", shop="a"), save_path=tmp_path / "two")
    assert predictor._fitted.constants == {"shop": "a"}


def test_regression(checkpoint, tmp_path):
    frame = reviews(labels=tuple(np.linspace(100, 200, 20))).assign(language="en")
    predictor = quick_fit(checkpoint, tmp_path / "artifact", frame, problem_type="regression")
    scores = predictor.evaluate(frame, by="language", metrics=["rmse", "spearmanr"], resamples=100)
    assert scores["en"].scores["rmse"].value == pytest.approx(predictor.evaluate(frame)["rmse"])
    assert scores["en"].calibration_error is None


def test_mistakes(english):
    with pytest.raises(DataError, match="by names 'langage', which is not a column. Did you mean 'language'"):
        english.evaluate(TEST, by="langage")
    with pytest.raises(ConfigError, match="reference='fr' is no slice.* Slices: de, en, "):
        english.evaluate(TEST, by="language", reference="fr")
    with pytest.raises(ConfigError, match="reference, resamples and seed go with by"):
        english.evaluate(TEST, reference="en")
    for given in ({"resamples": 99}, {"resamples": True}, {"seed": -1}):
        with pytest.raises(ConfigError, match=f"{next(iter(given))}=.* has to be a whole number"):
            english.evaluate(TEST, by="language", **given)
    with pytest.raises(ConfigError, match="metrics='f2'"):
        english.evaluate(TEST, by="language", metrics="f2")
