"""What one fit does and what the next one goes on from."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from tiny_checkpoints import GOOD, quick_fit, reviews, same, settings, weights, write_checkpoint

from featherfit import MultiModalPredictor
from featherfit.errors import ConfigError


def test_it_learns(checkpoint, tmp_path):
    more = {"optim.max_epochs": 12, "optim.peft": "lora", "optim.top_k": 1}
    predictor = quick_fit(checkpoint, tmp_path / "artifact", reviews(120), hyperparameters=more)
    assert predictor.evaluate(reviews(60, seed=77))["roc_auc"] > 0.95


class TestSecondFit:
    def test_goes_on_from_the_first(self, checkpoint, tmp_path):
        predictor = quick_fit(checkpoint, tmp_path / "one", hyperparameters={"optim.top_k": 1})
        first, first_path = weights(predictor), predictor.path
        # So small a rate that the weights stay where training began: had it begun anew they would be far away.
        predictor.fit(reviews(), hyperparameters={"optim.lr": 1e-7, "optim.max_steps": 1})
        second = weights(predictor)
        assert not same(first, second)
        for name in first:
            torch.testing.assert_close(first[name], second[name], atol=1e-5, rtol=0)
        assert predictor.path != first_path
        assert (Path(predictor.path) / "trainable.safetensors").is_file()
        assert (Path(first_path) / "trainable.safetensors").is_file()
        again = MultiModalPredictor.load(predictor.path, verbosity=0)
        assert again.predict_proba(reviews()).equals(predictor.predict_proba(reviews()))

    def test_after_load(self, checkpoint, tmp_path):
        quick_fit(checkpoint, tmp_path / "one")
        loaded = MultiModalPredictor.load(tmp_path / "one", verbosity=0)
        before = weights(loaded)
        loaded.fit(reviews(), save_path=tmp_path / "two")
        assert loaded.path == str(tmp_path / "two") and not same(before, weights(loaded))

    def test_keeps_settings_and_classes(self, checkpoint, tmp_path):
        predictor = quick_fit(checkpoint, tmp_path / "one", reviews(42, labels=("a", "b", "c")))
        predictor.fit(reviews(20, labels=("a", "c")))
        assert predictor.class_labels.tolist() == ["a", "b", "c"]
        assert predictor._fitted.config.optim.lr == 0.03

    def test_refuses_another_model(self, checkpoint, tmp_path):
        predictor = quick_fit(checkpoint, tmp_path / "one")
        with pytest.raises(ConfigError, match="optim.peft was 'ia3_bias' in the first fit and cannot become 'lora'"):
            predictor.fit(reviews(), hyperparameters={"optim.peft": "lora"})

    def test_failure_leaves_the_first_fit(self, checkpoint, tmp_path):
        predictor = quick_fit(checkpoint, tmp_path / "one")
        before, path = weights(predictor), predictor.path
        with pytest.raises(ConfigError):
            predictor.fit(reviews(), hyperparameters={"optim.lr": -1.0})
        assert same(before, weights(predictor)) and predictor.path == path


def test_time_limit_stops(checkpoint, tmp_path):
    more = {"optim.max_epochs": 100_000, "optim.patience": 1_000_000, "optim.top_k": 1}
    started = time.monotonic()
    predictor = quick_fit(checkpoint, tmp_path / "artifact", hyperparameters=more, time_limit=0.5)
    assert time.monotonic() - started < 5
    summary = predictor.fit_summary()
    assert summary["stopped"] == "time_limit of 0.5 s reached" and summary["steps"] >= 1
    assert len(predictor.predict(reviews())) == 40


def test_time_limit_before_any_validation_still_gives_a_predictor(checkpoint, tmp_path):
    more = {"optim.max_epochs": 1000, "optim.val_check_interval": 1000}
    predictor = quick_fit(checkpoint, tmp_path / "artifact", hyperparameters=more, time_limit=1e-6)
    summary = predictor.fit_summary()
    assert summary["steps"] == 1 and summary["averaged_steps"] == [1] and 0 <= summary["val_roc_auc"] <= 1


def test_patience_stops(checkpoint, tmp_path):
    more = {"optim.max_epochs": 50, "optim.patience": 2, "optim.lr": 1e-9}
    summary = quick_fit(checkpoint, tmp_path / "artifact", hyperparameters=more).fit_summary()
    assert summary["stopped"] == "no better score in 2 validations" and summary["steps"] == 6  # 4 a epoch, 2 checks


class TestValidationRows:
    def test_tuning_data_is_used_and_not_trained_on(self, checkpoint, tmp_path):
        """Two fits that differ in tuning labels alone take the same steps, and score differently."""
        tuning = reviews(10, seed=4)
        wrong = tuning.assign(label=1 - tuning["label"])
        more = {"optim.top_k": 1, "optim.val_check_interval": 1.0, "optim.max_epochs": 1}
        one = quick_fit(checkpoint, tmp_path / "one", tuning_data=tuning, hyperparameters=more)
        two = quick_fit(checkpoint, tmp_path / "two", tuning_data=wrong, hyperparameters=more)
        assert same(weights(one), weights(two))
        summary = one.fit_summary()
        assert (summary["train_rows"], summary["validation_rows"]) == (40, 10)
        assert summary["val_roc_auc"] == pytest.approx(1 - two.fit_summary()["val_roc_auc"])
        assert summary["val_roc_auc"] == pytest.approx(one.evaluate(tuning)["roc_auc"])

    def test_holdout_is_not_trained_on(self, checkpoint, tmp_path, monkeypatch):
        from featherfit.training import loop

        seen: list[int] = []
        load = loop.load_batches

        def spy(rows, plan, *arguments, **options):
            seen.append(len(rows))
            return load(rows, plan, *arguments, **options)

        monkeypatch.setattr(loop, "load_batches", spy)
        summary = quick_fit(checkpoint, tmp_path / "artifact", holdout_frac=0.25).fit_summary()
        assert set(seen) == {30} and (summary["train_rows"], summary["validation_rows"]) == (30, 10)

    def test_default_share(self, checkpoint, tmp_path):
        summary = quick_fit(checkpoint, tmp_path / "artifact").fit_summary()
        assert (summary["train_rows"], summary["validation_rows"]) == (32, 8)


class TestSeed:
    def test_same_seed_same_bits(self, checkpoint, tmp_path):
        more = {"optim.peft": "lora", "model.hf_text.dropout": "off"}
        torch.manual_seed(1)
        one = quick_fit(checkpoint, tmp_path / "one", seed=3, hyperparameters=more)
        torch.manual_seed(2)  # whatever the caller did before
        np.random.seed(7)
        two = quick_fit(checkpoint, tmp_path / "two", seed=3, hyperparameters=more)
        assert same(weights(one), weights(two))
        assert one.predict_proba(reviews()).equals(two.predict_proba(reviews()))
        assert not same(weights(one), weights(quick_fit(checkpoint, tmp_path / "o", seed=4, hyperparameters=more)))

    def test_same_seed_same_bits_with_dropout(self, checkpoint, tmp_path):
        more = {"model.hf_text.dropout": "on"}
        torch.manual_seed(1)
        one = quick_fit(checkpoint, tmp_path / "one", hyperparameters=more)
        torch.manual_seed(2)
        two = quick_fit(checkpoint, tmp_path / "two", hyperparameters=more)
        assert same(weights(one), weights(two))

    def test_the_callers_random_state_is_left_alone(self, checkpoint, tmp_path):
        torch.manual_seed(5)
        expected = torch.rand(3)
        torch.manual_seed(5)
        quick_fit(checkpoint, tmp_path / "one", hyperparameters={"model.hf_text.dropout": "on"})
        assert torch.equal(torch.rand(3), expected)


def test_three_forms_of_hyperparameters_are_one(checkpoint, tmp_path):
    mapping = settings(checkpoint, optim__lora__filter=["query", "value"], optim__peft="lora")
    items = [
        f"model.hf_text.checkpoint_name={checkpoint}",
        *("optim.max_epochs=2", "optim.lr=0.03", "env.batch_size=8", "env.precision=32"),
        *("optim.lora.filter=[query,value]", "optim.peft=lora"),
    ]
    nested = {
        "model": {"hf_text": {"checkpoint_name": str(checkpoint)}},
        "optim": {"max_epochs": 2, "lr": 0.03, "peft": "lora", "lora": {"filter": ["query", "value"]}},
        "env": {"batch_size": 8, "precision": "32"},
    }
    fits = []
    for number, given in enumerate((mapping, items, " ".join(items), nested)):
        predictor = MultiModalPredictor("label", path=tmp_path / str(number), verbosity=0)
        fits.append(predictor.fit(reviews(), hyperparameters=given))
    assert all(p._fitted.config == fits[0]._fitted.config for p in fits)
    assert all(same(weights(p), weights(fits[0])) for p in fits)


def test_fit_settings_come_on_top_of_the_constructors(checkpoint, tmp_path):
    given = settings(checkpoint, optim__max_epochs=7, optim__patience=5)
    predictor = MultiModalPredictor("label", hyperparameters=given, path=tmp_path / "a", verbosity=0)
    predictor.fit(reviews(), hyperparameters="optim.max_epochs=1")
    assert (predictor._fitted.config.optim.max_epochs, predictor._fitted.config.optim.patience) == (1, 5)
    assert predictor.fit_summary()["steps"] == 4


class TestProblems:
    def test_multiclass(self, checkpoint, tmp_path):
        frame = reviews(60, labels=("bad", "fair", "good"))
        predictor = quick_fit(checkpoint, tmp_path / "artifact", frame)
        assert predictor.problem_type == "multiclass" and predictor.eval_metric == "accuracy"
        assert predictor.predict_proba(frame).shape == (60, 3)
        assert predictor._fitted.model.head.linear.out_features == 3
        assert "val_accuracy" in predictor.fit_summary()

    def test_regression_in_the_labels_unit(self, checkpoint, tmp_path):
        frame = reviews(120)
        good = frame["text"].str.split().str[-1].isin(GOOD)
        frame["label"] = np.where(good, 5000.0, 1000.0) + np.arange(120)
        more = {"optim.max_epochs": 12, "optim.peft": "lora"}
        predictor = quick_fit(checkpoint, tmp_path / "artifact", frame, hyperparameters=more)
        assert predictor.problem_type == "regression" and predictor.eval_metric == "rmse"
        predicted = predictor.predict(frame)
        scores = predictor.evaluate(frame, metrics=["rmse", "mae", "r2"])
        error = predicted - frame["label"]
        assert scores["rmse"] == pytest.approx(float(np.sqrt((error**2).mean())), rel=1e-4)
        assert scores["mae"] == pytest.approx(float(error.abs().mean()), rel=1e-4)
        assert scores["rmse"] < 0.6 * frame["label"].std() and scores["r2"] > 0.6

    def test_regression_keeps_the_lowest_error(self, checkpoint, tmp_path, monkeypatch):
        """AutoMM takes the worst of its best states here: it maximises every metric."""
        from featherfit.training import selection

        scores: list[float] = []
        add = selection.BestStates.add

        def spy(states, score, step, model):
            scores.append(score)
            add(states, score, step, model)

        monkeypatch.setattr(selection.BestStates, "add", spy)
        frame = reviews().assign(label=lambda table: table["text"].str.len() * 1.5)
        more = {"optim.max_epochs": 6, "optim.top_k_average_method": "best"}
        summary = quick_fit(checkpoint, tmp_path / "artifact", frame, hyperparameters=more).fit_summary()
        assert len(set(scores)) > 3 and summary["val_rmse"] == min(scores)

    def test_validation_metric_chooses(self, checkpoint, tmp_path):
        predictor = MultiModalPredictor("label", validation_metric="log-loss", path=tmp_path / "a", verbosity=0)
        predictor.fit(reviews(), hyperparameters=settings(checkpoint))
        assert (predictor.eval_metric, predictor.validation_metric) == ("roc_auc", "log_loss")
        assert "val_log_loss" in predictor.fit_summary()

    def test_several_text_columns(self, checkpoint, tmp_path):
        frame = reviews(60)
        frame.insert(0, "title", reviews(60, seed=8)["text"].tolist())
        frame["price"] = np.arange(60) / 7
        with pytest.warns(UserWarning, match=r"Columns 'price' \(numerical\) are not used"):
            more = {"model.names": ["hf_text"]}
            predictor = quick_fit(checkpoint, tmp_path / "artifact", frame, hyperparameters=more)
        assert predictor.column_types == {
            "title": "text",
            "text": "text",
            "price": "numerical",
            "label": "categorical",
        }
        proba = predictor.predict_proba(frame)
        assert proba.equals(predictor.predict_proba(frame[["text", "title"]]))  # columns by name, not by place
        other = frame.assign(title="never broken box")
        assert not proba.equals(predictor.predict_proba(other))  # both are read

    def test_some_texts_missing(self, checkpoint, tmp_path):
        frame = reviews()
        frame.loc[[101, 102], "text"] = None
        predictor = quick_fit(checkpoint, tmp_path / "artifact", frame)
        proba = predictor.predict_proba(frame)
        assert len(proba) == 40 and proba.notna().all().all()


class TestOptions:
    @pytest.fixture
    def plain(self, checkpoint, tmp_path) -> dict[str, torch.Tensor]:
        return weights(quick_fit(checkpoint, tmp_path / "plain"))

    @pytest.mark.parametrize(
        "more",
        [
            {"optim.class_weights": {"0": 5.0}},
            {"optim.label_smoothing": 0.3},
            {"optim.ema_decay": 0.9},
            {"optim.gradient_clip_val": 1e-3, "optim.optim_type": "sgd"},
            {"optim.lr_choice": "two_stages", "optim.lr_mult": 10.0},
            {"optim.lr_schedule": "constant"},
            {"model.hf_text.pooling_mode": "mean"},
        ],
        ids=lambda more: next(iter(more)),
    )
    def test_has_an_effect(self, more, plain, checkpoint, tmp_path):
        assert not same(plain, weights(quick_fit(checkpoint, tmp_path / "other", hyperparameters=more)))

    def test_micro_batches_do_not_matter(self, plain, checkpoint, tmp_path):
        more = {"env.per_gpu_batch_size": 2, "env.inference_batch_size_ratio": 16.0}
        other = weights(quick_fit(checkpoint, tmp_path / "other", hyperparameters=more))
        for name in plain:
            torch.testing.assert_close(plain[name], other[name], atol=2e-3, rtol=0)

    def test_class_weights_shift_probabilities(self, checkpoint, tmp_path):
        more = {"optim.class_weights": {"0": 20.0}, "optim.top_k": 1}
        heavy = quick_fit(checkpoint, tmp_path / "heavy", hyperparameters=more)
        more["optim.class_weights"] = {"1": 20.0}
        light = quick_fit(checkpoint, tmp_path / "light", hyperparameters=more)
        assert heavy.predict_proba(reviews())[0].mean() > light.predict_proba(reviews())[0].mean() + 0.1

    def test_workers_change_nothing(self, plain, checkpoint, tmp_path):
        more = {"env.num_workers": 1, "env.num_workers_inference": 1, "optim.max_epochs": 2}
        assert same(plain, weights(quick_fit(checkpoint, tmp_path / "other", hyperparameters=more)))

    def test_gradient_checkpointing_changes_nothing(self, plain, checkpoint, tmp_path):
        more = {"model.hf_text.gradient_checkpointing": True}
        other = weights(quick_fit(checkpoint, tmp_path / "other", hyperparameters=more))
        for name in plain:
            torch.testing.assert_close(plain[name], other[name], atol=1e-4, rtol=1e-3)

    def test_clean_ckpts(self, checkpoint, tmp_path):
        quick_fit(checkpoint, tmp_path / "clean")
        assert not (tmp_path / "clean" / "training").exists()
        quick_fit(checkpoint, tmp_path / "kept", clean_ckpts=False)
        assert list((tmp_path / "kept" / "training").glob("step-*.safetensors"))
        MultiModalPredictor.load(tmp_path / "kept", verbosity=0)


@pytest.mark.parametrize("model_type", ["t5", "albert", "xlm-roberta", "distilbert", "modernbert", "qwen3"])
@pytest.mark.parametrize("peft", ["ia3_bias", "lora", None])
def test_other_architectures_run(model_type, peft, tmp_path):
    more = {"optim.peft": peft, "optim.max_epochs": 1, "optim.lr": 1e-3}
    checkpoint = write_checkpoint(tmp_path / model_type, model_type)
    # Hugging Face's ModernBERT and Qwen3 have no biases at all.
    without = peft == "ia3_bias" and model_type in ("modernbert", "qwen3")
    expected = pytest.warns(UserWarning, match="asks for biases") if without else contextlib.nullcontext()
    with expected:
        predictor = quick_fit(checkpoint, tmp_path / "artifact", hyperparameters=more)
    with expected:
        loaded = MultiModalPredictor.load(tmp_path / "artifact", verbosity=0)
    pd.testing.assert_frame_equal(loaded.predict_proba(reviews()), predictor.predict_proba(reviews()), check_exact=True)
