"""Columns of every type that are missing, unseen or constant, in fit, evaluate and predict; images that are broken."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tiny_checkpoints import quick_fit, same, weights
from tiny_tables import TABULAR, picture, table, with_gaps, with_photos
from tiny_vision import save_tiny_vision

from featherfit import MultiModalPredictor
from featherfit.errors import DataError

TYPES = {"text": "text", **TABULAR, "photo": "image_bytearray"}
ROWS = 24
UNSEEN: dict[str, Any] = {
    "text": "a word nobody wrote 你好",
    "colour": "ultraviolet",
    "member": "perhaps",
    "price": -1e300,
    "when": pd.Timestamp("1900-01-01"),
    "photo": picture(255, 255, width=7, height=90),
}


@pytest.fixture(scope="module")
def vision(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_vision("vit", tmp_path_factory.mktemp("vision") / "tiny-vit")


def rows(seed: int = 0, count: int = ROWS) -> pd.DataFrame:
    """All types side by side."""
    return with_photos(table(count, seed=seed))


def fit(checkpoint: Path, vision: Path, path: Path, frame: pd.DataFrame, **arguments: Any) -> MultiModalPredictor:
    more = {"model.timm_image.checkpoint_name": str(vision), "optim.max_epochs": 1, "optim.lr": 0.003}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return quick_fit(checkpoint, path, frame, hyperparameters=more, **arguments)


def odd(frame: pd.DataFrame, column: str, value: Any, places: slice = slice(None)) -> pd.DataFrame:
    """The frame with one value in some rows of a column."""
    changed = frame.astype({column: object})
    chosen = np.arange(len(frame))[places]
    cells = changed[column].tolist()
    for place in chosen:
        cells[place] = value
    return changed.assign(**{column: pd.Series(cells, index=frame.index, dtype=object)})


def value_of(kind: str, column: str, frame: pd.DataFrame) -> Any:
    return {"missing": None, "unseen": UNSEEN[column], "constant": frame[column].iloc[0]}[kind]


@pytest.fixture(scope="module")
def predictor(checkpoint, vision, tmp_path_factory) -> MultiModalPredictor:
    """Fitted to rows of which every column has gaps; not to be trained further."""
    return fit(checkpoint, vision, tmp_path_factory.mktemp("odd") / "artifact", with_gaps(rows()))


def test_every_type_is_there(predictor):
    assert {name: predictor.column_types[name] for name in TYPES} == TYPES
    assert set(predictor._fitted.model.encoders()) == {"hf_text", "ft_transformer", "timm_image"}
    usual = predictor.predict_proba(rows(1))
    for column in TYPES:
        changed = predictor.predict_proba(odd(rows(1), column, UNSEEN[column]))
        assert not usual.equals(changed), f"{column} is read"


@pytest.mark.parametrize("column", TYPES)
@pytest.mark.parametrize("kind", ["missing", "unseen", "constant"])
def test_in_evaluate_and_predict(predictor, column, kind):
    frame = rows(3)
    given = odd(frame, column, value_of(kind, column, frame))
    before = given.copy(deep=True)
    assert 0 <= predictor.evaluate(given)["roc_auc"] <= 1
    proba = predictor.predict_proba(given)
    assert proba.notna().all().all() and proba.index.equals(given.index)
    pd.testing.assert_frame_equal(given, before)
    one = odd(frame, column, value_of(kind, column, frame), slice(5, 6))
    plain, changed = predictor.predict_proba(frame), predictor.predict_proba(one)
    np.testing.assert_allclose(plain.drop(frame.index[5]), changed.drop(frame.index[5]), atol=1e-6)
    np.testing.assert_allclose(proba.iloc[[5]], changed.iloc[[5]], atol=1e-6)


@pytest.mark.parametrize("column", TYPES)
@pytest.mark.parametrize("kind", ["missing", "constant"])
def test_a_whole_column_in_fit(column, kind, checkpoint, vision, tmp_path):
    """What says nothing of any row is left out, and what comes in its place later changes nothing."""
    frame = rows()
    value = value_of(kind, column, frame)
    predictor = fit(checkpoint, vision, tmp_path / "a", odd(frame, column, value))
    explained = predictor.explain_schema().set_index("column")
    why = "all its values are missing" if kind == "missing" else "every row has the same value"
    assert explained.loc[column, ["type", "because"]].tolist() == ["null", f"`{column}` is null because {why}."]
    proba = predictor.predict_proba(frame)
    assert proba.equals(predictor.predict_proba(odd(frame, column, value)))
    assert proba.equals(predictor.predict_proba(frame.drop(columns=column)))
    assert 0 <= predictor.evaluate(frame)["roc_auc"] <= 1


@pytest.mark.parametrize("column", TYPES)
def test_a_constant_column_whose_type_is_given(column, checkpoint, vision, tmp_path):
    frame = rows()
    constant = odd(frame, column, frame[column].iloc[0])
    predictor = fit(checkpoint, vision, tmp_path / "a", constant, column_types={column: TYPES[column]})
    assert predictor.column_types[column] == TYPES[column]
    for given in (frame, constant, odd(frame, column, UNSEEN[column]), odd(frame, column, None)):
        assert predictor.predict_proba(given).notna().all().all()


@pytest.mark.parametrize("column", [name for name in TYPES if name != "text"])
def test_a_missing_column_whose_type_is_given(column, checkpoint, vision, tmp_path):
    frame = odd(rows(), column, None)
    predictor = fit(checkpoint, vision, tmp_path / "a", frame, column_types={column: TYPES[column]})
    assert predictor.column_types[column] == TYPES[column]
    assert predictor.predict_proba(rows(2)).notna().all().all()


def test_a_missing_column_that_is_to_be_text(checkpoint, vision, tmp_path):
    with pytest.raises(DataError, match="'text' is to be text, but all its values are missing"):
        fit(checkpoint, vision, tmp_path / "a", odd(rows(), "text", None), column_types={"text": "text"})


@pytest.mark.parametrize("column", TYPES)
@pytest.mark.parametrize("kind", ["missing", "unseen", "constant"])
def test_in_the_rows_to_validate_on(column, kind, checkpoint, vision, tmp_path):
    """They decide no type and no category, and count as any row that comes later."""
    frame = rows(4, 12)
    tuning = odd(frame, column, value_of(kind, column, frame))
    predictor = fit(checkpoint, vision, tmp_path / "a", rows(), tuning_data=tuning)
    assert {name: predictor.column_types[name] for name in TYPES} == TYPES
    assert predictor.fit_summary()["val_roc_auc"] == pytest.approx(predictor.evaluate(tuning)["roc_auc"])


TORN = picture(200, 20)[:60]


def test_a_broken_image_changes_no_other_row(predictor, tmp_path):
    """Beside text and columns too, in every way to predict, with the good rows' own results to the last bit but rounding."""
    frame = rows(6)
    expected = predictor.predict_proba(frame)
    broken = odd(frame, "photo", TORN, slice(7, 9))
    others, lost = frame.index.delete([7, 8]), frame.index[[7, 8]]
    with pytest.warns(UserWarning, match="2 rows of 24 could not be processed"):
        found = predictor.predict_proba(broken, on_error="report")
    np.testing.assert_allclose(found.loc[others], expected.loc[others], atol=1e-6)
    assert found.loc[lost].isna().all().all()
    assert predictor.rejected_rows["index"].tolist() == lost.tolist()
    with pytest.warns(UserWarning, match="2 rows of 24 could not be processed"):
        scored = predictor.evaluate(broken, on_error="report")
    assert scored == pytest.approx(predictor.evaluate(frame.loc[others]))
    broken.reset_index(drop=True).to_parquet(tmp_path / "rows.parquet")
    for chunk_rows in (5, 24):
        target = tmp_path / f"{chunk_rows}.parquet"
        with pytest.warns(UserWarning, match="2 rows of 24 could not be processed"):
            predictor.predict_file(
                tmp_path / "rows.parquet", target, proba=True, chunk_rows=chunk_rows, on_error="report"
            )
        written = pd.read_parquet(target)[["proba_0", "proba_1"]].set_axis(frame.index)
        np.testing.assert_allclose(written.loc[others], expected.loc[others], atol=1e-6)
        assert written.loc[lost].isna().all().all()


def test_a_broken_image_changes_no_other_row_in_fit(checkpoint, vision, tmp_path):
    broken = odd(rows(), "photo", TORN, slice(7, 9))
    predictor = fit(checkpoint, vision, tmp_path / "a", broken, on_error="report")
    reference = fit(checkpoint, vision, tmp_path / "b", rows().drop(index=rows().index[[7, 8]]))
    assert same(weights(predictor), weights(reference))
    with pytest.raises(DataError, match=r"Row 107, column 'photo'"):
        fit(checkpoint, vision, tmp_path / "c", broken)
