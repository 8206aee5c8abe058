"""Architectures that are not listed: taken apart where that is possible, refused where it is not."""

from __future__ import annotations

import pytest
import torch
from tiny_models import UNLISTED, tiny_batch
from torch import nn

from featherfit.adapters.apply import apply_adapters
from featherfit.config.schema import LoraConfig, OptimConfig
from featherfit.errors import CheckpointError, TargetError
from featherfit.models.backbone import build_backbone_from_config
from featherfit.models.build import MultiModalModel
from featherfit.models.heads import Head
from featherfit.models.text import TextEncoder


def encoder_of(model_type: str) -> TextEncoder:
    torch.manual_seed(0)
    return TextEncoder(build_backbone_from_config({"model_type": model_type, **UNLISTED[model_type]}))


@pytest.mark.parametrize(
    ("model_type", "layers", "final_norm"),
    [("gpt2", "h", "ln_f"), ("longformer", "encoder.layer", None), ("ernie", "encoder.layer", None)]
    + [("olmo2", "layers", "norm")],
)
def test_layers_and_depths(model_type, layers, final_norm):
    encoder = encoder_of(model_type)
    assert (encoder.family.layers, encoder.family.final_norm) == (layers, final_norm)
    assert encoder.pooling == "mean"
    ids = encoder.layer_ids()
    assert {depth for name, depth in ids.items() if name.startswith(f"backbone.{layers}.1.")} == {1}
    assert {depth for name, depth in ids.items() if name.startswith(f"backbone.{layers}.0.")} == {2}
    assert {depth for name, depth in ids.items() if final_norm and name.startswith(f"backbone.{final_norm}.")} <= {0}
    assert max(ids.values()) == 3
    assert encoder(tiny_batch()).shape == (3, 32)


def targets(model_type: str, filter: str) -> list[str]:
    encoder = encoder_of(model_type)
    model = MultiModalModel(encoder, Head(32, 2, seed=0))
    return apply_adapters(model, OptimConfig(peft="ia3", lora=LoraConfig(filter=filter)), seed=0).targets


def test_named_sets_that_need_no_names():
    relative = ("query", "value", "query_global", "value_global")
    assert targets("longformer", "automm") == [
        f"encoder.layer.{index}.attention.self.{name}" for index in (0, 1) for name in relative
    ]
    assert len(targets("ernie", "all-linear")) == 2 * 6
    assert len(targets("olmo2", "all-linear")) == 2 * 7


@pytest.mark.parametrize(
    ("model_type", "filter", "candidates"),
    [
        ("ernie", "paper", r"query \(x2\), .*Named sets: automm, all-linear\."),
        ("olmo2", "automm", r"q_proj \(x2\), .*Named sets: all-linear\."),
        ("gpt2", "all-linear", r"own name: none\."),
    ],
)
def test_sets_that_are_empty(model_type, filter, candidates):
    with pytest.raises(TargetError, match=rf"the set '{filter}' is empty for this model\. .*{candidates}"):
        targets(model_type, filter)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "bart"}, "'bart' is an encoder-decoder"),
        ({"model_type": "clip"}, "is no text encoder"),
        ({"model_type": "gemma3"}, "is no text encoder"),
        ({"model_type": "vit", **UNLISTED["ernie"]}, "is no text encoder"),
        ({"model_type": "brand_new"}, "`model_type` 'brand_new', which transformers .* does not know"),
        ({}, "`model_type` None"),
    ],
)
def test_refused(config, message):
    with pytest.raises(CheckpointError, match=f"{message}.* Known model types: bert, "):
        TextEncoder(build_backbone_from_config(config, device="meta"))


def test_two_stacks_are_ambiguous():
    backbone = build_backbone_from_config({"model_type": "ernie", **UNLISTED["ernie"]})
    backbone.encoder.other = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])
    with pytest.raises(CheckpointError, match="it has 2 stacks of 2 layers instead of one"):
        TextEncoder(backbone)
