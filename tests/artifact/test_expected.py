"""Tensors are compared with a model that has no memory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from featherfit.artifact import format as files
from featherfit.artifact.expected import check_tensors
from featherfit.artifact.headers import TensorInfo, read_header
from featherfit.checkpoints import resolve_checkpoint
from featherfit.config.dotted import build_config, to_flat
from featherfit.errors import ArtifactError, FeatherfitError


@pytest.fixture
def given(fitted, checkpoint) -> dict[str, Any]:
    """The arguments for a sound artifact."""
    weights = read_header(Path(fitted.path) / files.WEIGHTS)
    config = build_config({**to_flat(fitted._fitted.config), "model.hf_text.pooling_mode": "mean"})
    return {
        "config": config,
        "checkpoint": resolve_checkpoint(str(checkpoint)),
        "parts": {},
        "further": {},
        "outputs": 2,
        "weights": weights,
        "base": {},
        "inside": {},
    }


def test_sound(given):
    check_tensors(**given)


def test_tensors_of_another_model(given):
    weights = given["weights"]
    name = min(weights)
    for changed, reason in (
        ({other: info for other, info in weights.items() if other != name}, f"missing: {name}"),
        ({**weights, "extra": TensorInfo("F32", (1,))}, "unknown: extra"),
        ({**weights, name: TensorInfo("F32", (7,))}, f"of another shape: {name}"),
        ({**weights, name: replace(weights[name], dtype="F16")}, "have to be float32"),
    ):
        with pytest.raises(ArtifactError, match=reason):
            check_tensors(**{**given, "weights": changed})


@pytest.mark.parametrize(
    "flat", [{"optim.peft": "lora", "optim.lora.r": 65_536, "optim.lora.filter": "all-linear"}, {"optim.peft": None}]
)
def test_settings_of_another_model(flat, given):
    """A rank that large would take gigabytes; here it takes nothing, and is refused."""
    with pytest.raises(FeatherfitError, match=r"do not fit this model|more than half"):
        check_tensors(**{**given, "config": build_config({**to_flat(given["config"]), **flat})})


@pytest.mark.parametrize("outputs", [3, 10**6])
def test_a_head_for_other_classes(outputs, given):
    with pytest.raises(ArtifactError, match=r"head\.linear\.weight"):
        check_tensors(**{**given, "outputs": outputs})


def test_an_encoder_larger_than_its_numbers(given):
    checkpoint = given["checkpoint"]
    large = replace(checkpoint, config={**checkpoint.config, "vocab_size": 2_000_000})
    with pytest.raises(
        ArtifactError, match=r"The encoder in the artifact has 5 numbers, but its config\.json speaks of \d"
    ):
        check_tensors(**{**given, "checkpoint": large, "base": {"a": TensorInfo("F32", (5,))}})


def test_an_endless_encoder(given):
    checkpoint = given["checkpoint"]
    endless = replace(checkpoint, config={**checkpoint.config, "num_hidden_layers": 10**7})
    with pytest.raises(FeatherfitError, match="more than 20,000 modules"):
        check_tensors(**{**given, "checkpoint": endless})


def test_sizes_that_no_tensor_can_have(given):
    checkpoint = given["checkpoint"]
    huge = replace(checkpoint, config={**checkpoint.config, "hidden_size": 1 << 60, "num_attention_heads": 1})
    with pytest.raises(FeatherfitError, match="no model there could be|Cannot build"):
        check_tensors(**{**given, "checkpoint": huge})
