"""Fits over an encoder in low precision: what is kept, the round trip, int8 on top, and what is refused."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from tiny_checkpoints import quick_fit, reviews, same, weights, write_checkpoint
from tiny_models import TINY
from torch import nn

from featherfit import MultiModalPredictor
from featherfit.errors import ConfigError, TargetError
from featherfit.inference.int8 import multiplies_int8
from featherfit.models.linear import FrozenLinear
from featherfit.models.quantized import QuantizedLinear

KEY = "model.hf_text.base_precision"
CASES = [(kind, "32") for kind in ("bfloat16", "int8", "int4")] + [
    ("int8", "bf16"),
    ("int4", "bf16"),
    ("float32", "bf16"),
]


def linears(predictor: MultiModalPredictor) -> list[nn.Linear]:
    return [module for module in predictor._fitted.model.encoder.modules() if isinstance(module, nn.Linear)]


def fit(checkpoint: Path, path: Path, precision: str, **more) -> MultiModalPredictor:
    return quick_fit(checkpoint, path, hyperparameters={KEY: precision, **more})


@pytest.mark.parametrize("peft", ["ia3_bias", "lora", "dora"])
@pytest.mark.parametrize(("precision", "products"), CASES)
def test_round_trip(checkpoint, tmp_path, precision, products, peft):
    """Loaded, it predicts the same to the bit: the checkpoint is rounded to the same codes again."""
    fitted = fit(checkpoint, tmp_path / "a", precision, **{"env.precision": products, "optim.peft": peft})
    layers = linears(fitted)
    assert layers and all(isinstance(layer, QuantizedLinear) and layer.precision == precision for layer in layers)
    assert {layer.dtype for layer in layers} == {torch.bfloat16 if products == "bf16" else torch.float32}
    loaded = MultiModalPredictor.load(tmp_path / "a", verbosity=0)
    assert same(weights(loaded), weights(fitted))
    for one, other in zip(layers, linears(loaded), strict=True):
        assert (one.scales is None and other.scales is None) or torch.equal(one.scales, other.scales)
    new = reviews(20, seed=5)
    pd.testing.assert_frame_equal(loaded.predict_proba(new), fitted.predict_proba(new), check_exact=True)
    if peft != "ia3_bias":  # factors alone learn too little from a random encoder of this size
        assert loaded.evaluate(new)["roc_auc"] > 0.9  # there is something to learn, and it was learnt


def test_standalone(checkpoint, tmp_path):
    """The artifact holds the checkpoint as it was, and rounds it when it is loaded."""
    fitted = fit(checkpoint, tmp_path / "a", "int4")
    fitted.save(tmp_path / "alone", standalone=True)
    loaded = MultiModalPredictor.load(tmp_path / "alone", verbosity=0)
    assert all(layer.precision == "int4" for layer in linears(loaded))
    new = reviews(20, seed=5)
    pd.testing.assert_frame_equal(loaded.predict_proba(new), fitted.predict_proba(new), check_exact=True)


@pytest.mark.parametrize(
    ("precision", "products"), [("auto", "32"), ("auto", "bf16"), ("float32", "32"), ("bfloat16", "bf16")]
)
def test_the_type_of_the_products_is_kept_as_ever(checkpoint, tmp_path, precision, products):
    fitted = fit(checkpoint, tmp_path / "a", precision, **{"env.precision": products})
    assert {type(layer) for layer in linears(fitted)} == {FrozenLinear}
    plain = quick_fit(checkpoint, tmp_path / "b", hyperparameters={"env.precision": products})
    assert same(weights(plain), weights(fitted))


def test_numbers_count_as_they_did(checkpoint, tmp_path, fitted):
    low = fit(checkpoint, tmp_path / "a", "int4")
    assert low.total_parameters == fitted.total_parameters and low.trainable_parameters == fitted.trainable_parameters
    assert low.model_size < fitted.model_size


@pytest.mark.parametrize("model_type", ["t5", "deberta-v2", "modernbert", "llama", "albert"])
@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_other_families(tmp_path, model_type, precision):
    more = {"model.hf_text.gradient_checkpointing": model_type == "t5", "optim.peft": "ia3_lora_norm"}
    fitted = fit(write_checkpoint(tmp_path / "checkpoint", model_type), tmp_path / "a", precision, **more)
    loaded = MultiModalPredictor.load(tmp_path / "a", verbosity=0)
    new = reviews(6, seed=5)
    pd.testing.assert_frame_equal(loaded.predict_proba(new), fitted.predict_proba(new), check_exact=True)


@pytest.mark.skipif(not multiplies_int8(), reason="this torch has no int8 products")
@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_int8_for_inference_on_top(checkpoint, tmp_path, precision):
    fitted = fit(checkpoint, tmp_path / "a", precision)
    new = reviews(30, seed=5)
    before = fitted.predict_proba(new, as_pandas=False)
    fitted.optimize_for_inference(precision="int8", data=new, max_loss=0.5)
    after = fitted.predict_proba(new, as_pandas=False)
    assert 0 < abs(after - before).max() < 0.1
    fitted.optimize_for_inference(precision=None)
    assert (fitted.predict_proba(new, as_pandas=False) == before).all()


class TestRefusals:
    def test_a_second_fit_cannot_change_it(self, checkpoint, tmp_path):
        fitted = fit(checkpoint, tmp_path / "a", "int8")
        with pytest.raises(
            ConfigError, match=rf"{re.escape(KEY)} was 'int8' in the first fit and cannot become 'int4'"
        ):
            fitted.fit(reviews(), hyperparameters={KEY: "int4"})

    def test_matrices_that_are_to_train(self, checkpoint, tmp_path):
        more = {"optim.extra_trainable_params": [r".*layer\.1\..*"]}
        with pytest.raises(TargetError, match=r"extra_trainable_params.*base_precision"):
            fit(checkpoint, tmp_path / "a", "int8", **more)

    def test_float16_on_a_cpu(self, checkpoint, tmp_path):
        with pytest.raises(ConfigError) as caught:
            fit(checkpoint, tmp_path / "a", "float16", **{"env.accelerator": "cpu", "env.precision": "16"})
        problems = caught.value.problems
        assert len(problems) == 2 and "env.precision='16'" in problems[0] and f"{KEY}='float16'" in problems[1]
        assert all("is not possible on a CPU" in problem for problem in problems)


LOADING = """
import json, sys, torch
from pathlib import Path
from featherfit.checkpoints.resolve import resolve_checkpoint
from featherfit.models.backbone import build_backbone
from featherfit.models.quantized import BaseForm, QuantizedLinear
import transformers.models.bert.modeling_bert, safetensors.torch

def status(key):
    line = next(l for l in Path("/proc/self/status").read_text().splitlines() if l.startswith(key))
    return int(line.split()[1]) * 1024

small, large = (resolve_checkpoint(folder) for folder in sys.argv[1:3])
form = BaseForm(sys.argv[3], torch.float32)
build_backbone(small, form=form, mapped=True)  # what is imported and compiled counts for no model
before = status("VmRSS")
model = build_backbone(large, form=form, mapped=True)
kept = sum(m.kept_bytes for m in model.modules() if isinstance(m, QuantizedLinear))
print(json.dumps([before, status("VmHWM"), kept]))
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is read from /proc")
@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_loading_needs_little_more_than_what_is_kept(tmp_path, monkeypatch, precision):
    """270 MB of weights in float32 in the file; never more of them in memory than one matrix beside the codes."""
    monkeypatch.setitem(
        TINY, "bert", {**TINY["bert"], "hidden_size": 1024, "intermediate_size": 2048, "num_hidden_layers": 8}
    )
    large = write_checkpoint(tmp_path / "large")
    monkeypatch.undo()
    small = write_checkpoint(tmp_path / "small")
    command = [sys.executable, "-c", LOADING, str(small), str(large), precision]
    before, peak, kept = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert kept > 35e6  # 67 million weights
    assert peak - before < 1.2 * kept + 30e6
