"""Every loss of a row against its formula, scikit-learn's or torch's own; which losses fit which problem."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import mean_pinball_loss
from torch.nn import functional

from featherfit.config.dotted import build_config
from featherfit.config.losses import LOSS_FUNCTIONS
from featherfit.data.processors.label import LabelProcessor
from featherfit.data.processors.several import SeveralLabels
from featherfit.errors import ConfigError
from featherfit.training.losses import LOSSES, Objective, loss_name, objective_of, row_losses

LOGITS = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
CLASSES = torch.tensor([0, 1, 2, 1, 0])
TARGETS = torch.tensor([0.5, -1.0, 2.0, 0.0, 1.0])
FLAGS = torch.tensor([[1.0, 0, 0], [0, 0, 0], [1, 1, 1], [0, 1, 0], [0, 0, 1]])


def classes(name: str, problem: str = "multiclass", outputs: int = 3, **more: object) -> Objective:
    return Objective(name, problem, outputs, **more)


class TestOfClasses:
    def test_cross_entropy(self):
        expected = -torch.log_softmax(LOGITS, 1)[torch.arange(5), CLASSES]
        torch.testing.assert_close(row_losses(LOGITS, CLASSES, classes("cross_entropy")), expected)

    def test_label_smoothing(self):
        logs = torch.log_softmax(LOGITS, 1)
        expected = -0.8 * logs[torch.arange(5), CLASSES] - 0.2 * logs.mean(1)
        torch.testing.assert_close(row_losses(LOGITS, CLASSES, classes("cross_entropy", smoothing=0.2)), expected)

    def test_binary_is_cross_entropy_of_two(self):
        logits = LOGITS[:, :2]
        expected = functional.binary_cross_entropy_with_logits(
            logits[:, 1] - logits[:, 0], (CLASSES % 2).float(), reduction="none"
        )
        given = row_losses(logits, CLASSES % 2, classes("cross_entropy", "binary", 2))
        torch.testing.assert_close(given, expected)

    @pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0, 5.0])
    @pytest.mark.parametrize("alpha", [None, (0.2, 0.5, 3.0)])
    def test_focal(self, gamma, alpha):
        p = torch.softmax(LOGITS.double(), 1)[torch.arange(5), CLASSES]
        weight = 1.0 if alpha is None else torch.tensor(alpha)[CLASSES]
        expected = -weight * (1 - p) ** gamma * p.log()
        given = row_losses(LOGITS, CLASSES, classes("focal_loss", gamma=gamma, alpha=alpha))
        torch.testing.assert_close(given.double(), expected, rtol=1e-5, atol=1e-7)

    def test_focal_without_focus_is_cross_entropy(self):
        given = row_losses(LOGITS, CLASSES, classes("focal_loss", gamma=0.0))
        torch.testing.assert_close(given, row_losses(LOGITS, CLASSES, classes("cross_entropy")))

    def test_focal_of_sure_rows_has_a_finite_gradient(self):
        logits = torch.tensor([[200.0, 0.0, 0.0], [0.0, 200.0, 0.0]], requires_grad=True)
        row_losses(logits, torch.tensor([0, 0]), classes("focal_loss", gamma=0.5)).sum().backward()
        assert torch.isfinite(logits.grad).all() and logits.grad[0].abs().sum() == 0 and logits.grad[1].abs().sum() > 1


class TestOfLabels:
    def test_is_the_mean_over_labels(self):
        p = torch.sigmoid(LOGITS)
        expected = -(FLAGS * p.log() + (1 - FLAGS) * (1 - p).log()).mean(1)
        torch.testing.assert_close(row_losses(LOGITS, FLAGS, classes("bcewithlogitsloss", "multilabel")), expected)

    def test_label_smoothing_is_that_of_two_classes(self):
        given = row_losses(LOGITS, FLAGS, classes("bcewithlogitsloss", "multilabel", smoothing=0.2))
        two = torch.stack([torch.zeros_like(LOGITS), LOGITS], -1).reshape(-1, 2)
        expected = functional.cross_entropy(two, FLAGS.flatten().long(), reduction="none", label_smoothing=0.2)
        torch.testing.assert_close(given, expected.reshape(5, 3).mean(1))

    @pytest.mark.parametrize("alpha", [None, (0.25, 0.25, 0.25)])
    def test_focal(self, alpha):
        """The formula of the paper's authors' code, which torchvision has as `sigmoid_focal_loss`."""
        p = torch.sigmoid(LOGITS)
        cross = functional.binary_cross_entropy_with_logits(LOGITS, FLAGS, reduction="none")
        p_t = p * FLAGS + (1 - p) * (1 - FLAGS)
        expected = cross * (1 - p_t) ** 2
        if alpha:
            expected = expected * (0.25 * FLAGS + 0.75 * (1 - FLAGS))
        given = row_losses(LOGITS, FLAGS, classes("focal_loss", "multilabel", alpha=alpha))
        torch.testing.assert_close(given, expected.mean(1))


class TestOfNumbers:
    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("mse", lambda e: e**2),
            ("mae", lambda e: e.abs()),
            ("huber", lambda e: torch.where(e.abs() <= 0.7, e**2 / 2, 0.7 * (e.abs() - 0.35))),
        ],
    )
    def test_one_target_and_several(self, name, expected):
        objective = Objective(name, "regression", 1, delta=0.7)
        given = row_losses(LOGITS[:, :1], TARGETS, objective)
        torch.testing.assert_close(given, expected(LOGITS[:, 0] - TARGETS))
        several = torch.stack([TARGETS, 2 * TARGETS, TARGETS - 1], 1)
        given = row_losses(LOGITS, several, Objective(name, "regression", 3, delta=0.7))
        torch.testing.assert_close(given, expected(LOGITS - several).mean(1))

    def test_probabilities(self):
        targets = torch.tensor([0.0, 0.3, 1.0, 0.5, 0.9])
        p = torch.sigmoid(LOGITS[:, 0])
        expected = -(targets * p.log() + (1 - targets) * (1 - p).log())
        given = row_losses(LOGITS[:, :1], targets, Objective("bcewithlogitsloss", "regression", 1))
        torch.testing.assert_close(given, expected)

    def test_pinball_is_scikit_learns(self):
        levels = (0.1, 0.5, 0.8)
        given = row_losses(LOGITS, TARGETS, Objective("pinball", "quantile", 3, levels=levels))
        for row in range(5):
            expected = np.mean(
                [mean_pinball_loss(TARGETS[row : row + 1], LOGITS[row, [q]], alpha=levels[q]) for q in range(3)]
            )
            assert float(given[row]) == pytest.approx(expected, rel=1e-6)

    def test_pinball_is_least_at_the_quantile(self):
        targets = torch.randn(4000, generator=torch.Generator().manual_seed(1))
        levels = (0.1, 0.5, 0.9)
        output = torch.zeros(1, 3, requires_grad=True)
        optimizer = torch.optim.Adam([output], lr=0.02)
        for _ in range(400):
            optimizer.zero_grad()
            loss = row_losses(
                output.expand(4000, 3), targets, Objective("pinball", "quantile", 3, levels=levels)
            ).mean()
            loss.backward()
            optimizer.step()
        np.testing.assert_allclose(output.detach()[0], np.quantile(targets, levels), atol=0.05)


def objective_for(problem: str, name: str) -> tuple[Objective, torch.Tensor]:
    levels = (0.1, 0.5, 0.9) if problem == "quantile" else ()
    outputs = {"binary": 2, "regression": 1}.get(problem, 3)
    objective = Objective(name, problem, outputs, levels=levels)
    labels = {"binary": CLASSES % 2, "multiclass": CLASSES, "multilabel": FLAGS}.get(problem, TARGETS.sigmoid())
    return objective, labels


@pytest.mark.parametrize(("problem", "name"), LOSSES)
def test_every_loss_keeps_rows_and_has_a_right_gradient(problem, name):
    objective, labels = objective_for(problem, name)
    logits = LOGITS[:, : objective.outputs]
    losses = row_losses(logits.bfloat16(), labels, objective)
    assert losses.shape == (5,) and losses.dtype == torch.float32
    blank = objective.blank_labels(5)
    assert blank.shape == labels.shape and blank.dtype == labels.dtype
    assert torch.isfinite(row_losses(logits, blank, objective)).all()
    wanted = logits.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(row_losses(wanted, labels, objective).sum(), wanted)
    for row in range(5):
        for column in range(objective.outputs):
            step = torch.zeros_like(logits)
            step[row, column] = 1e-2
            above, below = (row_losses(logits + sign * step, labels, objective).sum() for sign in (1, -1))
            assert float(above - below) / 2e-2 == pytest.approx(float(gradient[row, column]), abs=2e-3)


class TestWhichFits:
    def test_auto_is_the_first(self):
        problems = ("binary", "multiclass", "multilabel", "regression", "quantile")
        assert [loss_name(problem, "auto") for problem in problems] == [
            "cross_entropy", "cross_entropy", "bcewithlogitsloss", "mse", "pinball",
        ]  # fmt: skip

    def test_every_name_is_for_some_problem(self):
        assert {"auto", *(name for _, name in LOSSES)} == set(LOSS_FUNCTIONS)

    @pytest.mark.parametrize(
        ("problem", "name", "allowed"),
        [
            ("binary", "mse", "auto, cross_entropy, focal_loss"),
            ("multiclass", "bcewithlogitsloss", "auto, cross_entropy, focal_loss"),
            ("regression", "focal_loss", "auto, mse, mae, huber, bcewithlogitsloss"),
            ("quantile", "huber", "auto, pinball"),
            ("multilabel", "cross_entropy", "auto, bcewithlogitsloss, focal_loss"),
        ],
    )
    def test_what_does_not_fit_is_refused_with_what_does(self, problem, name, allowed):
        with pytest.raises(ConfigError) as caught:
            loss_name(problem, name)
        assert str(caught.value).startswith(f"optim.loss_func={name!r} does not fit a {problem} problem.")
        assert str(caught.value).endswith(f"Allowed: {allowed}.")


def label(problem: str = "multiclass", **more: object) -> LabelProcessor:
    return LabelProcessor(problem, np.array(["a", "b", "c"], dtype=object), **more)


def made(given: LabelProcessor | SeveralLabels, **flat: object) -> Objective:
    return objective_of(given, build_config({name.replace("__", "."): value for name, value in flat.items()}).optim)


class TestSettings:
    def test_reach_the_loss(self):
        given = made(
            label(), optim__loss_func="focal_loss", optim__focal_loss__gamma=3, optim__focal_loss__alpha=[1, 2, 0.5]
        )
        assert given == Objective("focal_loss", "multiclass", 3, gamma=3.0, alpha=(1.0, 2.0, 0.5))
        assert made(label("regression"), optim__loss_func="huber", optim__huber__delta=0.2).delta == 0.2
        assert made(label(), optim__label_smoothing=0.1).smoothing == 0.1

    def test_alpha_has_a_number_for_each_class(self):
        with pytest.raises(ConfigError, match=r"has 2 numbers, and there are 3 classes.+order: 'a', 'b', 'c'\.$"):
            made(label(), optim__loss_func="focal_loss", optim__focal_loss__alpha=[1, 2])

    def test_alpha_of_labels_is_a_share(self):
        several = SeveralLabels.fit(pd.DataFrame({"a": [0, 1], "b": [1, 0]}), "multilabel")
        with pytest.raises(ConfigError, match="numbers are from 0 to 1"):
            made(several, optim__loss_func="focal_loss", optim__focal_loss__alpha=[1, 2])

    @pytest.mark.parametrize(("problem", "loss"), [("regression", "auto"), ("multiclass", "focal_loss")])
    def test_smoothing_that_would_do_nothing_is_refused(self, problem, loss):
        with pytest.raises(ConfigError, match=r"label_smoothing=0.1 does not go with .+cross_entropy \(binary\)"):
            made(label(problem), optim__loss_func=loss, optim__label_smoothing=0.1)

    def test_mixup_smooths_where_that_means_something(self):
        assert classes("cross_entropy").smoothed(0.1) == classes("cross_entropy", smoothing=0.1)
        assert classes("focal_loss").smoothed(0.1) == classes("focal_loss")

    def test_a_fitted_label_keeps_its_link(self):
        with pytest.raises(ConfigError, match="Use a new MultiModalPredictor"):
            made(label("regression"), optim__loss_func="bcewithlogitsloss")
