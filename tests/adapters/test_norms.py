"""`is_norm` judges by behaviour; class names serve as the oracle, and impostors show that names do not decide."""

from __future__ import annotations

import pytest
import torch
from tiny_models import TINY, tiny_backbone
from torch import nn

from featherfit.adapters.ia3 import IA3
from featherfit.adapters.norms import is_norm, norm_parameters
from featherfit.models.backbone import build_backbone_from_config


class LayerNorm(nn.Module):
    """Called a norm, and only scales."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(8))

    def forward(self, x):
        return x * self.weight


class Shift(nn.Module):
    def __init__(self):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(8))

    def forward(self, x):
        return x + self.bias


class Constant(nn.Module):
    """Ignores its input altogether, its scale included."""

    def __init__(self):
        super().__init__()
        self.token = nn.Parameter(torch.zeros(8))

    def forward(self, x):
        return self.token.expand_as(x)


class Unassuming(nn.Module):
    """An RMS norm by another name, stored as 1 + w as Gemma does."""

    def __init__(self):
        super().__init__()
        self.offset = nn.Parameter(torch.zeros(8))

    def forward(self, x):
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) * (1 + self.offset)


@pytest.mark.parametrize(
    "module",
    [nn.LayerNorm(8), nn.LayerNorm(8, bias=False), nn.GroupNorm(2, 8), nn.BatchNorm1d(8), nn.BatchNorm2d(8)]
    + [nn.RMSNorm(8), nn.LayerNorm(8, device="meta"), nn.LayerNorm(8, dtype=torch.bfloat16), Unassuming()],
)
def test_norms(module):
    before = {name: parameter.clone() for name, parameter in module.state_dict().items()}
    assert is_norm(module)
    for name, parameter in module.state_dict().items():
        assert parameter.device.type == "meta" or torch.equal(parameter, before[name])


@pytest.mark.parametrize(
    "module",
    [
        nn.Linear(8, 8),
        nn.Linear(1, 1),
        nn.Embedding(8, 8),
        nn.PReLU(8),
        nn.Dropout(),
        nn.Identity(),
        IA3(nn.Linear(8, 8)),
    ]
    + [nn.LayerNorm(8, elementwise_affine=False), nn.Sequential(nn.LayerNorm(8)), LayerNorm(), Shift(), Constant()],
)
def test_others(module):
    assert not is_norm(module)


@pytest.mark.parametrize("model_type", TINY)
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_finds_exactly_the_norms_of_every_family(model_type, device):
    backbone = (
        tiny_backbone(model_type) if device == "cpu" else build_backbone_from_config(TINY[model_type], device=device)
    )
    named = {name for name, module in backbone.named_modules() if "Norm" in type(module).__name__}
    assert {name for name, module in backbone.named_modules() if is_norm(module)} == named
    parameters = norm_parameters(backbone)
    assert len(named) >= 3
    assert {name.rpartition(".")[0] for name in parameters} == named
    assert {id(p) for p in parameters.values()} == {
        id(p) for name in named for p in backbone.get_submodule(name).parameters()
    }
