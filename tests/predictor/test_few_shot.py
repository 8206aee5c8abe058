"""`optim.few_shot`: when a fit starts with contrast, what it says, and that such a fit is as safe as any other."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_checkpoints import quick_fit, reviews, same, settings, weights

from featherfit import MultiModalPredictor, fitting
from featherfit.errors import ConfigError, Interrupted
from featherfit.inference.predict import outputs
from featherfit.report import Reporter, TrainingProgress
from featherfit.steps import Run
from featherfit.training import contrastive
from featherfit.training.probe import probe_head
from featherfit.types import StepReport

ON = {"optim.few_shot": "on"}


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(Reporter, "info", lambda reporter, text: lines.append(text))
    return lines


def starts(lines: list[str]) -> int:
    return sum(line.startswith("Few labels: ") for line in lines)


def test_auto_where_labels_are_few(checkpoint, told, monkeypatch):
    """40 rows, of which 8 are held out: 16 a class."""
    for most, few in ((16, 1), (15, 0)):
        told.clear()
        monkeypatch.setattr(contrastive, "MOST_ROWS_A_CLASS", most)
        quick_fit(checkpoint, Path(str(most)), hyperparameters={"optim.few_shot": "auto"})
        assert starts(told) == few


def test_it_says_what_it_does(checkpoint, told):
    quick_fit(checkpoint, Path("artifact"), hyperparameters={"optim.few_shot": "auto"})
    (line,) = (line for line in told if line.startswith("Few labels"))
    assert "32 training rows for 2 classes (at most 64 a class)" in line
    assert "optim.few_shot='off' trains for optim.max_epochs=2 instead" in line


def test_off_unless_asked_for(checkpoint, told):
    one = quick_fit(checkpoint, Path("one"))
    other = quick_fit(checkpoint, Path("other"), hyperparameters={"optim.few_shot": "off"})
    assert starts(told) == 0
    assert same(weights(one), weights(other))


def test_the_presets_leave_it_to_the_labels(checkpoint, told):
    predictor = MultiModalPredictor("label", path="artifact", verbosity=0)
    predictor.fit(reviews(), presets="multilingual", hyperparameters=settings(checkpoint))
    assert starts(told) == 1


@pytest.mark.parametrize("peft", ["lora", None])
def test_it_reaches_rows_of_other_words(checkpoint, peft):
    """More than the training proper of these few steps does."""
    given = {"optim.peft": peft, "optim.lr": 0.01, "optim.max_epochs": 1}
    unseen = reviews(60, seed=5)
    scores = [
        quick_fit(checkpoint, Path(word), hyperparameters={**given, "optim.few_shot": word}).evaluate(unseen)["roc_auc"]
        for word in ("off", "on")
    ]
    assert scores[1] > 0.85 and scores[1] > scores[0] + 0.05


class Started(Exception):
    """Carries a run whose model has been started."""


def started(checkpoint: Path, monkeypatch: pytest.MonkeyPatch, **given: Any) -> Run:
    def stop(run: Run, config: Any) -> None:
        raise Started(run)

    with monkeypatch.context() as patch:
        patch.setattr(fitting, "_train", stop)
        with pytest.raises(Started) as caught:
            quick_fit(checkpoint, Path("started"), hyperparameters={**ON, **given})
    run: Run = caught.value.args[0]
    return run


def test_the_head_is_the_probe_of_the_embeddings(checkpoint, monkeypatch):
    run = started(checkpoint, monkeypatch)
    model, train = run.fitted.model, run.sets[0]
    expected = torch.nn.Linear(32, 2)
    embeddings = outputs(run.fitted, train, embeddings=True)
    probe_head(expected, embeddings, train.labels, run.fitted.label, None, seen=True)
    torch.testing.assert_close(model.head.linear.weight, expected.weight, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model.head.linear.bias, expected.bias, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("given", "steps"), [({}, 0), ({"optim.few_shot_epochs": 1}, 4), ({"optim.few_shot_epochs": 9}, 8)]
)
def test_epochs_after_it(checkpoint, given, steps):
    """Of 32 rows in batches of 8, and at most `optim.max_epochs`, 2."""
    summary = quick_fit(checkpoint, Path("artifact"), hyperparameters={**ON, **given}).fit_summary()
    assert summary["steps"] == steps
    assert summary["stopped"] == ("all epochs done" if steps else "few labels: the head is fitted")


def test_regression_has_no_classes(checkpoint, told):
    numbers = reviews().assign(label=np.linspace(0, 1, 40))
    with pytest.raises(ConfigError, match=r"optim\.few_shot='on' tells classes apart, and this problem is regression"):
        quick_fit(checkpoint, Path("on"), numbers, hyperparameters=ON)
    quick_fit(checkpoint, Path("auto"), numbers, hyperparameters={"optim.few_shot": "auto"})
    assert starts(told) == 0


def test_broken_off_in_the_start_it_comes_out_the_same(checkpoint, monkeypatch):
    whole = quick_fit(checkpoint, Path("whole"), hyperparameters=ON)
    update = TrainingProgress.update

    def interrupting(progress: TrainingProgress, report: StepReport) -> None:
        update(progress, report)
        if report.score is None and report.step == 7:
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingProgress, "update", interrupting)
        with pytest.raises(Interrupted, match="after step 7 of .* of the few-label start"):
            quick_fit(checkpoint, Path("again"), hyperparameters=ON)
    again = quick_fit(checkpoint, Path("again"), hyperparameters=ON)
    assert same(weights(whole), weights(again))


def test_broken_off_after_it_the_fit_goes_on_without_it(checkpoint, monkeypatch):
    given = {**ON, "optim.few_shot_epochs": 2}
    whole = quick_fit(checkpoint, Path("whole"), hyperparameters=given)
    update = TrainingProgress.update

    def interrupting(progress: TrainingProgress, report: StepReport) -> None:
        update(progress, report)
        if report.score is not None:
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingProgress, "update", interrupting)
        with pytest.raises(Interrupted, match=r"after step \d+ of 8\."):
            quick_fit(checkpoint, Path("parts"), hyperparameters=given)
    monkeypatch.setattr(contrastive, "contrast", None)
    parts = MultiModalPredictor.load("parts", resume=True, verbosity=0).fit(reviews())
    assert same(weights(whole), weights(parts))


def test_time_that_is_over(checkpoint, monkeypatch):
    warned: list[str] = []
    monkeypatch.setattr(Reporter, "warn", lambda reporter, text: warned.append(text))
    update = TrainingProgress.update

    def slow(progress: TrainingProgress, report: StepReport) -> None:
        update(progress, report)
        time.sleep(0.05)

    monkeypatch.setattr(TrainingProgress, "update", slow)
    predictor = quick_fit(checkpoint, Path("artifact"), hyperparameters=ON, time_limit=0.5)
    assert any("of the few-label start" in line and "time_limit of 0.5 s" in line for line in warned)
    assert predictor.fit_summary()["stopped"] == "few labels: time_limit reached, the head is fitted"
    assert not Path("artifact/training").exists()


def test_a_second_fit_is_not_a_start(checkpoint, told):
    predictor = quick_fit(checkpoint, Path("artifact"), hyperparameters=ON)
    told.clear()
    predictor.fit(reviews(seed=2), hyperparameters={"optim.max_epochs": 1}, save_path="second")
    assert starts(told) == 0
