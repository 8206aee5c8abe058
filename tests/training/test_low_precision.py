"""Training with frozen bfloat16 weights against training in float32, on a tiny model, as a fit prepares it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from tiny_models import tiny_model
from torch import nn

from featherfit.artifact.fitted import prepare
from featherfit.config.dotted import build_config
from featherfit.data.dataset import Dataset
from featherfit.data.processors.text import TokenizedRows
from featherfit.models.build import MultiModalModel
from featherfit.models.linear import FrozenLinear
from featherfit.training.device import Device
from featherfit.training.loop import make_plan, train
from featherfit.training.losses import Objective

STEPS = 20
OBJECTIVE = Objective("cross_entropy", "binary", 2)


def learnable(rows: int = 64) -> Dataset:
    """Rows whose class is whether token 7 or token 8 is in them."""
    random = np.random.default_rng(0)
    labels = (np.arange(rows) % 2).astype(np.int64)
    ids = [random.integers(10, 50, size=random.integers(3, 20)).astype(np.int32) for _ in range(rows)]
    for row, label in zip(ids, labels, strict=True):
        row[1:3] = 7 + label
    lengths = np.array([len(row) for row in ids], dtype=np.int64)
    return Dataset(TokenizedRows(ids, None, lengths, 0), labels, None, pd.RangeIndex(rows))


def prepared(precision: str, peft: str | None, model_type: str = "bert") -> tuple[MultiModalModel, Device]:
    device = Device(torch.device("cpu"), precision)
    config = build_config({"optim.peft": peft, "model.hf_text.dropout": "off"})  # which would draw differently
    return prepare(tiny_model(model_type, outputs=2), config, 0, device), device


RATES = {"ia3": 0.03, "lora": 0.01, "ia3_lora": 0.01, None: 0.002}


def losses(precision: str, peft: str | None, model_type: str, seed: int = 0) -> np.ndarray:
    model, device = prepared(precision, peft, model_type)
    flat = {"optim.peft": peft, "optim.lr": RATES[peft], "env.batch_size": 16, "optim.max_steps": STEPS}
    config = build_config({**flat, "optim.skip_final_val": True, "optim.val_check_interval": 1000.0})
    data = learnable()
    plan = make_plan(len(data), config)
    reports = train(
        model, data, plan, config,
        objective=OBJECTIVE, pad_id=0, longest=20, device=device, evaluate=lambda: 0.0, seed=seed,
    )  # fmt: skip
    return np.array([report.loss for report in reports])


@pytest.mark.parametrize("model_type", ["bert", "llama", "mpnet"])
@pytest.mark.parametrize("peft", RATES)
def test_training_is_the_same_within_noise(peft, model_type):
    exact, low = losses("no", peft, model_type), losses("bf16", peft, model_type)
    other = losses("no", peft, model_type, seed=1)
    assert len(exact) == STEPS and exact[-5:].mean() < 0.8 * exact[:5].mean()  # there is something to learn
    assert not np.array_equal(low, exact)
    assert np.abs(low - exact).max() < 0.06
    assert (
        np.abs(low - exact).mean() < 0.25 * np.abs(other - exact).mean()
    )  # another order of rows does four times more


def test_an_artifact_of_one_model_under_both_arithmetics():
    """Embeddings differ by bfloat16's rounding and no more."""
    data = learnable(8)
    from featherfit.evaluation.outputs import model_outputs

    outs = []
    for precision in ("no", "bf16"):
        model, device = prepared(precision, "lora")
        outs.append(model_outputs(model, data, tokens=100, pad_id=0, device=device, embeddings=True))
    scale = np.abs(outs[0]).max()
    assert 0 < np.abs(outs[1] - outs[0]).max() < 0.05 * scale


class TestPrepare:
    def test_adapters_on_low_precision(self):
        model, _ = prepared("bf16", "ia3_bias")
        kinds = {type(module) for module in model.encoder.modules() if isinstance(module, nn.Linear)}
        assert kinds == {FrozenLinear}
        linears = [module for module in model.encoder.modules() if isinstance(module, nn.Linear)]
        assert {module.weight.dtype for module in linears} == {torch.bfloat16}
        assert {p.dtype for p in model.encoder.parameters() if p.dim() == 1} == {torch.float32}
        assert {p.dtype for p in model.head.parameters()} == {torch.float32} and not model.training

    def test_adapters_in_float32(self):
        model, _ = prepared("no", "ia3_bias")
        assert {p.dtype for p in model.parameters()} == {torch.float32}
        assert FrozenLinear in {type(module) for module in model.encoder.modules()}

    def test_without_adapters_everything_trains_as_it_is(self):
        model, _ = prepared("bf16", None)
        assert {(p.requires_grad, p.dtype) for p in model.parameters()} == {(True, torch.float32)}
        assert {type(m) for m in model.encoder.modules() if isinstance(m, nn.Linear)} == {nn.Linear}

    def test_dropout(self):
        def rates(**flat) -> set[float]:
            config = build_config({key.replace("__", "."): value for key, value in flat.items()})
            device = Device(torch.device("cpu"), "no")
            model = prepare(tiny_model("bert"), config, 0, device)
            return {m.p for m in model.encoder.modules() if isinstance(m, nn.Dropout)}

        assert rates() == {0.0} and rates(optim__peft=None) == {0.1}
        assert rates(model__hf_text__dropout="on") == {0.1}
        assert rates(optim__peft=None, model__hf_text__dropout="off") == {0.0}


@pytest.mark.parametrize(
    ("kind", "training", "rows", "longest", "tokens"),
    [
        ("cpu", True, 4, 512, 1280),
        ("cpu", True, 8, 512, 1280),
        ("cpu", True, 32, 512, 5120),
        ("cpu", True, 32, 20, 640),
        ("cpu", True, "auto", 512, 1280),  # more only as planned
        ("cpu", False, 4, 2048, 2048),
        ("cpu", False, 64, 512, 2048),
        ("cpu", False, 5, 20, 50),
        ("cuda", True, 4, 2048, 8192),
        ("cuda", True, 64, 512, 32_768),
        ("cuda", False, 4, 512, 1024),
    ],
)
def test_tokens_of_a_forward(kind, training, rows, longest, tokens):
    device = dataclasses.replace(Device(torch.device("cpu"), "no"), place=torch.device(kind))
    config = build_config({"env.per_gpu_batch_size": rows, "env.inference_batch_size_ratio": 0.5})
    assert device.tokens_per_forward(config, longest, training=training) == tokens
    config = build_config({"env.per_gpu_batch_size": 1, "env.inference_batch_size_ratio": 0.001})
    assert device.tokens_per_forward(config, 20, training=False) == 1
