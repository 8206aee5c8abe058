"""What every method has to keep on every family: the start, what moves, the round trip, the merge."""

from __future__ import annotations

import warnings

import pytest
import torch
from tiny_models import TINY, shaken, tiny_batch, tiny_model
from tiny_vision import TINY_VISION, image_batch, tiny_vision_model

from featherfit.adapters.apply import apply_adapters, merge_adapters
from featherfit.adapters.base import Adapter
from featherfit.adapters.methods import METHODS
from featherfit.adapters.state import load_trainable_state, trainable_state
from featherfit.config.schema import PEFT_METHODS, LoraConfig, OptimConfig
from featherfit.errors import TargetError
from featherfit.models.build import MultiModalModel
from featherfit.types import Batch

WITHOUT_BIAS = {"modernbert", "eurobert", "llama", "mistral", "qwen3", "gemma", "gemma2", "gemma3_text", "smollm3"}
BIAS_FIT = {(model_type, "bit_fit") for model_type in WITHOUT_BIAS}
CASES = [
    (model_type, method, "automm") for model_type in TINY for method in METHODS if (model_type, method) not in BIAS_FIT
]
CASES += [(model_type, method, "paper") for model_type in TINY for method in ("ia3", "ia3_lora")]
# One of each pair that transformers builds of the same modules; every method on one family of each kind, and a method of each
# kind on every family.
VISION = [name for name in TINY_VISION if name not in ("deit", "dinov2_with_registers", "mobilenet_v1")]
KINDS = ("vit", "swin", "convnext", "efficientnet")
CASES += [
    (model_type, method, "automm")
    for model_type in VISION
    for method in (METHODS if model_type in KINDS else ("norm_fit", "lora_bias", "ia3_bias", "dora"))
]
CASES += [
    (model_type, method, filter)
    for model_type in VISION
    for method, filter in (("ia3", "paper"), ("lora", "all-linear"))
]
BATCHES = {"text": tiny_batch(), "image": image_batch()}

every_case = pytest.mark.parametrize(("model_type", "method", "filter"), CASES)


def plain(model_type: str) -> MultiModalModel:
    return tiny_vision_model(model_type) if model_type in TINY_VISION else tiny_model(model_type)


def batch_of(model_type: str) -> Batch:
    return BATCHES["image" if model_type in TINY_VISION else "text"]


def adapted(model_type: str, method: str, filter: str = "automm") -> MultiModalModel:
    model = plain(model_type)
    for encoder in model.pretrained().values():
        encoder.disable_dropout()
    lora = LoraConfig(filter=filter, r=2, alpha=4) if "r" in METHODS[method].settings else LoraConfig(filter=filter)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what notes say is tested in test_apply_adapters.py
        apply_adapters(model, OptimConfig(peft=method, lora=lora), seed=0)
    return model


def test_the_table_of_methods_is_the_one_the_settings_allow():
    assert tuple(METHODS) == PEFT_METHODS


@every_case
def test_starts_as_the_identity(model_type, method, filter):
    with torch.no_grad():
        batch = batch_of(model_type)
        before = plain(model_type)(batch)
        torch.testing.assert_close(adapted(model_type, method, filter)(batch), before, rtol=1e-6, atol=2e-6)


@every_case
def test_a_step_moves_what_is_its_own_and_nothing_else(model_type, method, filter):
    model = adapted(model_type, method, filter)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    own = trainable_state(model).keys()
    # Decay is on, so that parameters whose gradient happens to be zero (LoRA's A at the start) move as well.
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1)
    model.train()(batch_of(model_type)).square().sum().backward()
    optimiser.step()
    moved = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    assert moved == own
    for name, module in model.named_modules():
        if isinstance(module, Adapter):
            assert {f"{name}.{key}" for key, _ in module.named_parameters(recurse=False)} <= own
            assert f"{name}.base.weight" not in own
            assert (f"{name}.base.bias" in own) == (METHODS[method].biases and module.bias is not None)


@every_case
def test_trained_state_goes_into_a_fresh_model(model_type, method, filter):
    trained, fresh = shaken(adapted(model_type, method, filter)), adapted(model_type, method, filter)
    batch = batch_of(model_type)
    with torch.no_grad():
        assert not torch.equal(fresh(batch), trained(batch))
        load_trainable_state(fresh, trainable_state(trained))
        torch.testing.assert_close(fresh(batch), trained(batch), rtol=0, atol=2e-6)


@every_case
def test_merged_equals_unmerged(model_type, method, filter):
    model = shaken(adapted(model_type, method, filter))
    batch = batch_of(model_type)
    with torch.no_grad():
        unmerged = model(batch)
        merge_adapters(model)
        assert not any(isinstance(module, Adapter) for module in model.modules())
        loose = 1e-3 if model_type == "mobilenet_v2" else 1e-4  # whose sixteen layers make much of rounding
        scale = unmerged.abs().max().clamp(min=1)
        torch.testing.assert_close(model(batch) / scale, unmerged / scale, rtol=loose, atol=loose)


@pytest.mark.parametrize("model_type", sorted(WITHOUT_BIAS))
def test_bit_fit_without_biases_is_refused(model_type):
    with pytest.raises(TargetError, match="'bit_fit' trains biases, and this model has none"):
        adapted(model_type, "bit_fit")


@pytest.mark.parametrize("method", [name for name, method in METHODS.items() if method.adapter])
@pytest.mark.parametrize("filter", ["automm", "paper"])
def test_arithmetic_on_a_low_precision_base(method, filter):
    """Float32 adapters on bfloat16 layers give bfloat16, close to the float32 result; so does autocast."""
    exact, low = shaken(adapted("bert", method, filter)), shaken(adapted("bert", method, filter))
    adapters = {name: module for name, module in exact.named_modules() if isinstance(module, Adapter)}
    for name, wide in adapters.items():
        narrow = low.get_submodule(name)
        narrow.base.bfloat16()
        x = torch.randn(2, 5, wide.base.in_features, generator=torch.Generator().manual_seed(0))
        y = wide(x)
        out = narrow(x.bfloat16())
        with torch.autocast("cpu", dtype=torch.bfloat16):
            under_autocast = wide(x)
        assert out.dtype == under_autocast.dtype == torch.bfloat16
        torch.testing.assert_close(out.float(), y, rtol=0.05, atol=0.05)
        torch.testing.assert_close(under_autocast.float(), y, rtol=0.05, atol=0.05)
        merged = narrow.merged()
        assert merged.weight.dtype == torch.bfloat16
        torch.testing.assert_close(merged(x.bfloat16()).float(), y, rtol=0.05, atol=0.05)
