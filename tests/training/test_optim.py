"""Learning rates over depth and time, and what decays, against formulas."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from tiny_models import tiny_model

from featherfit.adapters.apply import apply_adapters
from featherfit.config.dotted import build_config
from featherfit.training.optim import build_optimizer, parameter_groups, schedule, warmup_steps

SHAPES = ("cosine_decay", "linear_decay", "polynomial_decay")


class TestSchedule:
    @pytest.mark.parametrize("shape", SHAPES)
    @pytest.mark.parametrize(("total", "warmup"), [(10, 0), (10, 3), (2, 0), (100, 10)])
    def test_from_one_to_end(self, shape, total, warmup):
        """AutoMM's schedule ignores end_lr."""
        factor = schedule(shape, total, warmup, 0.25)
        assert factor(warmup) == pytest.approx(1.0)
        assert factor(total - 1) == pytest.approx(0.25)
        rates = [factor(step) for step in range(warmup, total)]
        assert rates == sorted(rates, reverse=True) and len(set(rates)) == len(rates)

    def test_warm_up_rises_in_equal_parts(self):
        factor = schedule("cosine_decay", 10, 4, 0.0)
        assert [factor(step) for step in range(5)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])

    def test_cosine(self):
        factor = schedule("cosine_decay", 12, 1, 0.1)
        for step in range(1, 12):
            assert factor(step) == pytest.approx(0.1 + 0.9 * (1 + math.cos(math.pi * (step - 1) / 10)) / 2)

    @pytest.mark.parametrize("shape", ["linear_decay", "polynomial_decay"])
    def test_line(self, shape):
        factor = schedule(shape, 12, 1, 0.1)
        for step in range(1, 12):
            assert factor(step) == pytest.approx(1 - 0.9 * (step - 1) / 10)

    def test_constant(self):
        factor = schedule("constant", 6, 2, 0.1)
        assert [factor(step) for step in range(6)] == pytest.approx([1 / 3, 2 / 3, 1, 1, 1, 1])

    def test_one_step(self):
        assert schedule("cosine_decay", 1, 0, 0.0)(0) == 1.0


@pytest.mark.parametrize(
    ("wanted", "total", "steps"),
    [
        (0.1, 50, 5),
        (0.1, 54, 5),
        (0.1, 56, 6),
        (3, 50, 3),
        (0, 50, 0),
        (1, 50, 1),
        (1.0, 50, 49),
        (80, 50, 49),
        (5, 1, 0),
    ],
)
def test_warm_up_steps(wanted, total, steps):
    assert warmup_steps(wanted, total) == steps


def build(model_type: str, **flat):
    config = build_config({key.replace("__", "."): value for key, value in flat.items()})
    model = tiny_model(model_type)
    apply_adapters(model, config.optim, seed=0)
    return model, config


def grouped(model, config) -> Iterator[tuple[str, float, float]]:
    """(name, rate, decay) of every parameter that trains, once each."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    for group in parameter_groups(model, config):
        for parameter in group["params"]:
            yield names[id(parameter)], group["lr"], group["weight_decay"]


@pytest.mark.parametrize("peft", ["ia3_bias", "lora", "norm_fit", None])
def test_groups_hold_what_trains_once(peft):
    model, config = build("bert", optim__peft=peft)
    names = [name for name, _, _ in grouped(model, config)]
    assert sorted(names) == sorted(name for name, p in model.named_parameters() if p.requires_grad)


def depth_of(name: str) -> int:
    """Two layers: head 0, last layer 1, first layer 2, embeddings 3."""
    if name.startswith("head."):
        return 0
    if ".layer.1." in name:
        return 1
    return 2 if ".layer.0." in name else 3


@pytest.mark.parametrize("peft", ["ia3_bias", None])
def test_layerwise_decay(peft):
    model, config = build("bert", optim__peft=peft, optim__lr=0.01, optim__lr_decay=0.5)
    rates = {name: rate for name, rate, _ in grouped(model, config)}
    assert {depth_of(name) for name in rates} == {0, 1, 2, 3}
    for name, rate in rates.items():
        assert rate == pytest.approx(0.01 * 0.5 ** depth_of(name)), name


def test_norm_after_the_layers_has_the_heads_rate():
    model, config = build("t5", optim__lr=0.01, optim__lr_decay=0.5)
    rates = {name: rate for name, rate, _ in grouped(model, config)}
    assert rates["encoder.backbone.encoder.final_layer_norm.weight"] == 0.01 == rates["head.linear.weight"]


def test_two_stages_and_single_stage():
    model, config = build("bert", optim__lr=0.01, optim__lr_choice="two_stages", optim__lr_mult=10.0)
    for name, rate, _ in grouped(model, config):
        assert rate == pytest.approx(0.1 if name.startswith("head.") else 0.01)
    for choice in ("single_stage", ""):
        model, config = build("bert", optim__lr=0.01, optim__lr_choice=choice)
        assert {rate for _, rate, _ in grouped(model, config)} == {0.01}


@pytest.mark.parametrize("peft", ["ia3", "ia3_bias", "lora_norm", "dora", None])
def test_no_decay_on_biases_norms_and_factors(peft):
    model, config = build("bert", optim__peft=peft, optim__weight_decay=0.1)
    for name, _, decay in grouped(model, config):
        last = name.rpartition(".")[2]
        spared = last in ("bias", "vector", "magnitude") or "LayerNorm" in name
        assert decay == (0.0 if spared else 0.1), name
    spared = [decay for _, _, decay in grouped(model, config) if decay == 0.0]
    assert spared and len(spared) < len(list(grouped(model, config)))


@pytest.mark.parametrize("peft", ["ia3_bias", "lora", None])
def test_what_trains_does_not_depend_on_the_rate(peft):
    """AutoMM's `lr_choice` changes what trains."""
    trained = []
    for choice in ("layerwise_decay", "two_stages", "single_stage", ""):
        model, config = build("bert", optim__peft=peft, optim__lr_choice=choice)
        trained.append({name for name, _, _ in grouped(model, config)})
    assert all(names == trained[0] for names in trained)


@pytest.mark.parametrize(
    ("name", "kind"), [("adamw", torch.optim.AdamW), ("adam", torch.optim.Adam), ("sgd", torch.optim.SGD)]
)
def test_optimizers(name, kind):
    model, config = build("bert", optim__optim_type=name)
    optimizer = build_optimizer(model, config)
    assert type(optimizer) is kind
    if name == "sgd":
        assert optimizer.defaults["momentum"] == 0.9
    else:
        assert optimizer.defaults["eps"] == 1e-6 and optimizer.defaults["betas"] == (0.9, 0.999)
