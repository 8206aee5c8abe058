"""Forwards that end before a layer or begin at it, against whole ones, for every family."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tiny_models import TINY, tiny_batch
from torch import nn

from featherfit.adapters.apply import apply_adapters
from featherfit.config.schema import OptimConfig
from featherfit.models.backbone import build_backbone_from_config
from featherfit.models.build import MultiModalModel
from featherfit.models.heads import Head
from featherfit.models.prefix import layers_beneath
from featherfit.models.text import TextEncoder
from featherfit.planning.copies import cut_config

BATCH = tiny_batch()
RUNS_FIRST = {"t5", "mt5"}
"""Whose lowest layer makes the relative positions of all."""


def model_of(model_type: str, top: int, peft: str = "lora_norm", layers: int = 4) -> MultiModalModel:
    """With four layers, of which so many train; ALBERT's are two groups of two."""
    config = cut_config(TINY[model_type], layers)
    if model_type == "albert":
        config["num_hidden_groups"], top = 2, (top + 1) // 2
    with torch.random.fork_rng():
        torch.manual_seed(0)
        backbone = build_backbone_from_config(config)
        for parameter in backbone.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
    encoder = TextEncoder(backbone)
    encoder.disable_dropout()
    model = MultiModalModel(encoder, Head(encoder.out_dim, 3, seed=0)).eval()
    apply_adapters(model, OptimConfig(peft=peft, top_layers=top), seed=0)
    return model


def gradients(model: MultiModalModel, batch) -> dict[str, torch.Tensor]:
    model.zero_grad()
    model.train()(batch).square().sum().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}


def computed(model: MultiModalModel) -> list[int]:
    """Grows by the number of a layer whenever a linear layer in it multiplies."""
    seen: list[int] = []
    for number, layer in enumerate(model.encoder.layers().values()):
        for module in layer.modules():
            if isinstance(module, nn.Linear):
                module.register_forward_hook(lambda *any, number=number: seen.append(number))
    return seen


@pytest.mark.parametrize("top", [1, 2, 3])
@pytest.mark.parametrize("model_type", TINY)
@pytest.mark.filterwarnings("ignore:optim.peft=")
def test_the_same_in_two_parts(model_type, top):
    model = model_of(model_type, top)
    beneath = layers_beneath(model.encoder)
    if model_type == "albert" and top == 3:
        assert beneath == 0
        return
    assert beneath == (1 if model_type == "albert" else 4 - top)
    with torch.no_grad():
        whole = model(BATCH)
        states = model.encoder.below(BATCH, beneath)
    expected = gradients(model, BATCH)
    assert states.shape == (BATCH.attention_mask.sum(), model.encoder.backbone.config.hidden_size)
    given = replace(BATCH, states=states, input_ids=BATCH.input_ids.flip(0))  # which are not read any more
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(given), whole, rtol=0, atol=1e-6)
    for name, gradient in gradients(model, given).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-5, atol=1e-6, msg=name)
    with torch.no_grad():
        assert torch.equal(model.eval()(BATCH), whole)  # nothing is left behind
    assert not any("forward" in layer.__dict__ for layer in model.encoder.layers().values())


@pytest.mark.parametrize("model_type", TINY)
@pytest.mark.filterwarnings("ignore:optim.peft=")
def test_what_is_computed(model_type, monkeypatch):
    model = model_of(model_type, 1)
    beneath, layers = layers_beneath(model.encoder), len(model.encoder.layers())
    seen = computed(model)
    states = model.encoder.below(BATCH, beneath)
    assert set(seen) == set(range(beneath))
    seen.clear()
    words = model.encoder.backbone.get_input_embeddings()
    monkeypatch.setattr(
        type(words),
        "forward",
        lambda table, ids: pytest.fail("looked up") if table is words else nn.functional.embedding(ids, table.weight),
    )
    model(replace(BATCH, states=states))
    assert set(seen) == {*range(beneath, layers), *([0] if model_type in RUNS_FIRST else [])}


@pytest.mark.parametrize("model_type", ["xlm-roberta", "deberta-v2", "t5", "llama"])
@pytest.mark.filterwarnings("ignore:optim.peft=")
def test_with_activations_recomputed(model_type):
    model = model_of(model_type, 2)
    states = model.encoder.below(BATCH, 2)
    expected = gradients(model, BATCH)
    model.encoder.enable_gradient_checkpointing()
    own = [layer.forward for layer in model.encoder.layers().values()]
    found = gradients(model, replace(BATCH, states=states))
    assert [layer.forward for layer in model.encoder.layers().values()] == own
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-5, atol=1e-6, msg=name)


def test_a_forward_that_fails_leaves_the_layers_as_they_were():
    model = model_of("bert", 1)
    states = model.encoder.below(BATCH, 3)
    with pytest.raises(IndexError):
        model(replace(BATCH, states=states[:5]))
    layers = list(model.encoder.layers().values())
    with pytest.raises(RuntimeError):
        model(replace(BATCH, states=states[:, :7]))
    for layer in layers:
        assert "forward" not in layer.__dict__ and not layer._forward_pre_hooks and not layer._forward_hooks


@pytest.mark.parametrize(
    ("peft", "top", "beneath"), [("lora", None, 0), ("ia3_bias", None, 0), ("bit_fit", 1, 3), ("lora", 4, 0)]
)
def test_how_many_lie_beneath(peft, top, beneath):
    assert layers_beneath(model_of("bert", top, peft).encoder) == beneath


def test_a_head_alone_leaves_the_top_layer():
    model = model_of("bert", 1)
    model.encoder.requires_grad_(False)
    assert layers_beneath(model.encoder) == 3
