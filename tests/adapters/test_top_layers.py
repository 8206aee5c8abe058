"""`optim.top_layers`: what trains is what would train without it, of the topmost layers alone."""

from __future__ import annotations

import warnings
from types import SimpleNamespace

import pytest
import torch
from tiny_models import TINY, tiny_batch, tiny_model
from tiny_vision import TINY_VISION, tiny_vision_model

from featherfit.adapters.apply import apply_adapters
from featherfit.adapters.state import trainable_state
from featherfit.adapters.targets import layers_on_top
from featherfit.config.dotted import build_config
from featherfit.config.resolve import resolve_config
from featherfit.config.schema import LoraConfig, OptimConfig
from featherfit.errors import ConfigError, TargetError
from featherfit.models.build import MultiModalModel

METHODS = ("lora", "ia3_bias", "lora_norm", "norm_fit")


def trains(model: MultiModalModel, peft: str, top: float | None, **lora) -> set[str]:
    optim = OptimConfig(peft=peft, top_layers=top, lora=LoraConfig(**lora))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of models without biases
        apply_adapters(model, optim, seed=0)
    return set(trainable_state(model))


@pytest.mark.parametrize("peft", METHODS)
@pytest.mark.parametrize("model_type", TINY)
def test_the_top_layer_of_every_family(model_type, peft):
    """What lies in the layer, the norm after it, and the head; not the embeddings, nor the tables that feed all layers."""
    everything, model = trains(tiny_model(model_type), peft, None), tiny_model(model_type)
    family, layers = model.encoder.family, list(model.encoder.layers())
    found = trains(model, peft, 1)
    after = () if family.final_norm is None else (f"encoder.backbone.{family.final_norm}.",)
    top = ("head.", f"encoder.backbone.{layers[-1]}.", *after)
    assert found == {name for name in everything if name.startswith(top)}
    assert any(name.startswith(top[1]) for name in found)
    assert model_type == "albert" or found < everything  # whose two layers are one


@pytest.mark.parametrize("model_type", TINY)
def test_all_layers_leave_out_what_they_are_fed_from(model_type):
    model = tiny_model(model_type)
    layers = len(model.encoder.layers())
    everything, found = trains(tiny_model(model_type), "lora_norm", None), trains(model, "lora_norm", layers)
    ids = tiny_model(model_type).encoder.layer_ids()
    embeddings = {f"encoder.{name}" for name, depth in ids.items() if depth > layers}
    assert found == everything - embeddings


@pytest.mark.parametrize("model_type", TINY_VISION)
def test_images(model_type):
    model = tiny_vision_model(model_type)
    (encoder,) = model.pretrained().values()
    lowest = tuple(f"others.timm_image.backbone.{name}." for name in list(encoder.layers())[:-1])
    found = trains(model, "lora_norm", 1, filter="all-linear", r=2)
    assert found and not any(name.startswith(lowest) for name in found)


def test_gradients_stay_above():
    model = tiny_model("bert")
    trains(model, "lora_norm", 1)
    seen = []
    first, second = model.encoder.layers().values()
    first.register_forward_hook(lambda module, args, output: seen.append(output.requires_grad))
    second.register_forward_hook(lambda module, args, output: seen.append(output.requires_grad))
    model.train()(tiny_batch()).sum().backward()
    assert seen == [False, True]
    assert all((p.grad is not None) == p.requires_grad for p in model.parameters())


def test_seeds_give_the_same_adapters_whatever_lies_beneath():
    one, other = tiny_model("bert"), tiny_model("bert")
    trains(one, "lora", 1)
    trains(other, "lora", 1)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_too_many_layers():
    told = r"optim.top_layers=3: there are not so many layers .* hf_text has 2\. Allowed: 1 to 2, a share"
    with pytest.raises(TargetError, match=told):
        trains(tiny_model("bert"), "lora", 3)
    with pytest.raises(TargetError, match=r"hf_text has 1\. Allowed: 1 to 1"):
        trains(tiny_model("albert"), "lora", 2)


def test_filters_that_select_beneath():
    told = r"optim.top_layers=1: the filters select nothing in the topmost 1 of 2 layers, only 'encoder.layer.0.*value'"
    with pytest.raises(TargetError, match=told):
        trains(tiny_model("bert"), "lora", 1, module_filter=[r".*layer\.0\."])


def test_extra_parameters_train_wherever_they_are():
    model = tiny_model("bert")
    optim = OptimConfig(peft="lora", top_layers=1, extra_trainable_params=[r"embeddings\.LayerNorm"])
    apply_adapters(model, optim, seed=0)
    assert "encoder.backbone.embeddings.LayerNorm.weight" in trainable_state(model)


@pytest.mark.parametrize(("share", "count"), [(1e-9, 1), (0.5, 1), (0.51, 2), (1.0, 2)])
def test_a_share_is_rounded_up(share, count):
    for peft in ("lora", "norm_fit"):
        assert trains(tiny_model("bert"), peft, share) == trains(tiny_model("bert"), peft, count)


@pytest.mark.parametrize(("share", "count"), [(0.7, 7), (0.3, 3), (0.1, 1), (0.31, 4)])
def test_a_share_of_ten_layers(share, count):
    assert layers_on_top(SimpleNamespace(layers=lambda: range(10)), share) == count


def test_a_share_is_each_encoders_own():
    assert layers_on_top(tiny_model("albert").encoder, 0.5) == 1
    trains(tiny_model("albert"), "lora", 0.5)


def test_layers_written_as_a_share():
    with pytest.raises(ConfigError, match="Write 3 without a decimal point for 3 layers"):
        build_config({"optim.top_layers": 3.0})


@pytest.mark.parametrize("value", [0, -1, 0.0, 1.5, "all"])
def test_values_that_are_none(value):
    with pytest.raises(ConfigError, match="optim.top_layers"):
        build_config({"optim.top_layers": value})


def test_contradictions():
    given = {"optim.peft": None, "optim.top_layers": 2, "optim.prefix_cache": "on"}
    with pytest.raises(ConfigError) as caught:
        resolve_config(None, given, has_gpu=False)
    assert len(caught.value.problems) == 2
    assert "optim.top_layers=2 says where a parameter-efficient method trains" in caught.value.problems[0]
    assert "optim.prefix_cache='on' keeps what frozen layers make" in caught.value.problems[1]
