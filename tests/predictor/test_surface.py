"""AutoMM's signatures, argument for argument; what comes back and in which type; what is refused by name."""

from __future__ import annotations

import inspect

import numpy as np
import pandas as pd
import pytest
import torch
from tiny_checkpoints import quick_fit, reviews

from featherfit import MultiModalPredictor
from featherfit.errors import ConfigError, UnsupportedError

# AutoGluon 1.6.3's `MultiModalPredictor`.
AUTOMM = {
    "__init__": dict(
        label=None, problem_type=None, query=None, response=None, match_label=None, presets=None, eval_metric=None,
        hyperparameters=None, path=None, verbosity=2, num_classes=None, classes=None, warn_if_exist=True,
        enable_progress_bar=None, pretrained=True, validation_metric=None, sample_data_path=None, use_ensemble=False,
        ensemble_size=2, ensemble_mode="one_shot",
    ),
    "fit": dict(
        train_data=..., presets=None, tuning_data=None, max_num_tuning_data=None, id_mappings=None, time_limit=None,
        save_path=None, hyperparameters=None, column_types=None, holdout_frac=None, teacher_predictor=None, seed=0,
        standalone=True, hyperparameter_tune_kwargs=None, clean_ckpts=True, predictions=None, labels=None,
        predictors=None,
    ),
    "evaluate": dict(
        data=..., query_data=None, response_data=None, id_mappings=None, metrics=None, chunk_size=1024,
        similarity_type="cosine", cutoffs=[1, 5, 10], label=None, return_pred=False, realtime=False, eval_tool=None,
        predictions=None, labels=None,
    ),
    "predict": dict(
        data=..., candidate_data=None, id_mappings=None, as_pandas=None, realtime=False, save_results=None,
    ),  # and **kwargs, which it does not use
    "predict_proba": dict(
        data=..., candidate_data=None, id_mappings=None, as_pandas=None, as_multiclass=True, realtime=False
    ),
    "extract_embedding": dict(
        data=..., id_mappings=None, return_masks=False, as_tensor=False, as_pandas=False, realtime=False,
        signature=None,
    ),
    "save": dict(path=..., standalone=True),
    "load": dict(path=..., resume=False, verbosity=3),
    "fit_summary": dict(verbosity=0, show_plot=False),
}  # fmt: skip
DELIBERATE = {
    ("fit", "standalone"): None,  # only what was trained is saved, unless asked for otherwise
    ("save", "standalone"): None,
    ("evaluate", "cutoffs"): None,  # no list as a default; [1, 5, 10] is accepted
}
OURS = {
    "fit": dict(on_error="raise"),
    "__init__": dict(quantile_levels=None, sample_weight=None, weight_evaluation=False),
    "evaluate": dict(by=None, reference=None, resamples=2000, seed=0, on_error="raise"),
    "predict": dict(threshold=None, on_error="raise"),
    "predict_proba": dict(on_error="raise"),
}
"""What AutoMM has not; by keyword only."""
REFUSED = {
    "__init__": {
        "query": "a", "response": "b", "match_label": 1, "num_classes": 3, "classes": ["a"], "pretrained": False,
        "sample_data_path": "x", "use_ensemble": True, "ensemble_size": 3, "ensemble_mode": "sequential",
    },
    "fit": {
        "max_num_tuning_data": 5, "id_mappings": {}, "teacher_predictor": "x", "hyperparameter_tune_kwargs": {},
        "predictions": [], "labels": [], "predictors": [],
    },
    "evaluate": {
        "query_data": [], "response_data": [], "id_mappings": {}, "chunk_size": 5, "similarity_type": "dot",
        "cutoffs": [1], "eval_tool": "x", "predictions": [], "labels": [],
    },
    "predict": {"candidate_data": [], "id_mappings": {}, "save_results": True},
    "predict_proba": {"candidate_data": [], "id_mappings": {}},
    "extract_embedding": {"id_mappings": {}, "return_masks": True, "signature": "query"},
    "fit_summary": {"show_plot": True},
}  # fmt: skip


@pytest.mark.parametrize("method", AUTOMM)
def test_signatures_are_automms(method):
    parameters = dict(inspect.signature(getattr(MultiModalPredictor, method)).parameters)
    parameters.pop("self", None)
    by_keyword = {name: p.default for name, p in parameters.items() if p.kind is inspect.Parameter.KEYWORD_ONLY}
    assert by_keyword == OURS.get(method, {})
    parameters = {name: p for name, p in parameters.items() if name not in by_keyword}
    assert all(p.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD for p in parameters.values())
    ours = {name: ... if p.default is inspect.Parameter.empty else p.default for name, p in parameters.items()}
    theirs = {name: DELIBERATE.get((method, name), default) for name, default in AUTOMM[method].items()}
    assert list(ours) == list(theirs)  # also the order, for positional use
    assert ours == theirs


def test_load_is_a_classmethod():
    assert inspect.ismethod(MultiModalPredictor.load)


@pytest.mark.parametrize(("method", "argument"), [(m, a) for m, given in REFUSED.items() for a in given])
def test_unsupported_arguments_are_refused_by_name(method, argument, fitted):
    given = {argument: REFUSED[method][argument]}
    first = {} if method in ("__init__", "fit_summary") else {"path" if method == "load" else "data": fitted.path}
    if method == "fit":
        first = {"train_data": reviews()}
    call = MultiModalPredictor if method == "__init__" else getattr(fitted, method)
    with pytest.raises(UnsupportedError, match=rf"{argument} is not supported: .+\. Leave it out\.$"):
        call(**first, **given)


def test_unsupported_arguments_are_named_together():
    with pytest.raises(UnsupportedError, match=r"query is .+response is .+use_ensemble is .+Leave them out\.$"):
        MultiModalPredictor(query="a", response="b", use_ensemble=True)


def test_arguments_that_ask_for_nothing_are_taken(fitted):
    scores = fitted.evaluate(reviews(), cutoffs=[1, 5, 10], chunk_size=1024, realtime=True)
    assert scores == fitted.evaluate(reviews())
    assert fitted.predict(reviews(), realtime=True, save_results=False).equals(fitted.predict(reviews()))


def test_unknown_arguments_are_type_errors(fitted):
    with pytest.raises(TypeError, match="nonsense"):
        fitted.predict(reviews(), nonsense=1)


class TestReturnTypes:
    def test_predict(self, fitted):
        frame = reviews(12)
        series = fitted.predict(frame)
        assert isinstance(series, pd.Series) and series.name == "label" and series.index.equals(frame.index)
        array = fitted.predict(frame, as_pandas=False)
        assert isinstance(array, np.ndarray) and array.tolist() == series.tolist()
        records = frame.to_dict("records")
        assert isinstance(fitted.predict(records), np.ndarray)
        assert isinstance(fitted.predict({"text": frame["text"].tolist()}), np.ndarray)
        from_records = fitted.predict(records, as_pandas=True)
        assert isinstance(from_records, pd.Series) and from_records.index.tolist() == list(range(12))
        assert from_records.tolist() == series.tolist()

    def test_predict_from_file(self, fitted, tmp_path):
        frame = reviews(12)
        frame.to_csv(tmp_path / "table.csv", index=False)
        predicted = fitted.predict(str(tmp_path / "table.csv"))
        assert isinstance(predicted, np.ndarray) and predicted.tolist() == fitted.predict(frame).tolist()

    def test_predict_proba(self, fitted):
        frame = reviews(12)
        proba = fitted.predict_proba(frame)
        assert isinstance(proba, pd.DataFrame) and proba.shape == (12, 2) and proba.index.equals(frame.index)
        array = fitted.predict_proba(frame, as_pandas=False)
        assert isinstance(array, np.ndarray) and array.dtype == np.float32
        assert array.tobytes() == proba.to_numpy().tobytes()
        positive = fitted.predict_proba(frame, as_multiclass=False)
        assert isinstance(positive, pd.Series) and positive.tolist() == proba[fitted.positive_class].tolist()
        bare = fitted.predict_proba(frame, as_pandas=False, as_multiclass=False)
        assert isinstance(bare, np.ndarray) and bare.tolist() == positive.tolist()

    def test_predict_proba_of_nothing(self, fitted):
        proba = fitted.predict_proba(reviews(2).head(0))
        assert proba.shape == (0, 2) and proba.columns.tolist() == [0, 1]
        assert len(fitted.predict(reviews(2).head(0))) == 0

    def test_extract_embedding(self, fitted):
        frame = reviews(12)
        array = fitted.extract_embedding(frame)
        assert isinstance(array, np.ndarray) and array.shape == (12, 32) and array.dtype == np.float32
        tensor = fitted.extract_embedding(frame, as_tensor=True)
        assert isinstance(tensor, torch.Tensor) and tensor.numpy().tobytes() == array.tobytes()
        table = fitted.extract_embedding(frame, as_pandas=True)
        assert isinstance(table, pd.DataFrame) and table.index.equals(frame.index)
        with pytest.raises(ConfigError, match="Choose one"):
            fitted.extract_embedding(frame, as_pandas=True, as_tensor=True)

    def test_embedding_is_what_the_head_sees(self, fitted):
        head = fitted._fitted.model.head.linear
        logits = fitted.extract_embedding(reviews()) @ head.weight.detach().numpy().T + head.bias.detach().numpy()
        expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        np.testing.assert_allclose(fitted.predict_proba(reviews()).to_numpy(), expected, rtol=1e-4)

    def test_evaluate(self, fitted):
        from sklearn.metrics import accuracy_score, f1_score, roc_auc_score

        frame = reviews(30, seed=9)
        scores, predicted = fitted.evaluate(frame, metrics=["acc", "roc_auc", "log_loss", "f1"], return_pred=True)
        proba = fitted.predict_proba(frame)
        assert isinstance(predicted, pd.Series) and predicted.equals(fitted.predict(frame))
        assert all(type(value) is float for value in scores.values())
        assert scores == pytest.approx(
            {
                "accuracy": accuracy_score(frame["label"], predicted),
                "roc_auc": roc_auc_score(frame["label"], proba[1]),
                "log_loss": -float(np.log(proba.to_numpy()[np.arange(30), frame["label"]]).mean()),
                "f1": f1_score(frame["label"], predicted),
            },
            abs=1e-6,
        )
        assert list(fitted.evaluate(frame)) == ["roc_auc"]
        renamed = frame.rename(columns={"label": "truth"})
        assert fitted.evaluate(renamed, label="truth") == fitted.evaluate(frame)

    def test_fit_summary(self, fitted):
        summary = fitted.fit_summary()
        assert {"val_roc_auc", "training_time"} <= summary.keys()
        assert summary["training_time"] > 0 and 0 <= summary["val_roc_auc"] <= 1
        loaded = MultiModalPredictor.load(fitted.path, verbosity=0).fit_summary()
        assert loaded == summary  # AutoMM's is empty after load

    def test_fit_returns_itself(self, checkpoint, tmp_path):
        predictor = quick_fit(checkpoint, tmp_path / "artifact")
        assert isinstance(predictor, MultiModalPredictor)


class TestProperties:
    def test_before_fit(self, tmp_path):
        predictor = MultiModalPredictor("stars", "regression", eval_metric="mae", path=tmp_path / "a", verbosity=1)
        assert (predictor.label, predictor.problem_type, predictor.eval_metric) == ("stars", "regression", "mae")
        assert predictor.path == str(tmp_path / "a") and predictor.verbosity == 1
        assert MultiModalPredictor("stars").path is None

    def test_after_fit_and_load(self, fitted):
        loaded = MultiModalPredictor.load(fitted.path, verbosity=1)
        assert loaded.verbosity == 1
        for predictor in (fitted, loaded):
            assert predictor.label == "label" and predictor.problem_type == "binary"
            assert predictor.eval_metric == predictor.validation_metric == "roc_auc"
            assert predictor.column_types == {"text": "text", "label": "categorical"}
            assert predictor.class_labels.tolist() == [0, 1] and predictor.positive_class == 1
            parameters = list(predictor._fitted.model.parameters())
            total = sum(p.numel() for p in parameters)
            assert predictor.total_parameters == total
            assert predictor.trainable_parameters == sum(p.numel() for p in parameters if p.requires_grad)
            assert 0 < predictor.trainable_parameters < total / 2
            assert predictor.model_size == pytest.approx(total * 4e-6)
            assert predictor.path == fitted.path

    def test_read_only(self, fitted):
        for name in ("path", "label", "problem_type", "class_labels", "eval_metric", "total_parameters"):
            with pytest.raises(AttributeError):
                setattr(fitted, name, 1)

    def test_regression_and_multiclass_warn(self, checkpoint, tmp_path):
        frame = reviews().assign(label=lambda table: table["text"].str.len() * 1.5)
        regression = quick_fit(checkpoint, tmp_path / "regression", frame)
        with pytest.warns(UserWarning, match="no class labels"):
            assert regression.class_labels is None
        with pytest.warns(UserWarning, match="Only a binary predictor"):
            assert regression.positive_class is None
        three = quick_fit(checkpoint, tmp_path / "three", reviews(42, labels=("a", "b", "c")))
        with pytest.warns(UserWarning, match="Only a binary predictor"):
            assert three.positive_class is None
        with pytest.raises(ConfigError, match="there are 3 classes"):
            three.predict_proba(reviews(), as_multiclass=False)

    def test_set_verbosity(self):
        predictor = MultiModalPredictor("label")
        predictor.set_verbosity(0)
        assert predictor.verbosity == 0


def test_silence_is_silent(checkpoint, tmp_path, capfd):
    predictor = quick_fit(checkpoint, tmp_path / "artifact", standalone=True)
    predictor.evaluate(reviews())
    predictor.predict(reviews())
    MultiModalPredictor.load(tmp_path / "artifact", verbosity=0).predict_proba(reviews())
    assert capfd.readouterr() == ("", "")
