"""Plans, steps, gradients and the loss, against torch's own and formulas."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch
from tiny_models import tiny_model

from featherfit.adapters.apply import apply_adapters
from featherfit.config.dotted import build_config
from featherfit.config.schema import Config
from featherfit.data.dataset import Dataset
from featherfit.data.processors.text import TokenizedRows
from featherfit.errors import TrainingError
from featherfit.models.build import MultiModalModel
from featherfit.training import loop
from featherfit.training.average import WeightAverage
from featherfit.training.device import Device
from featherfit.training.loop import make_plan, train
from featherfit.training.losses import Objective

CPU = Device(torch.device("cpu"), "no")
LONGEST = 12
OBJECTIVE = Objective("cross_entropy", "multiclass", 3)
"""Tokens of a full row, so that a forward takes `env.per_gpu_batch_size` times as many."""


def settings(**flat) -> Config:
    return build_config({key.replace("__", "."): value for key, value in flat.items()})


def dataset(rows: int = 16, classes: int = 3, weights: np.ndarray | None = None) -> Dataset:
    random = np.random.default_rng(0)
    lengths = random.integers(3, LONGEST, size=rows)
    ids = [random.integers(4, 50, size=length).astype(np.int32) for length in lengths]
    labels = (random.permutation(rows) % classes).astype(np.int64)
    return Dataset(TokenizedRows(ids, None, lengths.astype(np.int64), 0), labels, weights, pd.RangeIndex(rows))


def model_for(config: Config, outputs: int = 3) -> MultiModalModel:
    model = tiny_model("bert", outputs=outputs)
    model.encoder.disable_dropout()
    apply_adapters(model, config.optim, seed=0)
    return model


def run(config: Config, data: Dataset, model: MultiModalModel | None = None, evaluate=lambda: 0.5, seed: int = 0):
    model = model_for(config) if model is None else model
    plan = make_plan(len(data), config)
    reports = list(
        train(
            model, data, plan, config,
            objective=OBJECTIVE, pad_id=0, longest=LONGEST, device=CPU, evaluate=evaluate, seed=seed,
        )
    )  # fmt: skip
    return model, reports


def trained(model: MultiModalModel) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


class TestPlan:
    @pytest.mark.parametrize(
        ("rows", "given", "per_epoch", "total", "validations"),
        [
            (40, dict(), 5, 10, {2, 5, 7, 10}),  # twice an epoch; half of 5 steps rounds to 2
            (33, dict(), 5, 10, {2, 5, 7, 10}),
            (40, dict(optim__val_check_interval=1.0), 5, 10, {5, 10}),
            (80, dict(optim__val_check_interval=0.25), 10, 20, {2, 5, 8, 10, 12, 15, 18, 20}),
            (40, dict(optim__val_check_interval=3.0), 5, 10, {3, 6, 9, 10}),
            (40, dict(optim__val_check_interval=3.0, optim__skip_final_val=True), 5, 10, {3, 6, 9}),
            (40, dict(optim__check_val_every_n_epoch=2, optim__max_epochs=5), 5, 25, {7, 10, 17, 20, 25}),
            (
                40,
                dict(optim__check_val_every_n_epoch=2, optim__max_epochs=5, optim__skip_final_val=True),
                *(5, 25, {7, 10, 17, 20}),
            ),
            (40, dict(optim__max_steps=7), 5, 7, {2, 5, 7}),
            (40, dict(optim__max_steps=700), 5, 10, {2, 5, 7, 10}),
            (3, dict(), 1, 2, {1, 2}),
            (40, dict(optim__val_check_interval=0.01), 5, 10, set(range(1, 11))),
        ],
    )
    def test_counts_and_places(self, rows, given, per_epoch, total, validations):
        plan = make_plan(rows, settings(**{"optim__max_epochs": 2, "env__batch_size": 8, **given}))
        assert (plan.steps_per_epoch, plan.total_steps, set(plan.validations)) == (per_epoch, total, validations)

    @pytest.mark.parametrize(
        ("rows", "per_step"), [(5, 32), (160, 32), (263, 32), (264, 33), (600, 75), (1031, 128), (9999, 128)]
    )
    def test_steps_of_a_small_table(self, rows, per_step):
        """An eighth of the rows, from 32 to 128; a step has as many as the plan counts on."""
        config = settings(env__batch_size="auto", optim__max_epochs=2)
        assert config.rows_per_step(rows) == per_step
        assert make_plan(rows, config).steps_per_epoch == math.ceil(rows / per_step)

    def test_a_step_of_a_small_table(self):
        _, reports = run(settings(env__batch_size="auto", optim__max_epochs=1, optim__lr=0.01), dataset(40))
        assert [r.rows for r in reports] == [32, 40]

    def test_third_of_an_epoch_ends_with_it(self):
        plan = make_plan(72, settings(optim__max_epochs=1, env__batch_size=8, optim__val_check_interval=1 / 3))
        assert set(plan.validations) == {3, 6, 9}


class TestSteps:
    def test_reports(self):
        config = settings(env__batch_size=6, env__per_gpu_batch_size=4, optim__max_epochs=2, optim__lr=0.01)
        _, reports = run(config, dataset(16))
        assert [r.step for r in reports] == [1, 2, 3, 4, 5, 6] and {r.total_steps for r in reports} == {6}
        assert [r.epoch for r in reports] == [1, 1, 1, 2, 2, 2]
        assert [r.rows for r in reports] == [6, 12, 16, 22, 28, 32]
        assert [r.score for r in reports] == [None, 0.5, 0.5, None, 0.5, 0.5]
        assert [r.seconds for r in reports] == sorted(r.seconds for r in reports)

    def test_rates_follow_the_schedule_to_end_lr(self):
        config = settings(
            env__batch_size=8, optim__max_epochs=3, optim__lr=0.01, optim__end_lr=0.002, optim__warmup_steps=1,
            optim__lr_schedule="linear_decay",
        )  # fmt: skip
        _, reports = run(config, dataset(16))
        expected = [0.005, 0.01, 0.008, 0.006, 0.004, 0.002]
        assert [r.learning_rate for r in reports] == pytest.approx(expected)

    @pytest.mark.parametrize("batch_size", [8, 1, 5])
    def test_a_step_has_as_many_rows_as_it_says(self, batch_size, monkeypatch):
        """AutoMM's `env.batch_size=1` with a preset's micro-batch of 4 trains on 4 rows."""
        steps: list[int] = []
        accumulate = loop.accumulate

        def spy(model, batches, *rest):
            steps.append(sum(len(batch) for batch in batches))
            return accumulate(model, batches, *rest)

        monkeypatch.setattr(loop, "accumulate", spy)
        run(settings(env__batch_size=batch_size, env__per_gpu_batch_size=4, optim__max_epochs=1), dataset(16))
        assert steps[:-1] == [batch_size] * (len(steps) - 1) and sum(steps) == 16

    def test_frozen_weights_stay(self):
        config = settings(env__batch_size=8, optim__max_epochs=1, optim__lr=0.1)
        model = model_for(config)
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        run(config, dataset(16), model)
        for name, parameter in model.named_parameters():
            assert torch.equal(before[name], parameter) != parameter.requires_grad, name

    def test_validates_in_evaluation_mode_and_trains_in_training_mode(self):
        config = settings(env__batch_size=8, optim__max_epochs=2)
        model = model_for(config)
        modes = []
        head_forward = model.head.forward
        model.head.forward = lambda x: (modes.append(("train", model.training)), head_forward(x))[1]

        def evaluate() -> float:
            modes.append(("evaluate", model.training))
            return 0.0

        run(config, dataset(16), model, evaluate)
        assert set(modes) == {("train", True), ("evaluate", False)}

    def test_not_a_number_stops(self):
        config = settings(env__batch_size=8, optim__max_epochs=1, optim__lr=0.5)
        model = model_for(config)
        with torch.no_grad():
            model.head.linear.weight.fill_(math.nan)
        before = trained(model)
        with pytest.raises(
            TrainingError, match=r"loss became nan at step 1 \(epoch 1\).*weights.*optim\.lr is 0\.5"
        ) as caught:
            run(config, dataset(16), model)
        assert caught.value.diverged
        assert torch.equal(before["head.linear.bias"], trained(model)["head.linear.bias"])  # no step was taken

    @pytest.mark.parametrize(("model_type", "known"), [("bert", False), ("t5", True)])
    def test_not_a_number_in_float16(self, model_type, known, monkeypatch):
        config = settings(env__batch_size=8, env__precision="16")
        model = tiny_model(model_type, outputs=3)
        apply_adapters(model, config.optim, seed=0)
        data = dataset(8)
        batch = loop.collate(data.rows, [3, 1, 6], 0, data.labels)
        error = loop._diverged(
            model, [batch], data, Device(torch.device("cpu"), "fp16"), config, "inf at step 3 (epoch 1)"
        )
        assert "became inf at step 3 (epoch 1), in the batch of the rows with index 1, 3, 6. Likely: overflow" in str(
            error
        )
        assert ("family of models is known for" in str(error)) == known and "env.precision is '16'" in str(error)

    def test_one_step_of_sgd_by_hand(self):
        """weight - lr * gradient of the mean cross entropy over the step's rows."""
        config = settings(
            env__batch_size=16, optim__max_epochs=1, optim__optim_type="sgd", optim__lr=0.1, optim__lr_schedule="constant",
            optim__warmup_steps=0, optim__weight_decay=0.0, optim__gradient_clip_val=0.0,
            optim__lr_choice="single_stage",
        )  # fmt: skip
        data, model, reference = dataset(16), model_for(config), model_for(config)
        _, [report] = run(config, data, model)
        from featherfit.data.batch import collate

        batch = collate(data.rows, range(16), 0, data.labels)
        loss = torch.nn.functional.cross_entropy(reference(batch), batch.labels)
        loss.backward()
        assert report.loss == pytest.approx(loss.item(), rel=1e-5)
        for name, parameter in reference.named_parameters():
            if parameter.requires_grad:
                torch.testing.assert_close(trained(model)[name], parameter - 0.1 * parameter.grad, atol=1e-6, rtol=1e-5)


def gradients(micro: int, weights: np.ndarray | None, monkeypatch) -> tuple[dict[str, torch.Tensor], float]:
    """Gradients of the first step of 8 rows, before clipping, and its loss."""
    config = settings(env__batch_size=8, env__per_gpu_batch_size=micro, optim__max_steps=1)
    model, found = model_for(config), {}

    def keep(accelerator, parameters, optim):
        found.update({name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad})

    monkeypatch.setattr(loop, "clip", keep)
    _, [report] = run(config, dataset(16, weights=weights), model)
    return found, report.loss


@pytest.mark.parametrize("micro", [1, 2, 3])
@pytest.mark.parametrize("weighted", [False, True])
def test_micro_batches_give_the_same_gradient(micro, weighted, monkeypatch):
    weights = np.random.default_rng(1).uniform(0.2, 5, size=16).astype(np.float32) if weighted else None
    whole, loss = gradients(8, weights, monkeypatch)
    parts, other_loss = gradients(micro, weights, monkeypatch)
    assert other_loss == pytest.approx(loss, rel=1e-5)
    assert whole.keys() == parts.keys() and max(float(g.abs().max()) for g in whole.values()) > 1e-3
    for name in whole:
        torch.testing.assert_close(parts[name], whole[name], atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize(("model_type", "padded"), [("bert", False), ("mpnet", True)])
def test_a_forward_takes_what_the_model_computes(model_type, padded, monkeypatch):
    """Tokens, and padding too where the model computes it, up to those of `per_gpu_batch_size` full rows."""
    sizes: list[list[int]] = []
    accumulate = loop.accumulate

    def spy(model, batches, *rest):
        sizes.append([int(batch.input_ids.numel() if padded else batch.attention_mask.sum()) for batch in batches])
        return accumulate(model, batches, *rest)

    monkeypatch.setattr(loop, "accumulate", spy)
    config = settings(env__batch_size=16, env__per_gpu_batch_size=4, optim__max_steps=1)
    model = tiny_model(model_type)
    apply_adapters(model, config.optim, seed=0)
    run(config, dataset(16), model)
    [step] = sizes
    assert all(size <= 4 * LONGEST for size in step) and len(step) == (4 if padded else 3)
    assert max(step) > 2 * LONGEST


class TestClipping:
    @pytest.fixture
    def clipped(self, monkeypatch):
        """Gradients as the optimiser meets them."""

        def gradients_of(**optim) -> torch.Tensor:
            config = settings(env__batch_size=8, optim__max_steps=1, **optim)
            model, found = model_for(config), []
            clip = loop.clip

            def spy(accelerator, parameters, settings):
                clip(accelerator, parameters, settings)
                found.append(torch.cat([p.grad.flatten() for p in parameters]))

            monkeypatch.setattr(loop, "clip", spy)
            run(config, dataset(16), model)
            monkeypatch.setattr(loop, "clip", clip)
            return found[0]

        return gradients_of

    def test_norm_and_value(self, clipped):
        free = clipped(optim__gradient_clip_val=0.0)
        assert free.norm() > 0.1
        by_norm = clipped(optim__gradient_clip_val=0.01)
        torch.testing.assert_close(by_norm, free * (0.01 / free.norm()), rtol=1e-3, atol=1e-8)
        by_value = clipped(optim__gradient_clip_val=0.001, optim__gradient_clip_algorithm="value")
        torch.testing.assert_close(by_value, free.clamp(-0.001, 0.001))

    def test_small_gradients_stay(self, clipped):
        free = clipped(optim__gradient_clip_val=0.0)
        assert torch.equal(clipped(optim__gradient_clip_val=1e6), free)


class TestWeightAverage:
    def test_formula(self):
        parameter = torch.nn.Parameter(torch.tensor([1.0]))
        average = WeightAverage([parameter], 0.45)
        expected = 1.0
        for update, value in enumerate([2.0, 5.0, -1.0, 4.0, 8.0], start=1):
            parameter.data.fill_(value)
            average.update()
            decay = min(0.45, (update - 1) / (update + 2))
            expected = decay * expected + (1 - decay) * value
        average.swap()
        assert parameter.item() == pytest.approx(expected)
        average.swap()
        assert parameter.item() == 8.0

    def test_none(self):
        parameter = torch.nn.Parameter(torch.tensor([1.0]))
        average = WeightAverage([parameter], 0.0)
        parameter.data.fill_(3.0)
        average.update()
        average.swap()
        assert parameter.item() == 3.0

    def test_is_what_is_validated_while_training_goes_on_without_it(self):
        plain_config = settings(env__batch_size=8, optim__max_epochs=2, optim__lr=0.05)
        config = settings(env__batch_size=8, optim__max_epochs=2, optim__lr=0.05, optim__ema_decay=0.9)
        plain, _ = run(plain_config, dataset(16))
        model = model_for(config)
        scored: list[dict[str, torch.Tensor]] = []
        run(config, dataset(16), model, lambda: scored.append(trained(model)) or 0.0)
        for name, value in trained(plain).items():
            assert torch.equal(trained(model)[name], value)
        assert not torch.equal(scored[-1]["head.linear.weight"], trained(model)["head.linear.weight"])
