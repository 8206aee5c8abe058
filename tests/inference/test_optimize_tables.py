"""The int8 form of a model that reads columns beside its text: what changes is the text encoder, within what the report says."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from tiny_checkpoints import quick_fit
from tiny_tables import table, with_gaps, with_photos
from tiny_vision import save_tiny_vision

from featherfit import MultiModalPredictor
from featherfit.errors import ConfigError, UnsupportedError
from featherfit.inference.int8 import Int8Linear, multiplies_int8

pytestmark = pytest.mark.skipif(not multiplies_int8(), reason="this torch has no int8 products")
NAMES = ("fusion_mlp", "fusion_transformer", "fusion_logits")
MEASURED, OTHER = 300, 40
"""Rows it is measured on, of which 256 are taken, and rows that are predicted afterwards."""


@pytest.fixture(scope="module", params=NAMES)
def predictor(request, checkpoint, tmp_path_factory) -> MultiModalPredictor:
    """Fitted to rows half of whose texts say the contrary, so that columns count; not optimised when a test begins."""
    folder = tmp_path_factory.mktemp("tables")
    more = {"model.names": ["hf_text", "ft_transformer", request.param], "optim.lr": 0.002, "optim.max_epochs": 12}
    frame = table(96)
    frame = frame.assign(text=frame["text"].sample(frac=1, random_state=1).tolist())
    return quick_fit(checkpoint, folder / "artifact", with_gaps(frame), hyperparameters=more)


@pytest.fixture(autouse=True)
def as_trained(predictor):
    yield
    predictor.optimize_for_inference(precision=None)


def optimized(predictor: MultiModalPredictor, frame: pd.DataFrame, **arguments):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a CPU without the instructions
        return predictor.optimize_for_inference(precision="int8", data=frame, **arguments)


def test_its_numbers_are_the_defaults_within_what_the_report_says(predictor):
    measured, other = with_gaps(table(MEASURED, seed=1)), with_gaps(table(OTHER, seed=2))
    before, before_other = predictor.predict_proba(measured), predictor.predict_proba(other)
    report = optimized(predictor, measured, max_loss=0.02)
    assert any(isinstance(module, Int8Linear) for module in predictor._fitted.model.modules()) or report.layers
    assert (report.rows, report.metric) == (256, "roc_auc") and report.layers > 0
    assert report.rows_per_second_before > 0 and report.rows_per_second_after > 0
    places = np.unique(np.linspace(0, MEASURED - 1, 256).round().astype(int))
    differences = np.abs(predictor.predict_proba(measured) - before).to_numpy()
    assert differences[places].max() == pytest.approx(report.largest_difference, abs=1e-6)
    assert 0 < report.largest_difference < 0.02
    assert np.abs(predictor.predict_proba(other) - before_other).to_numpy().max() < 2 * report.largest_difference
    sub = measured.iloc[places]
    assert predictor.evaluate(sub)["roc_auc"] == pytest.approx(report.after, abs=1e-9)
    assert abs(report.before - report.after) <= 0.02


@pytest.mark.parametrize(("column", "value"), [("colour", "blue"), ("price", 40.0)])
def test_the_columns_still_count(predictor, column, value):
    if "fusion_transformer" in predictor._fitted.config.model.names:
        pytest.skip("so few steps teach it nothing of columns")
    frame = table(OTHER, seed=2)
    changed = frame.assign(**{column: value})
    effect = predictor.predict_proba(changed) - predictor.predict_proba(frame)
    optimized(predictor, frame, max_loss=1.0)
    after = predictor.predict_proba(changed) - predictor.predict_proba(frame)
    largest = effect.abs().to_numpy().max()
    assert largest > 0.02
    np.testing.assert_allclose(after, effect, atol=0.2 * largest)


def test_files_say_the_same(predictor, tmp_path):
    frame = with_gaps(table(OTHER, seed=2)).reset_index(drop=True)
    frame.to_parquet(tmp_path / "rows.parquet")
    optimized(predictor, frame, max_loss=1.0)
    predictor.predict_file(tmp_path / "rows.parquet", tmp_path / "out.parquet", proba=True, chunk_rows=7)
    found = pd.read_parquet(tmp_path / "out.parquet")[["proba_0", "proba_1"]]
    np.testing.assert_allclose(found, predictor.predict_proba(pd.read_parquet(tmp_path / "rows.parquet")), atol=1e-6)


def test_rows_have_to_be_given_and_to_have_the_columns(predictor):
    with pytest.raises(ConfigError, match="reads columns besides text"):
        predictor.optimize_for_inference(precision="int8")
    with pytest.raises(Exception, match="lacks the columns? 'price'"):
        optimized(predictor, table(8).drop(columns="price"))


def test_going_back_gives_the_same_bits(predictor):
    frame = table(OTHER, seed=2)
    before = predictor.predict_proba(frame)
    optimized(predictor, frame, max_loss=1.0)
    assert not before.equals(predictor.predict_proba(frame))
    predictor.optimize_for_inference(precision=None)
    assert before.equals(predictor.predict_proba(frame))


def test_without_text_it_is_refused(tmp_path):
    alone = MultiModalPredictor(label="label", path=tmp_path / "a", verbosity=0)
    alone.fit(table().drop(columns="text"), hyperparameters={"optim.max_epochs": 1})
    with pytest.raises(UnsupportedError, match="this predictor reads no text"):
        optimized(alone, table())


def test_beside_images(checkpoint, tmp_path):
    vision = save_tiny_vision("vit", tmp_path / "tiny-vit")
    more = {"model.timm_image.checkpoint_name": str(vision), "optim.lr": 0.01}
    predictor = quick_fit(checkpoint, tmp_path / "a", with_photos(table()), hyperparameters=more)
    frame = with_photos(table(OTHER, seed=2))
    before = predictor.predict_proba(frame)
    report = optimized(predictor, frame, max_loss=1.0)
    found = np.abs(predictor.predict_proba(frame) - before).to_numpy().max()
    assert 0 < found == pytest.approx(report.largest_difference, abs=1e-6) and found < 0.05
