"""Quantiles, several labels and targets, weights of rows and losses, from fit to a loaded artifact."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score, mean_pinball_loss, roc_auc_score, root_mean_squared_error
from tiny_checkpoints import reviews, same, settings, weights

from featherfit import MultiModalPredictor
from featherfit.artifact.store import inspect_artifact, load_artifact
from featherfit.cli import main
from featherfit.errors import ConfigError, DataError, FeatherfitError
from featherfit.evaluation.metrics import METRICS

MORE = {"optim.max_epochs": 10, "optim.peft": None, "optim.lr": 5e-3}


def numbers(rows: int = 80, seed: int = 0) -> pd.DataFrame:
    """Reviews with numbers that their last word tells, roughly; a second one and two flags besides."""
    frame = reviews(rows, seed=seed)
    noise = np.random.default_rng(seed).normal(size=rows)
    good = frame.pop("label").to_numpy()
    return frame.assign(
        price=100 + 20 * good + 5 * noise,
        days=1000 - 300 * good + noise,
        praise=good,
        short=frame["text"].str.split().str.len() <= 5,
        weight=np.where(np.arange(rows) % 4, 1.0, 0.0),
    )


def fit(
    checkpoint: Path, path: Path, frame: pd.DataFrame, label: Any, fit: dict[str, Any] | None = None, **constructor: Any
):
    more = constructor.pop("hyperparameters", {})
    read = ["text", *([label] if isinstance(label, str) else label), constructor.get("sample_weight")]
    frame = frame[[name for name in read if name in frame.columns]]
    predictor = MultiModalPredictor(label, path=path, verbosity=0, **constructor)
    return predictor.fit(frame, hyperparameters={**settings(checkpoint), **MORE, **more}, **(fit or {}))


@pytest.fixture(scope="module")
def quantiles(checkpoint, tmp_path_factory):
    frame = numbers()[["text", "price"]]
    return fit(checkpoint, tmp_path_factory.mktemp("q") / "a", frame, "price", quantile_levels=[0.9, 0.1, 0.5])


@pytest.fixture(scope="module")
def flags(checkpoint, tmp_path_factory):
    frame = numbers()[["text", "praise", "short"]]
    return fit(checkpoint, tmp_path_factory.mktemp("m") / "a", frame, ["praise", "short"], problem_type="multilabel")


@pytest.fixture(scope="module")
def targets(checkpoint, tmp_path_factory):
    return fit(checkpoint, tmp_path_factory.mktemp("t") / "a", numbers()[["text", "price", "days"]], ["price", "days"])


class TestQuantiles:
    def test_predicts_a_column_for_each_level(self, quantiles):
        frame = numbers(30, seed=5)
        table = quantiles.predict(frame)
        assert isinstance(table, pd.DataFrame) and table.columns.tolist() == [0.1, 0.5, 0.9]
        assert table.index.equals(frame.index) and (np.diff(table.to_numpy(), axis=1) >= 0).all()
        assert 60 < table.to_numpy().min() < table.to_numpy().max() < 160
        array = quantiles.predict(frame, as_pandas=False)
        assert array.shape == (30, 3) and array.tolist() == table.to_numpy().tolist()
        assert quantiles.problem_type == "quantile" and quantiles.quantile_levels == [0.1, 0.5, 0.9]

    def test_scores(self, quantiles):
        frame = numbers(30, seed=5)
        names = ["pinball", "interval_coverage", "coverage_error"]
        scores, table = quantiles.evaluate(frame, metrics=names, return_pred=True)
        expected = np.mean([mean_pinball_loss(frame["price"], table[level], alpha=level) for level in table])
        assert list(quantiles.evaluate(frame)) == ["pinball_loss"]
        inside = ((table[0.1] <= frame["price"]) & (frame["price"] <= table[0.9])).mean()
        assert scores["pinball_loss"] == pytest.approx(expected, rel=1e-5)
        assert scores["interval_coverage"] == pytest.approx(inside)
        sliced = quantiles.evaluate(frame.assign(side=frame["praise"]), by="side", metrics=names, resamples=100)
        assert {part.name for part in sliced.slices} == {"0", "1"} and sliced.slices[0].calibration_error is None

    def test_has_learnt_more_than_a_constant(self, quantiles):
        frame = numbers(60, seed=6)
        constant = np.quantile(numbers()["price"], [0.1, 0.5, 0.9])
        of_constant = np.mean(
            [
                mean_pinball_loss(frame["price"], np.full(60, c), alpha=q)
                for c, q in zip(constant, [0.1, 0.5, 0.9], strict=True)
            ]
        )
        assert quantiles.evaluate(frame)["pinball_loss"] < 0.8 * of_constant

    def test_a_file(self, quantiles, tmp_path):
        frame = numbers(12, seed=5)
        frame.to_csv(tmp_path / "in.csv", index=False)
        quantiles.predict_file(tmp_path / "in.csv", tmp_path / "out.parquet", keep_columns="days")
        written = pd.read_parquet(tmp_path / "out.parquet")
        assert written.columns.tolist() == ["days", "price_0.1", "price_0.5", "price_0.9"]
        np.testing.assert_allclose(written.iloc[:, 1:], quantiles.predict(frame), rtol=1e-5)

    def test_what_is_refused(self, quantiles, checkpoint, tmp_path):
        for call, problem in (
            (lambda: quantiles.predict_proba(numbers(2)), "predict_proba is for classification, and this predictor does quantile"),
            (lambda: quantiles.predict(numbers(2), threshold=0.3), "binary and multilabel"),
            (lambda: MultiModalPredictor("price", quantile_levels=[0.1, 1.0]), "numbers between 0 and 1"),
            (lambda: MultiModalPredictor("price", quantile_levels=[0.1, 0.1]), "different numbers"),
            (lambda: fit(checkpoint, tmp_path / "a", numbers(), "price", problem_type="regression", quantile_levels=[0.5]), "Drop one of them"),
            (lambda: fit(checkpoint, tmp_path / "a", numbers(), "price", quantile_levels=[0.5], eval_metric="interval_coverage"), "says nothing about which"),
            (lambda: fit(checkpoint, tmp_path / "a", numbers(), "price", quantile_levels=[0.5], hyperparameters={"optim.loss_func": "huber"}), "does not fit a quantile problem"),
        ):  # fmt: skip
            with pytest.raises(ConfigError, match=problem):
                call()

    def test_deciles_are_the_default(self, checkpoint, tmp_path):
        predictor = fit(
            checkpoint, tmp_path / "a", numbers()[["text", "price"]], "price", problem_type="quantile",
            hyperparameters={"optim.max_epochs": 1},
        )  # fmt: skip
        assert predictor.predict(numbers(2)).columns.tolist() == [tenth / 10 for tenth in range(1, 10)]

    def test_rows_that_are_set_aside(self, quantiles):
        frame = numbers(4)
        frame["text"] = pd.Series([*frame["text"][:3], b"\xff"], index=frame.index, dtype=object)
        with pytest.warns(UserWarning, match="could not be processed"):
            table = quantiles.predict(frame, on_error="report")
        assert table.iloc[3].isna().all() and table.iloc[:3].notna().all(axis=None)


class TestSeveralLabels:
    def test_predictions_and_probabilities(self, flags):
        frame = numbers(40, seed=5)
        table, proba = flags.predict(frame), flags.predict_proba(frame)
        assert table.columns.tolist() == proba.columns.tolist() == ["praise", "short"]
        assert table.dtypes.tolist() == [np.int64, np.bool_] and proba.to_numpy().dtype == np.float32
        np.testing.assert_array_equal(table.to_numpy(dtype=int), proba.to_numpy() > 0.5)
        assert flags.class_labels.tolist() == ["praise", "short"] and flags.problem_type == "multilabel"
        assert flags.column_types["short"] == "categorical"
        assert (table["praise"] == frame["praise"]).mean() > 0.9

    def test_scores(self, flags):
        frame = numbers(40, seed=5)
        truth, proba = frame[["praise", "short"]].to_numpy(dtype=int), flags.predict_proba(frame)
        scores = flags.evaluate(frame, metrics=["roc_auc", "f1_macro", "f1_micro", "average_precision", "log_loss"])
        assert scores["roc_auc"] == pytest.approx(roc_auc_score(truth, proba))
        for average in ("macro", "micro"):
            expected = f1_score(truth, proba.to_numpy() > 0.5, average=average)
            assert scores[f"f1_{average}"] == pytest.approx(expected)
        sliced = flags.evaluate(frame.assign(side=frame["praise"]), by="side", metrics=["f1_micro"], resamples=100)
        assert all(0 <= part.calibration_error <= 1 for part in sliced.slices)
        renamed = frame.rename(columns={"praise": "p", "short": "s"})
        assert flags.evaluate(renamed, label=["p", "s"]) == flags.evaluate(frame)
        with pytest.raises(ConfigError, match=r"has to name what \['praise', 'short'\] is called"):
            flags.evaluate(renamed, label=["p"])

    def test_thresholds(self, flags, tmp_path):
        frame = numbers(40, seed=5)
        proba = flags.predict_proba(frame).to_numpy()
        np.testing.assert_array_equal(flags.predict(frame, threshold=0.2).to_numpy(dtype=int), proba > 0.2)
        given = flags.predict(frame, threshold={"short": 0.9}).to_numpy(dtype=int)
        np.testing.assert_array_equal(given, proba > [0.5, 0.9])
        with pytest.raises(ConfigError, match="names 'shrt', which is not a label. Did you mean 'short'"):
            flags.predict(frame, threshold={"shrt": 0.9})
        own = MultiModalPredictor.load(flags.path, verbosity=0)
        found = own.tune_threshold(frame, metric="f1_macro")
        assert found.after >= found.before and own.threshold == found.threshold and "mean f1" in str(found)
        assert own.evaluate(frame, metrics="f1_macro")["f1_macro"] == pytest.approx(found.after)
        own.save(tmp_path / "tuned")
        again = MultiModalPredictor.load(tmp_path / "tuned", verbosity=0)
        assert again.threshold == found.threshold and again.predict(frame).equals(own.predict(frame))
        own.set_threshold(0.3)
        assert own.threshold == 0.3

    def test_a_file_and_the_command_line(self, flags, tmp_path, capsys):
        frame = numbers(12, seed=5)
        frame.to_csv(tmp_path / "in.csv", index=False)
        flags.predict_file(tmp_path / "in.csv", tmp_path / "out.parquet", proba=True)
        written = pd.read_parquet(tmp_path / "out.parquet")
        assert written.columns.tolist() == ["praise", "short", "proba_praise", "proba_short"]
        assert (
            written["short"].dtype == np.bool_ and written["praise"].tolist() == flags.predict(frame)["praise"].tolist()
        )
        table = flags.predict_table(frame, proba=True)
        pd.testing.assert_frame_equal(table[["praise", "short"]], flags.predict(frame))
        np.testing.assert_allclose(table.iloc[:, 2:], flags.predict_proba(frame), atol=1e-6)
        assert main(["predict", flags.path, str(tmp_path / "in.csv"), "--proba", "--verbosity", "0"]) == 0
        assert capsys.readouterr().out.splitlines()[0] == "praise,short,proba_praise,proba_short"

    def test_one_column_of_lists(self, checkpoint, tmp_path):
        frame = numbers()
        tags = [
            ["good"] * praise + ["short"] * short for praise, short in zip(frame["praise"], frame["short"], strict=True)
        ]
        frame = frame[["text"]].assign(tags=tags)
        predictor = fit(checkpoint, tmp_path / "a", frame, "tags", problem_type="multilabel")
        table = predictor.predict(frame)
        assert table.columns.tolist() == ["good", "short"] and table.dtypes.tolist() == [np.bool_] * 2
        assert predictor.evaluate(frame)["roc_auc"] > 0.8
        loaded = MultiModalPredictor.load(tmp_path / "a", verbosity=0)
        assert loaded.predict_proba(frame).equals(predictor.predict_proba(frame))
        odd = frame.assign(tags=[["new"], *tags[1:]])
        with pytest.raises(DataError, match="label that training has not seen: 'new'"):
            predictor.evaluate(odd)
        with pytest.warns(UserWarning, match="1 row of 80 could not"):
            predictor.evaluate(odd, on_error="report")
        assert predictor.rejected_rows["reason"].tolist() == ["label 'new', which training has not seen"]

    @pytest.mark.parametrize(
        ("columns", "options", "problem"),
        [
            ({"a": [0, 1, 2]}, {"problem_type": "multilabel"}, "'a' has to hold 0 and 1"),
            ({"a": [0, 1, 1]}, {"problem_type": "binary"}, "problem_type='binary' is for one label column"),
            ({"a": [0, 1, 1]}, {"quantile_levels": [0.5]}, "problem_type='quantile' is for one label column"),
            ({"a": [1, 1, 1]}, {"problem_type": "multilabel"}, "'a' has the same value in every row"),
            ({"a": ["x", "y", "z"]}, {}, "Several label columns have to hold 0 and 1"),
        ],
    )
    def test_what_is_refused(self, columns, options, problem, checkpoint, tmp_path):
        frame = reviews(30).assign(**{name: values * 10 for name, values in columns.items()})
        with pytest.raises(FeatherfitError, match=problem):
            fit(checkpoint, tmp_path / "x", frame, ["label", *columns], **options)

    def test_class_weights_are_refused(self, checkpoint, tmp_path):
        with pytest.raises(ConfigError, match="this problem is multilabel.+focal_loss"):
            fit(
                checkpoint, tmp_path / "x", numbers(), ["praise", "short"],
                hyperparameters={"optim.class_weights": "balanced"},
            )  # fmt: skip

    def test_labels_that_are_no_names(self):
        for label in (["a", "a"], [], [1], 3):
            with pytest.raises(ConfigError, match="has to be the name of a column, or a list of different names"):
                MultiModalPredictor(label)


class TestSeveralTargets:
    def test_predictions_and_scores(self, targets):
        frame = numbers(40, seed=5)
        scores, table = targets.evaluate(frame, return_pred=True)
        assert table.columns.tolist() == ["price", "days"] and targets.problem_type == "regression"
        expected = np.mean([root_mean_squared_error(frame[name], table[name]) for name in table])
        assert scores == {"rmse": pytest.approx(expected, rel=1e-5)}
        assert root_mean_squared_error(frame["days"], table["days"]) < 0.7 * frame["days"].std()
        assert targets.evaluate(frame.assign(side=frame["praise"]), by="side", resamples=100).overall == pytest.approx(
            scores
        )


@pytest.mark.parametrize("name", ["quantiles", "flags", "targets"])
class TestAll:
    def test_artifact(self, name, request):
        predictor = request.getfixturevalue(name)
        loaded = MultiModalPredictor.load(predictor.path, verbosity=0)
        frame = numbers(20, seed=5)
        pd.testing.assert_frame_equal(loaded.predict(frame), predictor.predict(frame), check_exact=True)
        assert (loaded.label, loaded.problem_type) == (predictor.label, predictor.problem_type)
        assert loaded.quantile_levels == predictor.quantile_levels
        assert json.dumps(inspect_artifact(predictor.path))
        assert "Predictor for `" in (Path(predictor.path) / "README.md").read_text("utf-8")

    def test_a_second_fit(self, name, request, tmp_path):
        predictor = MultiModalPredictor.load(request.getfixturevalue(name).path, verbosity=0)
        before = weights(predictor)
        predictor.fit(numbers(40, seed=9), save_path=tmp_path / "again", hyperparameters={"optim.max_epochs": 1})
        assert not same(before, weights(predictor))

    def test_int8(self, name, request):
        predictor = MultiModalPredictor.load(request.getfixturevalue(name).path, verbosity=0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of CPUs without 8-bit products
            report = predictor.optimize_for_inference(data=numbers(40, seed=5), max_loss=0.5)
        assert report.metric == predictor.eval_metric and 0.5 < report.agreement <= 1
        assert predictor.predict(numbers(4)).shape == (4, len(predictor.predict(numbers(1)).columns))

    def test_plan(self, name, request):
        predictor = request.getfixturevalue(name)
        labels = [predictor.label] if isinstance(predictor.label, str) else predictor.label
        planned = MultiModalPredictor(
            predictor.label, predictor.problem_type, quantile_levels=predictor.quantile_levels, verbosity=0
        ).plan(
            numbers()[["text", *labels]],
            hyperparameters={"model.hf_text.checkpoint_name": load_artifact(predictor.path).checkpoint.name},
        )
        assert planned.to_json()

    def test_head_init_probe(self, name, request, checkpoint, tmp_path):
        predictor = request.getfixturevalue(name)
        metric, scores = predictor.eval_metric, {}
        for start in ("probe", "random"):
            still = {"optim.head_init": start, "optim.max_epochs": 1, "optim.lr": 1e-7}
            begun = fit(
                checkpoint, tmp_path / start, numbers(), predictor.label, problem_type=predictor.problem_type,
                quantile_levels=predictor.quantile_levels, hyperparameters=still,
            )  # fmt: skip
            scores[start] = begun.evaluate(numbers(60, seed=6), metrics=metric)[metric]
        assert (scores["probe"] > scores["random"]) == METRICS[metric].greater_is_better


class TestWeights:
    def test_rows_without_weight_are_not_learnt_from(self, checkpoint, tmp_path):
        frame = numbers()[["text", "praise", "weight"]]
        plain = fit(checkpoint, tmp_path / "plain", frame.drop(columns="weight"), "praise")
        weighted = fit(checkpoint, tmp_path / "weighted", frame, "praise", sample_weight="weight")
        assert not same(weights(plain), weights(weighted))
        lies = frame.assign(praise=np.where(frame["weight"] == 0, 1 - frame["praise"], frame["praise"]))
        given = {"tuning_data": numbers(40, seed=3)}
        learnt = fit(checkpoint, tmp_path / "lies", lies, "praise", sample_weight="weight", fit=given)
        true = fit(checkpoint, tmp_path / "true", frame, "praise", sample_weight="weight", fit=given)
        assert same(weights(learnt), weights(true))

    def test_the_column_is_no_feature(self, checkpoint, tmp_path):
        predictor = fit(
            checkpoint, tmp_path / "a", numbers()[["text", "praise", "weight"]], "praise", sample_weight="weight"
        )
        assert predictor.column_types == {"text": "text", "praise": "categorical"}
        assert predictor.sample_weight == "weight"
        predictor.evaluate(numbers()[["text", "praise"]])  # not weighted, so not needed

    def test_scores_are_weighted_where_asked_for(self, checkpoint, tmp_path):
        frame = numbers()[["text", "praise", "weight"]]
        options = {"sample_weight": "weight", "weight_evaluation": True, "eval_metric": "accuracy"}
        predictor = fit(checkpoint, tmp_path / "a", frame, "praise", **options, hyperparameters={"optim.max_epochs": 1})
        wrong = frame.assign(praise=np.where(frame["weight"] == 0, 1 - frame["praise"], frame["praise"]))
        for own in (predictor, MultiModalPredictor.load(tmp_path / "a", verbosity=0)):
            right = own.predict(frame).to_numpy() == frame["praise"].to_numpy()
            expected = np.average(right, weights=frame["weight"])
            assert own.evaluate(wrong) == {"accuracy": pytest.approx(expected)}
            sliced = own.evaluate(wrong.assign(all="x"), by="all", resamples=100)
            assert sliced["x"].scores["accuracy"].value == pytest.approx(expected)
            with pytest.raises(DataError, match="no column 'weight', which sample_weight names"):
                own.evaluate(frame.drop(columns="weight"))
            odd = wrong.assign(weight=[np.nan, -1.0, *wrong["weight"][2:]])
            with pytest.warns(UserWarning, match="2 rows of 80"):
                own.evaluate(odd, on_error="report")
            assert own.rejected_rows["reason"].tolist() == ["'nan' is no weight", "'-1.0' is no weight"]
            with pytest.raises(ConfigError, match="says nothing|is unknown|not for"):
                own.evaluate(frame, metrics="spearmanr")

    def test_the_validation_is_weighted_too(self, checkpoint, tmp_path):
        frame, held = numbers()[["text", "praise", "weight"]], numbers(40, seed=3)[["text", "praise", "weight"]]
        held["praise"] = np.where(np.arange(40) % 3, held["praise"], 1 - held["praise"])  # wrong in a third of them
        options = {"sample_weight": "weight", "weight_evaluation": True, "eval_metric": "accuracy"}
        predictor = fit(checkpoint, tmp_path / "a", frame, "praise", fit={"tuning_data": held}, **options)
        right = predictor.predict(held).to_numpy() == held["praise"].to_numpy()
        assert np.average(right, weights=held["weight"]) != right.mean()
        assert predictor.fit_summary()["val_accuracy"] == pytest.approx(np.average(right, weights=held["weight"]))

    def test_a_negative_one_is_refused_with_the_rest(self, checkpoint, tmp_path):
        frame = numbers().assign(weight=-1.0)
        with pytest.raises(DataError, match="finite numbers of at least 0, and does not in 80 rows"):
            fit(checkpoint, tmp_path / "a", frame, "praise", sample_weight="weight")

    def test_rows_that_are_left_out_of_a_fit(self, checkpoint, tmp_path):
        frame = numbers()[["text", "praise", "short", "weight"]].astype({"weight": object, "praise": object})
        frame.iloc[3, 3], frame.iloc[5, 1], frame.iloc[7, 1] = -1.0, None, 2
        options = {"problem_type": "multilabel", "sample_weight": "weight", "hyperparameters": {"optim.max_epochs": 1}}
        with pytest.raises(DataError, match="'praise' has to hold 0 and 1"):
            fit(checkpoint, tmp_path / "a", frame, ["praise", "short"], **options)
        options["hyperparameters"] = {"optim.max_epochs": 1}
        with pytest.warns(UserWarning, match="3 rows of 80"):
            predictor = fit(
                checkpoint, tmp_path / "a", frame, ["praise", "short"], fit={"on_error": "report"}, **options
            )
        assert sorted(predictor.rejected_rows["position"]) == [3, 5, 7]

    def test_a_start_that_compares_rows_knows_no_weights(self, checkpoint, tmp_path):
        more = {"optim.few_shot": "on", "optim.peft": "ia3"}
        with pytest.raises(ConfigError, match="few_shot='on' compares rows that all count alike"):
            fit(checkpoint, tmp_path / "a", numbers(), "praise", sample_weight="weight", hyperparameters=more)
        more = {"optim.peft": "ia3", "optim.max_epochs": 1}
        plain = fit(checkpoint, tmp_path / "b", numbers(), "praise", sample_weight="weight", hyperparameters=dict(more))
        more["optim.few_shot"] = "auto"
        auto = fit(checkpoint, tmp_path / "c", numbers(), "praise", sample_weight="weight", hyperparameters=dict(more))
        assert same(weights(plain), weights(auto))

    def test_tables_and_several_labels(self, checkpoint, tmp_path):
        """Fusion of text and numbers, with losses of the encoders' own heads."""
        frame = numbers()[["text", "praise", "short", "days"]]
        more = {"model.fusion_mlp.aux_loss_weight": 0.5, "optim.max_epochs": 2}
        predictor = MultiModalPredictor(["praise", "short"], path=tmp_path / "a", verbosity=0)
        predictor.fit(frame, hyperparameters={**settings(checkpoint), **more})
        assert predictor.column_types["days"] == "numerical"
        assert predictor.evaluate(frame)["roc_auc"] > 0.6
        loaded = MultiModalPredictor.load(tmp_path / "a", verbosity=0)
        assert loaded.predict_proba(frame).equals(predictor.predict_proba(frame))

    def test_weight_evaluation_needs_a_column(self, checkpoint, tmp_path):
        with pytest.raises(ConfigError, match="weight_evaluation=True weighs rows by sample_weight"):
            fit(checkpoint, tmp_path / "a", numbers(), "praise", weight_evaluation=True)

    def test_other_weights_are_another_fit(self, checkpoint, tmp_path):
        frame = numbers()[["text", "praise", "weight"]]
        limited = {"time_limit": 1e-9}
        fit(
            checkpoint,
            tmp_path / "a",
            frame,
            "praise",
            sample_weight="weight",
            fit=limited,
            hyperparameters={"optim.peft": "ia3"},
        )
        resumed = MultiModalPredictor.load(tmp_path / "a", resume=True, verbosity=0)
        with pytest.raises(ConfigError, match="train_data: the training rows are as many as there were, and others"):
            resumed.fit(frame.assign(weight=1.0))
        for other in ({"weight_evaluation": True}, {"sample_weight": "other"}, {"quantile_levels": [0.5]}):
            with pytest.raises(ConfigError, match=f"{next(iter(other))} is .+ now and was"):
                MultiModalPredictor.resume(tmp_path / "a", verbosity=0, **other).fit(frame)
        again = MultiModalPredictor.load(tmp_path / "a", resume=True, verbosity=0).fit(frame)
        assert again.sample_weight == "weight" and "time_limit" not in again.fit_summary()["stopped"]


class TestLosses:
    @pytest.mark.parametrize(
        ("label", "more"),
        [
            ("praise", {"optim.loss_func": "focal_loss"}),
            ("praise", {"optim.loss_func": "focal_loss", "optim.focal_loss.gamma": 0.5}),
            ("praise", {"optim.loss_func": "focal_loss", "optim.focal_loss.alpha": [0.2, 1.0]}),
            ("price", {"optim.loss_func": "mae"}),
            ("price", {"optim.loss_func": "huber"}),
            ("price", {"optim.loss_func": "huber", "optim.huber.delta": 0.1}),
            ("price", {"optim.loss_func": "bcewithlogitsloss", "data.label.numerical_preprocessing": "minmaxscaler"}),
        ],
        ids=lambda part: part if isinstance(part, str) else "-".join(map(str, part.values())),
    )
    def test_has_an_effect(self, label, more, checkpoint, tmp_path):
        frame = numbers()[["text", label]]
        without = {key: value for key, value in list(more.items())[:-1]} if len(more) > 1 else {}
        quick = {"optim.max_epochs": 1, "optim.top_k": 1}
        if label == "price" and "data.label.numerical_preprocessing" in more:
            without = {"data.label.numerical_preprocessing": "minmaxscaler"}
        one = fit(checkpoint, tmp_path / "one", frame, label, hyperparameters={**quick, **without})
        other = fit(checkpoint, tmp_path / "other", frame, label, hyperparameters={**quick, **more})
        assert not same(weights(one), weights(other))

    def test_a_sigmoid_stays_in_the_range_of_training(self, checkpoint, tmp_path):
        frame = numbers()[["text", "price"]]
        more = {"optim.loss_func": "bcewithlogitsloss", "data.label.numerical_preprocessing": "minmaxscaler"}
        predictor = fit(checkpoint, tmp_path / "a", frame, "price", hyperparameters=more)
        predicted = predictor.predict(numbers(60, seed=6))
        assert frame["price"].min() <= predicted.min() < predicted.max() <= frame["price"].max()
        loaded = MultiModalPredictor.load(tmp_path / "a", verbosity=0)
        assert loaded.predict(numbers(60, seed=6)).equals(predicted)
        with pytest.raises(ConfigError, match="Use a new MultiModalPredictor"):
            loaded.fit(frame, save_path=tmp_path / "b", hyperparameters={"optim.loss_func": "mse"})

    def test_is_refused_before_anything_is_read(self, checkpoint, tmp_path):
        with pytest.raises(ConfigError, match="does not fit a binary problem"):
            fit(checkpoint, tmp_path / "a", numbers(), "praise", hyperparameters={"optim.loss_func": "mae"})


def test_the_command_line_takes_them_all(checkpoint, tmp_path, capsys):
    numbers().to_csv(tmp_path / "t.csv", index=False)
    words = [f"model.hf_text.checkpoint_name={checkpoint}", "optim.max_epochs=1", "env.batch_size=8"]
    table, quiet = str(tmp_path / "t.csv"), ["--verbosity", "0", "--json"]
    several = ["--label", "praise", "--label", "short", "--sample-weight", "weight", "--weight-evaluation"]
    assert main(["fit", table, *several, "--path", str(tmp_path / "a"), *quiet, *words]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["label"] == ["praise", "short"] and told["problem_type"] == "multilabel"
    levels = ["--label", "price", "--quantile-level", "0.25", "--quantile-level", "0.75"]
    assert main(["fit", table, *levels, "--path", str(tmp_path / "b"), *quiet, *words]) == 0
    assert json.loads(capsys.readouterr().out)["problem_type"] == "quantile"
    assert main(["predict", str(tmp_path / "b"), table, "--verbosity", "0"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "price_0.25,price_0.75"
    assert main(["predict", str(tmp_path / "b"), table, "--proba"]) == 2
    assert "proba is for classification, and this predictor does quantile. Leave it out." in capsys.readouterr().err
    assert main(["inspect", "--data", table, *several[:4], "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["label"] == ["praise", "short"]
