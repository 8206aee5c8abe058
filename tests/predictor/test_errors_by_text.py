"""Every common mistake raises one error that says what is wrong and what to do, and leaves nothing behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_checkpoints import quick_fit, reviews, settings

from featherfit import MultiModalPredictor
from featherfit.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    NotFittedError,
    PathExistsError,
    UnsupportedError,
)


def refusal(kind: type[Exception], call: Callable[[], Any]) -> str:
    """The text of the one error `call` raises, which stands alone: no other error hangs on it."""
    with pytest.raises(kind) as caught:
        call()
    assert type(caught.value) is kind
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return str(caught.value)


@pytest.fixture
def fit(checkpoint: Path, tmp_path: Path):
    """`fit` on a table, after which nothing may be left on disk but what was there."""
    path = tmp_path / "artifact"

    def call(frame=None, **arguments):
        return quick_fit(checkpoint, path, frame, **arguments)

    yield call
    assert not path.exists()


def test_wrong_key(fit):
    text = refusal(ConfigError, lambda: fit(hyperparameters={"optim.max_epoch": 3}))
    assert "optim.max_epoch" in text and "Did you mean 'optim.max_epochs'?" in text and "\n" not in text


def test_wrong_value(fit):
    text = refusal(ConfigError, lambda: fit(hyperparameters={"optim.max_epochs": 0}))
    assert "optim.max_epochs" in text and "0" in text and "at least 1" in text and "\n" not in text


def test_several_at_once(fit):
    wrong = {"optim.max_epoch": 3, "optim.peft": "lara", "env.batch_size": -1}
    text = refusal(ConfigError, lambda: fit(hyperparameters=wrong))
    first, *lines = text.splitlines()
    assert first == "3 problems in the settings:" and len(lines) == 3
    by_key = {key: next(line for line in lines if f" {key}=" in line) for key in wrong}
    assert "Did you mean 'optim.max_epochs'?" in by_key["optim.max_epoch"]
    assert "'lara'" in by_key["optim.peft"] and "lora" in by_key["optim.peft"]
    assert "at least 1" in by_key["env.batch_size"]


def test_wrong_arguments_at_once(fit):
    text = refusal(ConfigError, lambda: fit(time_limit=0, holdout_frac=1.5, seed=-1))
    assert text.splitlines() == [
        "3 problems in the settings:",
        "  - time_limit=0 has to be a number of seconds above 0.",
        "  - holdout_frac=1.5 has to lie between 0 and 1.",
        "  - seed=-1 has to be a whole number of at least 0.",
    ]


def test_missing_label_column(fit):
    text = refusal(DataError, lambda: fit(reviews().rename(columns={"label": "lable"})))
    assert text == "There is no label column 'label'. Did you mean 'lable'? Columns: text, lable."


def test_label_not_set(tmp_path):
    text = refusal(ConfigError, lambda: MultiModalPredictor(path=tmp_path / "artifact").fit(reviews()))
    assert text == "label is not set. Name the column to predict: MultiModalPredictor(label='...')."


def test_empty_frame(fit):
    assert refusal(DataError, lambda: fit(reviews().head(0))).endswith("The table has no rows.")


def test_all_texts_missing(fit):
    text = refusal(DataError, lambda: fit(reviews().assign(text=None)))
    assert "No column says anything of a row" in text and "`text` is null because all its values are missing" in text
    text = refusal(DataError, lambda: fit(reviews().assign(text=None), column_types={"text": "text"}))
    assert text == "Column 'text' is to be text, but all its values are missing."


def test_one_class_only(fit):
    text = refusal(DataError, lambda: fit(reviews().assign(label="good")))
    assert text == (
        "Label column 'label' has one value only ('good' in every row), so there is nothing to learn from it."
    )


def test_missing_labels(fit):
    frame = reviews(labels=("bad", "good"))
    frame.loc[[103, 110], "label"] = None
    text = refusal(DataError, lambda: fit(frame))
    assert "'label'" in text and "2 rows" in text and "103, 110" in text


def test_too_few_rows(fit):
    text = refusal(DataError, lambda: fit(reviews(3)))
    assert text.startswith("3 rows are too few") and text.endswith("Add rows, or give tuning_data.")


def test_tuning_data_with_unknown_class(fit):
    text = refusal(DataError, lambda: fit(tuning_data=reviews(8, labels=(0, 1, 2))))
    assert "1 label that training has not seen: 2 (2 rows)" in text and "Known: 0, 1." in text


def test_holdout_and_tuning_data(fit):
    text = refusal(ConfigError, lambda: fit(tuning_data=reviews(8), holdout_frac=0.2))
    assert text == "holdout_frac and tuning_data were both given. Give one: tuning_data is the holdout."


def test_metrics_that_do_not_fit(checkpoint, tmp_path):
    predictor = MultiModalPredictor(label="label", eval_metric="rmsee", validation_metric="r2", path=tmp_path / "a")
    text = refusal(ConfigError, lambda: predictor.fit(reviews(), hyperparameters=settings(checkpoint)))
    lines = text.splitlines()
    assert lines[0] == "2 problems in the settings:" and len(lines) == 3
    assert lines[1].startswith("  - eval_metric='rmsee' is unknown.")
    assert lines[2].startswith("  - validation_metric='r2' is not for binary problems.")
    assert not (tmp_path / "a").exists()


def test_no_checkpoint(tmp_path):
    predictor = MultiModalPredictor(label="label", path=tmp_path / "a", verbosity=0)
    missing = {"model.hf_text.checkpoint_name": str(tmp_path / "nowhere")}
    text = refusal(CheckpointError, lambda: predictor.fit(reviews(), hyperparameters=missing))
    assert text.startswith(f"There are no pretrained weights for '{tmp_path / 'nowhere'}' here.")
    assert not (tmp_path / "a").exists()


def test_unknown_classes_at_evaluation(fitted):
    text = refusal(DataError, lambda: fitted.evaluate(reviews(6, labels=(0, 1, 5))))
    assert text == (
        "Label column 'label' has 1 label that training has not seen: 5 (2 rows); index 102, 105. Known: 0, 1."
    )
    text = refusal(DataError, lambda: fitted.evaluate(reviews(4, labels=("0", "1"))))
    assert text.endswith("They differ in type only: give the label the type it had in training.")


def test_evaluation_without_labels(fitted):
    text = refusal(DataError, lambda: fitted.evaluate(reviews().rename(columns={"label": "labels"})))
    assert text == (
        "There is no label column 'label', which evaluation needs. Did you mean 'labels'? Columns: text, labels."
    )
    assert "no rows" in refusal(DataError, lambda: fitted.evaluate(reviews().head(0)))


def test_prediction_without_text_column(fitted):
    text = refusal(DataError, lambda: fitted.predict(reviews().rename(columns={"text": "texts"})))
    assert "'text'" in text and "texts" in text


def test_occupied_path(checkpoint, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    with pytest.warns(UserWarning, match="exists and is not empty; fit will refuse it"):
        predictor = MultiModalPredictor(label="label", path=tmp_path / "mine")
    text = refusal(PathExistsError, lambda: predictor.fit(reviews(), hyperparameters=settings(checkpoint)))
    assert text == f"path {tmp_path / 'mine'} exists and is not empty. Choose another one; fit overwrites nothing."
    assert [file.name for file in (tmp_path / "mine").iterdir()] == ["notes.txt"]


def test_not_fitted():
    predictor = MultiModalPredictor(label="label")
    for call in (
        lambda: predictor.predict(reviews()),
        lambda: predictor.evaluate(reviews()),
        lambda: predictor.save("somewhere"),
        lambda: predictor.class_labels,
        lambda: predictor.total_parameters,
        predictor.fit_summary,
    ):
        assert refusal(NotFittedError, call) == (
            "This predictor is not fitted yet. Call fit first, or MultiModalPredictor.load(path)."
        )


def test_unsupported_problem_type(fit):
    text = refusal(UnsupportedError, lambda: fit(problem_type="ner"))
    assert text.startswith("problem_type='ner' is not supported: labels for single words are not offered yet.")


def test_regression_has_no_probabilities(checkpoint, tmp_path):
    frame = reviews().assign(label=lambda table: table["text"].str.len() * 1.5)
    predictor = quick_fit(checkpoint, tmp_path / "artifact", frame)
    text = refusal(ConfigError, lambda: predictor.predict_proba(frame))
    assert text == "predict_proba is for classification, and this predictor does regression. Use predict."


def test_errors_are_value_errors_too(fit):
    """AutoMM's users catch ValueError."""
    with pytest.raises(ValueError, match="optim.nonsense"):
        fit(hyperparameters={"optim.nonsense": 1})
