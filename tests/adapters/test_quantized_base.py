"""Every method over weights that are kept as codes: as over a dense encoder of the very same numbers."""

from __future__ import annotations

import warnings

import pytest
import torch
from tiny_models import shaken, tiny_batch, tiny_model
from torch import nn

from featherfit.adapters.apply import apply_adapters, merge_adapters
from featherfit.adapters.base import Adapter
from featherfit.adapters.methods import METHODS
from featherfit.adapters.state import trainable_state
from featherfit.config.schema import LoraConfig, OptimConfig
from featherfit.errors import TargetError
from featherfit.models.build import MultiModalModel
from featherfit.models.linear import freeze_linears
from featherfit.models.quantized import BaseForm, QuantizedLinear, keep_linears

BATCH = tiny_batch()
PRECISIONS = ("bfloat16", "float16", "int8", "int4")
CASES = [
    (model_type, method, precision)
    for model_type in ("bert", "t5")
    for method in METHODS
    for precision in (PRECISIONS if model_type == "bert" else ("int8", "int4"))
]

every_case = pytest.mark.parametrize(("model_type", "method", "precision"), CASES)


def pair(
    model_type: str, precision: str, dtype: torch.dtype = torch.float32
) -> tuple[MultiModalModel, MultiModalModel]:
    """A model whose encoder is kept in codes, and one with the numbers the codes stand for."""
    coded, dense = tiny_model(model_type), tiny_model(model_type)
    keep_linears(coded.encoder.backbone, BaseForm(precision, dtype))
    for path, layer in coded.named_modules():
        if isinstance(layer, QuantizedLinear):
            dense.get_submodule(path).weight.data = layer.dense(torch.float32)
    for model in (coded, dense):
        freeze_linears(model.encoder.backbone)
    return coded, dense


def adapt(model: MultiModalModel, method: str, **more) -> MultiModalModel:
    rank = {"r": 2, "alpha": 4.0} if "r" in METHODS[method].settings else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        filter = "automm" if METHODS[method].adapter is None else "all-linear"
        apply_adapters(model, OptimConfig(peft=method, lora=LoraConfig(filter=filter, **rank), **more), seed=0)
    return shaken(model, 0.1)


@every_case
def test_outputs_and_gradients_are_those_of_the_numbers(model_type, method, precision):
    coded, dense = (adapt(model, method) for model in pair(model_type, precision))
    outputs = [model(BATCH) for model in (coded, dense)]
    torch.testing.assert_close(*outputs, rtol=1e-4, atol=1e-4)
    for output in outputs:
        output.square().sum().backward()
    found, expected = (
        {name: p.grad for name, p in model.named_parameters() if p.requires_grad} for model in (coded, dense)
    )
    assert found.keys() == expected.keys() and all(gradient is not None for gradient in found.values())
    for name, gradient in found.items():
        assert gradient.dtype == torch.float32
        size = float(expected[name].abs().max())
        torch.testing.assert_close(gradient, expected[name], rtol=1e-3, atol=1e-4 * max(size, 1.0), msg=name)


@every_case
def test_what_trains_is_float32_and_codes_do_not_move(model_type, method, precision):
    model = adapt(pair(model_type, precision)[0], method)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert {parameter.dtype for parameter in trained} == {torch.float32}
    optimiser = torch.optim.AdamW(trained, lr=0.1, weight_decay=0.1)
    model.train()(BATCH).square().sum().backward()
    optimiser.step()
    moved = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    assert moved == trainable_state(model).keys()
    assert {state.dtype for held in optimiser.state.values() for state in held.values()} == {torch.float32}


@every_case
def test_merged_equals_unmerged(model_type, method, precision):
    model = adapt(pair(model_type, precision)[0], method)
    with torch.no_grad():
        unmerged = model(BATCH)
        merge_adapters(model)
        assert not any(isinstance(module, Adapter) for module in model.modules())
        torch.testing.assert_close(model(BATCH), unmerged, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("method", [name for name, method in METHODS.items() if method.adapter])
def test_in_bfloat16(method):
    """Products in bfloat16 under autocast, close to those in float32; what is merged is bfloat16 and dense."""
    low, exact = (adapt(pair("bert", "int4", dtype)[0], method) for dtype in (torch.bfloat16, torch.float32))
    for name, adapter in exact.named_modules():
        if not isinstance(adapter, Adapter):
            continue
        narrow = low.get_submodule(name)
        x = torch.randn(2, 5, adapter.base.in_features, generator=torch.Generator().manual_seed(0))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = narrow(x.bfloat16())
        assert y.dtype == torch.bfloat16
        torch.testing.assert_close(y.float(), adapter(x), rtol=0.06, atol=0.06)
        merged = narrow.merged()
        assert type(merged) is nn.Linear and merged.weight.dtype == torch.bfloat16


class TestExtraParameters:
    @pytest.mark.parametrize("pattern", [r".*query\.weight", r"encoder\.layer\.0\..*"])
    def test_codes_cannot_train(self, pattern):
        message = r"extra_trainable_params: .* names \d+ matrices, such as 'encoder\.layer\.0.*base_precision"
        with pytest.raises(TargetError, match=message):
            adapt(pair("bert", "int8")[0], "ia3", extra_trainable_params=[pattern])

    def test_others_can(self):
        model = adapt(pair("bert", "int8")[0], "ia3", extra_trainable_params=[r".*LayerNorm\.weight"])
        assert sum("LayerNorm.weight" in name for name in trainable_state(model)) == 5


def test_more_than_half_is_counted_by_what_codes_stand_for():
    """Two codes share a byte, and the share that trains must not look twice as large for it."""
    model = pair("bert", "int4")[0]
    linears, encoder = 2 * (4 * 32 * 32 + 2 * 32 * 48), sum(p.numel() for p in tiny_model("bert").encoder.parameters())
    rank = 17
    trained = 2 * rank * (4 * 64 + 2 * 80)
    assert trained < 0.5 * (encoder + trained) and trained > 0.5 * (encoder - linears / 2 + trained)
    apply_adapters(model, OptimConfig(peft="lora", lora=LoraConfig(filter="all-linear", r=rank)), seed=0)
