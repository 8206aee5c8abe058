"""Temperature and threshold of a fitted predictor: set, kept in the artifact, and used by all that predicts."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tiny_checkpoints import quick_fit, reviews
from tiny_checkpoints import settings as quick_settings

from featherfit import ConfigError, MultiModalPredictor
from featherfit.artifact.store import inspect_artifact
from featherfit.checkpoints.fingerprints import sha256
from featherfit.evaluation.calibration import log_losses
from featherfit.evaluation.decision import Decision
from featherfit.inference import decide
from featherfit.inference.predict import labelled_outputs

TEST = reviews(60, seed=5)
UNSURE = {"optim.peft": None, "optim.max_epochs": 4, "optim.label_smoothing": 0.4}


@pytest.fixture(scope="module")
def unsure(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> MultiModalPredictor:
    """Always right on its holdout of 40 rows, and kept from being sure."""
    return quick_fit(checkpoint, tmp_path_factory.mktemp("unsure") / "artifact", reviews(200), hyperparameters=UNSURE)


def unsure_rows(rows: int, seed: int) -> pd.DataFrame:
    """Reviews, a third of which have the other's label."""
    frame = reviews(rows, seed=seed)
    wrong = np.random.default_rng(seed).random(rows) < 1 / 3
    return frame.assign(label=np.where(wrong, 1 - frame["label"], frame["label"]))


def predicts(predictor: MultiModalPredictor) -> np.ndarray:
    return predictor.predict_proba(TEST, as_pandas=False)


class TestCalibration:
    def test_fit_finds_a_temperature_and_says_so(self, unsure):
        summary = unsure.fit_summary()
        assert summary["temperature"] == unsure.temperature < 1
        assert "log-loss" in summary["calibration"] and "calibration error" in summary["calibration"]
        assert unsure.threshold == 0.5

    @pytest.mark.parametrize("top_k", [1, 3])
    def test_it_is_of_the_weights_that_are_kept(self, checkpoint, tmp_path, monkeypatch, top_k):
        """Not of the last ones; and where one state is kept, its validation is not done again."""
        tuning, again, read = unsure_rows(60, 7), [], []
        real = decide.outputs
        monkeypatch.setattr(decide, "outputs", lambda *given, **more: again.append(1) or real(*given, **more))
        own = decide.calibrate
        monkeypatch.setattr(
            decide, "calibrate", lambda logits, *given, **more: read.append(logits) or own(logits, *given, **more)
        )
        settings = {**quick_settings(checkpoint), "optim.peft": None, "optim.max_epochs": 6, "optim.top_k": top_k}
        predictor = MultiModalPredictor("label", path=tmp_path / "a", verbosity=0, validation_metric="log_loss")
        predictor.fit(unsure_rows(200, 8), tuning_data=tuning, seed=3, hyperparameters=settings)
        averaged = predictor.fit_summary()["averaged_steps"]
        assert not (top_k == 1 and again)
        assert averaged != [predictor.fit_summary()["steps"]]
        np.testing.assert_array_equal(read[0], labelled_outputs(predictor._fitted, tuning, None).logits)

    def test_all_that_predicts_uses_it(self, unsure, tmp_path):
        rows = labelled_outputs(unsure._fitted, TEST, None)
        truth, logits = rows.labels, rows.logits
        expected = Decision(unsure.temperature).probabilities(logits)
        np.testing.assert_array_equal(predicts(unsure), expected)
        loss = log_losses(logits, truth, unsure.temperature).mean()
        assert unsure.evaluate(TEST, metrics="log_loss") == {"log_loss": pytest.approx(loss, rel=1e-5)}
        TEST.to_csv(tmp_path / "test.csv")
        unsure.predict_file(tmp_path / "test.csv", tmp_path / "out.csv", proba=True)
        written = pd.read_csv(tmp_path / "out.csv")
        np.testing.assert_allclose(written[["proba_0", "proba_1"]], expected, atol=1e-5)

    def test_labels_stay(self, unsure):
        logits = labelled_outputs(unsure._fitted, TEST, None).logits
        assert unsure.predict(TEST, as_pandas=False).tolist() == logits.argmax(1).tolist()

    def test_the_artifact_keeps_it(self, unsure):
        loaded = MultiModalPredictor.load(unsure.path, verbosity=0)
        assert loaded.temperature == unsure.temperature
        np.testing.assert_array_equal(predicts(loaded), predicts(unsure))
        assert inspect_artifact(unsure.path)["decision"] == {"temperature": unsure.temperature, "threshold": 0.5}

    def test_an_artifact_from_before(self, unsure, tmp_path):
        unsure.save(tmp_path / "old")
        schema, config = (json.loads((tmp_path / "old" / name).read_text()) for name in ("schema.json", "config.json"))
        del schema["decision"], schema["constants"], config["settings"]["optim.calibration"]
        (tmp_path / "old" / "schema.json").write_text(json.dumps(schema))
        (tmp_path / "old" / "SHA256SUMS").unlink()
        config["format_version"] = 1
        names = ("schema.json", "trainable.safetensors", "base/*.json")
        parts = [part for name in names for part in (tmp_path / "old").glob(name)]
        config["files"] = {part.relative_to(tmp_path / "old").as_posix(): sha256(part) for part in parts}
        (tmp_path / "old" / "config.json").write_text(json.dumps(config))
        old = MultiModalPredictor.load(tmp_path / "old", verbosity=0)
        assert (old.temperature, old.threshold) == (1.0, 0.5)
        assert inspect_artifact(tmp_path / "old")["decision"] == {"temperature": 1.0, "threshold": 0.5}

    def test_sharpens_more_for_the_holdout_alone_and_not_at_all_for_null(self, unsure, checkpoint, tmp_path):
        def again(calibration):
            more = {**UNSURE, "optim.calibration": calibration}
            return quick_fit(checkpoint, tmp_path / str(calibration), reviews(200), hyperparameters=more)

        holdout, none = again("holdout"), again(None)
        assert holdout.temperature < unsure.temperature < none.temperature == 1
        assert "temperature" not in none.fit_summary()
        assert holdout.predict(TEST).tolist() == none.predict(TEST).tolist()

    def test_a_second_fit_starts_anew(self, checkpoint, tmp_path):
        predictor = quick_fit(checkpoint, tmp_path / "one", reviews(200), hyperparameters=UNSURE)
        predictor.set_threshold(0.25)
        before = predictor.temperature
        with pytest.warns(UserWarning, match="threshold 0.25 was tuned for the earlier weights"):
            predictor.fit(reviews(200, seed=3), save_path=tmp_path / "two")
        assert predictor.threshold == 0.5
        assert predictor.temperature != before and predictor.fit_summary()["temperature"] == predictor.temperature

    def test_regression_has_none(self, checkpoint, tmp_path):
        frame = reviews(labels=tuple(np.linspace(0, 1, 20)))
        assert quick_fit(checkpoint, tmp_path / "a", frame, problem_type="regression").temperature == 1


class TestThreshold:
    @pytest.fixture
    def predictor(self, unsure) -> MultiModalPredictor:
        return MultiModalPredictor.load(unsure.path, verbosity=0)

    def test_of_one_prediction(self, predictor):
        positive = predicts(predictor)[:, 1]
        bar = float(np.median(positive))
        assert predictor.predict(TEST, threshold=bar).tolist() == (positive > bar).astype(int).tolist()
        assert predictor.predict(TEST).tolist() == predictor.predict(TEST, threshold=0.5).tolist()
        assert predictor.threshold == 0.5

    def test_set_and_saved(self, predictor, tmp_path):
        bar = float(np.quantile(predicts(predictor)[:, 1], 0.9))
        predictor.set_threshold(bar)
        labels = predictor.predict(TEST).tolist()
        assert sum(labels) == 6
        truth = TEST["label"].to_numpy()
        assert predictor.evaluate(TEST, metrics="accuracy")["accuracy"] == pytest.approx((labels == truth).mean())
        predictor.save(tmp_path / "saved")
        loaded = MultiModalPredictor.load(tmp_path / "saved", verbosity=0)
        assert loaded.threshold == bar and loaded.predict(TEST).tolist() == labels
        TEST.to_csv(tmp_path / "test.csv")
        loaded.predict_file(tmp_path / "test.csv", tmp_path / "out.csv")
        assert pd.read_csv(tmp_path / "out.csv")["label"].tolist() == labels

    def test_tuned(self, predictor):
        shifted = replace(predictor._fitted, decision=Decision(predictor.temperature, 0.999))
        predictor._fitted = shifted  # so that there is something to gain
        found = predictor.tune_threshold(TEST, metric="mcc")
        assert found.after > found.before and predictor.threshold == found.threshold
        assert predictor.evaluate(TEST, metrics="mcc")["mcc"] == pytest.approx(found.after)

    def test_the_faster_form_follows(self, predictor):
        predictor._faster = replace(predictor._fitted)
        predictor.set_threshold(1.0)
        assert predictor._serving() is predictor._faster and not predictor.predict(TEST).any()

    @pytest.mark.parametrize("value", [-0.1, 1.1, True, "0.5", float("nan")])
    def test_wrong_values(self, predictor, value):
        with pytest.raises(ConfigError, match="threshold=.* from 0 to 1"):
            predictor.predict(TEST, threshold=value)
        with pytest.raises(ConfigError, match="from 0 to 1"):
            predictor.set_threshold(value)

    def test_other_problems(self, checkpoint, tmp_path):
        three = quick_fit(checkpoint, tmp_path / "three", reviews(labels=("a", "b", "c")))
        for call in (lambda: three.predict(TEST, threshold=0.3), lambda: three.tune_threshold(TEST)):
            with pytest.raises(ConfigError, match="is for binary and multilabel problems, and this one is multiclass"):
                call()
