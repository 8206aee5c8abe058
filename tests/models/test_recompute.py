"""Gradients with recomputed layers, with their inputs moved, and over micro-batches are those of one plain pass."""

from __future__ import annotations

import copy
import dataclasses
import weakref
from collections.abc import Iterator

import pytest
import torch
from tiny_models import TINY, UNLISTED, tiny_batch, tiny_model
from torch import nn

from featherfit.artifact.fitted import prepare
from featherfit.config.dotted import build_config
from featherfit.models import recompute
from featherfit.models.backbone import build_backbone_from_config
from featherfit.models.build import MultiModalModel
from featherfit.models.heads import Head
from featherfit.models.text import TextEncoder
from featherfit.training.device import Device
from featherfit.types import Batch

BATCH = dataclasses.replace(tiny_batch(), labels=torch.tensor([0, 2, 1]))
EVERY = [*TINY, *UNLISTED]


def model_of(model_type: str) -> MultiModalModel:
    if model_type in TINY:
        return tiny_model(model_type)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = TextEncoder(build_backbone_from_config({"model_type": model_type, **UNLISTED[model_type]}))
        return MultiModalModel(encoder, Head(encoder.out_dim, 3, seed=0))


def with_dropout(model: MultiModalModel, rate: float = 0.3) -> MultiModalModel:
    for module in model.encoder.backbone.modules():
        if isinstance(module, nn.Dropout):
            module.p = rate
        for name in recompute.DROPOUT_RATES:
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, rate)
    return model


def without_dropout(model: MultiModalModel) -> MultiModalModel:
    return with_dropout(model, 0.0)


def micro_batches(rows: int) -> Iterator[Batch]:
    for first in range(0, len(BATCH), rows):
        part = slice(first, first + rows)
        yield Batch(
            BATCH.input_ids[part], BATCH.attention_mask[part], BATCH.token_type_ids[part],
            BATCH.labels[part], None, BATCH.rows[part],
        )  # fmt: skip


def gradients(model: MultiModalModel, rows: int = 3) -> dict[str, torch.Tensor]:
    """Of the mean cross entropy of the three rows, `rows` of them in a forward."""
    torch.manual_seed(0)
    model.train()
    for batch in micro_batches(rows):
        loss = nn.functional.cross_entropy(model(batch), batch.labels, reduction="sum") / len(BATCH)
        loss.backward()
    training = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    found = {name: gradient for name, gradient in training.items() if gradient is not None}
    assert all("_global." in name for name in training.keys() - found.keys())  # of Longformer, when no token is global
    assert max(float(gradient.abs().max()) for gradient in found.values()) > 1e-3
    return found


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor], *, rtol: float = 1e-6, atol: float = 1e-8):
    assert one.keys() == other.keys() and one
    for name, gradient in one.items():
        torch.testing.assert_close(other[name], gradient, rtol=rtol, atol=atol, msg=lambda text, n=name: f"{n}: {text}")


@pytest.fixture
def moved(monkeypatch) -> list[torch.Tensor]:
    """What is moved to the host, which a CPU is not taken for here; moving is then a real copy."""
    found: list[torch.Tensor] = []
    real = torch.autograd.graph.save_on_cpu

    class Watched(real):
        def __init__(self, pin_memory: bool):
            super().__init__(pin_memory=pin_memory)
            pack = self.pack_hook
            self.pack_hook = lambda tensor: (found.append(tensor.detach().clone()), pack(tensor))[1]

    monkeypatch.setattr(torch.autograd.graph, "save_on_cpu", Watched)
    monkeypatch.setattr(recompute, "_is_host", lambda device: False)
    return found


def calls_of_layers(model: MultiModalModel) -> list[str]:
    """Fills with a layer's name whenever its first linear is called."""
    calls: list[str] = []
    for name, layer in model.encoder.layers().items():
        inner = next(child for child in layer.modules() if not list(child.children()) and list(child.parameters()))
        inner.register_forward_pre_hook(lambda *_, name=name: calls.append(name))
    return calls


@pytest.mark.parametrize("model_type", EVERY)
def test_every_gradient_is_the_same(model_type, moved):
    """All parameters train."""
    plain = gradients(without_dropout(model_of(model_type)))
    recomputing = without_dropout(model_of(model_type))
    recomputing.encoder.enable_gradient_checkpointing()
    calls = calls_of_layers(recomputing)
    same(plain, gradients(recomputing))
    assert moved == [] and len(calls) >= 4  # two layers, each twice
    once = calls[: len(calls) // 2]
    assert sorted(calls) == sorted(2 * once)

    offloading = without_dropout(model_of(model_type))
    offloading.encoder.enable_gradient_checkpointing(offload=True)
    same(plain, gradients(offloading))
    assert [states.shape[-1] for states in moved] == [32, 32]  # the input of each layer, and nothing else


@pytest.mark.parametrize("model_type", EVERY)
@pytest.mark.parametrize("how", ["plain", "recomputed", "offloaded"])
@pytest.mark.parametrize("rows", [1, 2])
def test_micro_batches_add_up(model_type, how, rows, moved):
    model = without_dropout(model_of(model_type))
    if how != "plain":
        model.encoder.enable_gradient_checkpointing(offload=how == "offloaded")
    same(gradients(without_dropout(model_of(model_type))), gradients(model, rows), rtol=1e-4, atol=1e-6)
    assert bool(moved) == (how == "offloaded")


@pytest.mark.parametrize("model_type", EVERY)
@pytest.mark.parametrize("offload", [False, True])
def test_dropout_is_drawn_again(model_type, offload, moved):
    """With every dropout on; and random numbers go on as if nothing had been recomputed."""
    plain = gradients(with_dropout(model_of(model_type)))
    after = torch.rand(3)
    model = with_dropout(model_of(model_type))
    model.encoder.enable_gradient_checkpointing(offload=offload)
    same(plain, gradients(model))
    assert torch.equal(torch.rand(3), after)
    off = gradients(without_dropout(model_of(model_type)))
    assert any(not torch.allclose(off[name], plain[name]) for name in plain)


@pytest.mark.parametrize("model_type", TINY)
@pytest.mark.parametrize("peft", ["ia3_bias", "lora", "dora", "ia3_lora_norm", None])
@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_as_a_fit_prepares_it(model_type, peft, precision, moved, recwarn):
    """Frozen embeddings and linears, adapters, and bfloat16 under autocast."""
    device = Device(torch.device("cpu"), precision)

    def prepared(**settings: bool) -> dict[str, torch.Tensor]:
        given = {f"model.hf_text.{name}": value for name, value in settings.items()}
        config = build_config({"optim.peft": peft, "optim.lora.dropout": 0.2, "model.hf_text.dropout": "on", **given})
        model = prepare(tiny_model(model_type), config, 0, device)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name.endswith("lora_b"):
                    parameter.fill_(0.01)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            return gradients(model)

    plain = prepared()
    same(plain, prepared(gradient_checkpointing=True))
    assert moved == []
    same(plain, prepared(gradient_checkpointing=True, activation_offload=True))
    assert len(moved) == 2


def saved_bytes(model: MultiModalModel) -> int:
    """Bytes of distinct tensors the graph of a forward holds, parameters left out; holders of recomputed ones are none."""
    own = {parameter.data_ptr() for parameter in model.parameters()}
    held: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.data_ptr() not in own:
            held[tensor.data_ptr()] = tensor.nbytes
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model.train()(BATCH).sum().backward()
    return sum(held.values())


@pytest.mark.parametrize("model_type", EVERY)
def test_little_is_kept(model_type):
    model = model_of(model_type)
    before = saved_bytes(model)
    model.encoder.enable_gradient_checkpointing()
    assert saved_bytes(model) < before / 2


@pytest.mark.parametrize("model_type", ["bert", "llama", "mpnet", "ernie"])
@pytest.mark.parametrize("offload", [False, True])
def test_moved_states_are_let_go(model_type, offload, moved):
    model = without_dropout(model_of(model_type))
    model.encoder.enable_gradient_checkpointing(offload=offload)
    states: list[weakref.ref] = []
    last = list(model.encoder.layers().values())[-1]
    last.register_forward_pre_hook(lambda _, given: states.append(weakref.ref(given[0])))
    loss = model.train()(BATCH).sum()
    assert (states[0]() is None) == offload
    loss.backward()


def test_a_cpu_is_the_host_and_nothing_is_moved(monkeypatch):
    def refuse() -> None:
        raise AssertionError("moved")

    monkeypatch.setattr(recompute, "_on_host", refuse)
    model = model_of("bert")
    model.encoder.enable_gradient_checkpointing(offload=True)
    gradients(model)


@pytest.mark.parametrize("model_type", ["t5", "albert", "ernie", "gpt2"])
def test_predictions_are_not_touched(model_type):
    model = model_of(model_type).eval()
    with torch.inference_mode():
        expected = model(BATCH)
    model.encoder.enable_gradient_checkpointing(offload=True)
    model.encoder.enable_gradient_checkpointing()  # twice is as once
    calls = calls_of_layers(model)
    with torch.inference_mode():
        torch.testing.assert_close(model(BATCH), expected, rtol=0, atol=0)
    assert len(calls) >= 2
    names = list(model.state_dict())
    assert names == list(model_of(model_type).state_dict())


def test_a_copy_recomputes_its_own_layers():
    model = without_dropout(model_of("bert"))
    model.encoder.enable_gradient_checkpointing()
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    same(gradients(without_dropout(model_of("bert"))), gradients(twin))


@pytest.mark.parametrize("model_type", TINY)
def test_random_numbers_are_kept_only_for_a_dropout(model_type, monkeypatch):
    kept: list[bool] = []
    original = recompute.checkpoint

    def spy(*args, **given):
        kept.append(given["preserve_rng_state"])
        return original(*args, **given)

    monkeypatch.setattr(recompute, "checkpoint", spy)
    for model, expected in ((without_dropout(model_of(model_type)), False), (with_dropout(model_of(model_type)), True)):
        model.encoder.enable_gradient_checkpointing()
        gradients(model)
        assert kept == [expected, expected]
        kept.clear()
        model.eval()(BATCH)
        assert kept == [False, False]
        kept.clear()
