"""A plan of a tiny run, a fit under a budget, and both beside what a process really takes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tiny_checkpoints import reviews, same, settings, weights, write_checkpoint
from tiny_models import TINY

from featherfit import MultiModalPredictor
from featherfit.errors import ConfigError
from featherfit.models.backbone import build_backbone_from_config
from featherfit.planning.copies import cut_config
from featherfit.planning.task import LONGEST, SAMPLE, sampled

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "planner.py"


@pytest.fixture
def plan(checkpoint):
    return MultiModalPredictor(label="label", verbosity=0).plan(reviews(), hyperparameters=settings(checkpoint))


def test_parts_and_totals(plan):
    assert plan.rows == 32 and plan.peft == "ia3_bias" and plan.precision == "float32"
    assert plan.trained == plan.gradients == 4 * plan.trainable
    assert plan.optimizer == 8 * plan.trainable
    assert plan.average == 0
    assert plan.peak == max(sum(parts.values()) for parts in plan.phases.values())
    assert plan.phases["training"]["activations"] == plan.activations[plan.tokens_per_forward]
    assert list(plan.activations.values()) == sorted(plan.activations.values(), reverse=True)
    assert 0 < plan.seconds_per_step <= plan.seconds_per_epoch < 60
    assert plan.fits is (1.04 * plan.peak <= plan.budget)


def test_it_can_be_shown_and_stored(plan):
    assert json.loads(json.dumps(plan.to_json()))["peak"] == plan.peak
    frame = plan.to_frame()
    assert frame.groupby("phase")["bytes"].sum().max() == plan.peak
    for text in ("peak", "process and libraries", "an epoch", "tokens a forward"):
        assert text in str(plan)
    with pytest.raises(AttributeError):
        plan.peak = 1


def test_nothing_is_written(plan, tmp_path):
    assert list(tmp_path.iterdir()) == []


def test_the_size_of_the_artifact(checkpoint, tmp_path):
    predictor = MultiModalPredictor(label="label", path=tmp_path / "a", verbosity=0)
    planned = predictor.plan(reviews(), hyperparameters=settings(checkpoint)).artifact
    predictor.fit(reviews(), hyperparameters=settings(checkpoint))
    real = sum(file.stat().st_size for file in (tmp_path / "a").rglob("*") if file.is_file())
    assert planned == pytest.approx(real, rel=0.15)


def test_a_roomy_budget_changes_nothing(checkpoint, tmp_path):
    fits = [
        MultiModalPredictor(label="label", path=tmp_path / str(index), verbosity=0).fit(
            reviews(), hyperparameters={**settings(checkpoint), **more}
        )
        for index, more in enumerate(({}, {"env.memory_budget": "900GB"}))
    ]
    assert same(*map(weights, fits))
    assert fits[1]._fitted.device.budget_tokens is None


def test_auto_takes_what_fits_and_says_so_in_the_settings(checkpoint, tmp_path):
    given = {**settings(checkpoint), "env.per_gpu_batch_size": "auto"}
    fitted = MultiModalPredictor(label="label", path=tmp_path / "a", verbosity=0).fit(reviews(), hyperparameters=given)
    inside = fitted._fitted
    assert inside.config.env.per_gpu_batch_size == 8  # all rows of a step
    assert inside.device.budget_tokens is None
    plain = MultiModalPredictor(label="label", path=tmp_path / "b", verbosity=0).fit(
        reviews(), hyperparameters=settings(checkpoint)
    )
    assert fitted.fit_summary()["steps"] == plain.fit_summary()["steps"]


def test_auto_goes_on_where_nothing_fits_and_warns(checkpoint, tmp_path, monkeypatch):
    from featherfit.planning import budget

    monkeypatch.setattr(budget, "budget_of", lambda *given: 10**6)
    given = {**settings(checkpoint), "env.per_gpu_batch_size": "auto"}
    predictor = MultiModalPredictor(label="label", path=tmp_path / "a", verbosity=0)
    with pytest.warns(UserWarning, match="at least, and there are 1 MB"):
        predictor.fit(reviews(), hyperparameters=given)
    assert predictor._fitted.config.model.hf_text.gradient_checkpointing


def test_a_tight_budget_makes_forwards_smaller_and_steps_the_same(checkpoint, tmp_path, monkeypatch):
    from featherfit.planning import budget

    chosen = budget.Choice(32, True, 10**6)
    monkeypatch.setattr(budget, "choose", lambda *given, **more: chosen)
    usual = {**settings(checkpoint), "optim.optim_type": "sgd"}  # Adam would make much of rounding
    given = {**usual, "env.memory_budget": "2MB"}
    fitted = MultiModalPredictor(label="label", path=tmp_path / "a", verbosity=0).fit(reviews(), hyperparameters=given)
    plain = MultiModalPredictor(label="label", path=tmp_path / "b", verbosity=0).fit(reviews(), hyperparameters=usual)
    inside = fitted._fitted
    assert inside.device.tokens_per_forward(inside.config, 20, training=True) == 32
    assert inside.config.model.hf_text.gradient_checkpointing
    assert fitted.fit_summary()["steps"] == plain.fit_summary()["steps"]
    for one, other in zip(weights(fitted).values(), weights(plain).values(), strict=True):
        assert np.allclose(one, other, atol=1e-4)


def test_a_budget_nothing_fits_in_is_refused_before_training(checkpoint, tmp_path):
    predictor = MultiModalPredictor(label="label", path=tmp_path / "a", verbosity=0)
    with pytest.raises(ConfigError, match=r"env.memory_budget is 20 MB, and this run needs"):
        predictor.fit(reviews(), hyperparameters={**settings(checkpoint), "env.memory_budget": "20MB"})
    assert not (tmp_path / "a").exists()


def test_rows_are_sampled_with_the_longest_among_them():
    rows = SAMPLE + LONGEST + 1000
    frame = pd.DataFrame({"text": ["x"] * rows})
    frame.loc[7, "text"] = "x" * 99
    chosen, spaced = sampled(frame, ["text"])
    assert spaced == SAMPLE and len(chosen) <= SAMPLE + LONGEST
    assert chosen["text"].str.len().max() == 99
    few, spaced = sampled(frame.head(50), ["text"])
    assert len(few) == spaced == 50


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the peak from /proc")
@pytest.mark.parametrize("run", ["encoder-small-lora-plain-bf16", "t5-small-lora-ckpt-32"])
def test_forecasts_beside_measured_peaks(run, tmp_path):
    out = tmp_path / "out.json"
    subprocess.run([sys.executable, str(BENCHMARK), "--only", run, "--json", str(out)], check=True, capture_output=True)
    (line,) = json.loads(out.read_text())
    assert abs(line["error"]) < 0.1


def test_layers_beneath_all_that_trains_keep_nothing(tmp_path):
    """Of six layers one trains: a fit keeps the activations of that one."""
    folder = write_checkpoint(tmp_path / "six")
    build_backbone_from_config(cut_config(TINY["bert"], 6)).save_pretrained(folder)
    plans = [
        MultiModalPredictor(label="label", verbosity=0).plan(
            reviews(), hyperparameters=settings(folder, optim__peft="lora", optim__top_layers=top)
        )
        for top in (None, 6, 1)
    ]
    whole, six, one = (plan.phases["training"]["activations"] for plan in plans)
    assert six == pytest.approx(whole, rel=0.01) and one < 0.5 * whole
    assert [plan.trainable for plan in plans] == [plans[0].trainable, plans[0].trainable, plans[2].trainable]
    assert plans[2].trainable < plans[0].trainable


def test_frozen_layers_that_compute_every_row_once(tmp_path):
    folder = write_checkpoint(tmp_path / "six")
    wide = TINY["bert"] | {"hidden_size": 256, "intermediate_size": 1024}  # its layers take longer than a clock errs
    build_backbone_from_config(cut_config(wide, 6)).save_pretrained(folder)
    table = reviews()
    kept, again = (
        MultiModalPredictor(label="label", verbosity=0).plan(
            table, hyperparameters=settings(folder, optim__peft="lora", optim__top_layers=1, optim__prefix_cache=cache)
        )
        for cache in ("on", "off")
    )
    name, tokens = "states of frozen layers", round(kept.tokens_per_row["mean"] * kept.rows)
    assert kept.phases["validating"][name] == kept.phases["training"][name] == tokens * wide["hidden_size"] * 4
    assert name not in again.phases["training"] and again.seconds_beneath == 0
    assert kept.seconds_beneath > 0 and kept.seconds_per_step < again.seconds_per_step
    lines = [line["what"] for line in kept.rows_to_show()]
    assert "time of frozen layers, once" in lines
    assert "time of frozen layers, once" not in [line["what"] for line in again.rows_to_show()]
