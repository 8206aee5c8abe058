"""Trained parameters out and in: exact sets, exact shapes, all or nothing."""

from __future__ import annotations

import pytest
import torch
from tiny_models import tiny_model

from featherfit.adapters.apply import apply_adapters
from featherfit.adapters.state import load_trainable_state, trainable_state
from featherfit.config.schema import OptimConfig
from featherfit.errors import ArtifactError


def adapted():
    model = tiny_model("bert")
    apply_adapters(model, OptimConfig(peft="ia3_bias"), seed=0)
    return model


def test_state_is_what_trains_and_a_copy():
    model = adapted()
    state = trainable_state(model)
    assert set(state) == {name for name, p in model.named_parameters() if p.requires_grad}
    state["head.linear.bias"] += 1
    assert model.head.linear.bias.abs().max() == 0


def test_all_differences_are_listed_and_nothing_is_changed():
    model = adapted()
    before = trainable_state(model)
    state = {name: tensor + 1 for name, tensor in before.items()}
    query = "encoder.backbone.encoder.layer.0.attention.self.query"
    del state[f"{query}.vector"]
    state[f"{query}.lora_a"] = torch.zeros(2, 32)
    state["head.linear.weight"] = torch.zeros(5, 32)
    with pytest.raises(ArtifactError) as caught:
        load_trainable_state(model, state)
    assert str(caught.value) == (
        f"The trained weights do not fit this model. missing: {query}.vector; unknown: {query}.lora_a; "
        "of another shape: head.linear.weight (5, 32) instead of (3, 32)."
    )
    assert all(torch.equal(tensor, before[name]) for name, tensor in trainable_state(model).items())


def test_loading_replaces_every_number():
    model = adapted()
    state = {name: torch.full_like(tensor, 2.5) for name, tensor in trainable_state(model).items()}
    load_trainable_state(model, state)
    assert all((tensor == 2.5).all() for tensor in trainable_state(model).values())
