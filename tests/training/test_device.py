"""Which device and arithmetic the `env` settings give on this machine, and on one that we pretend to have."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tiny_models import tiny_backbone

from featherfit.config.schema import EnvConfig
from featherfit.errors import ConfigError
from featherfit.training import device
from featherfit.training.device import Device, pick_device


@pytest.fixture
def cpu_only(monkeypatch):
    monkeypatch.setattr(device, "has_gpu", lambda: False)


@pytest.fixture
def with_gpu(monkeypatch):
    monkeypatch.setattr(device, "has_gpu", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)


@pytest.mark.parametrize(
    ("given", "expected"), [("32", "no"), ("32-true", "no"), ("bf16", "bf16"), ("bf16-mixed", "bf16")]
)
def test_precision_on_a_cpu(given, expected, cpu_only):
    picked = pick_device(EnvConfig(precision=given))
    assert (picked.place.type, picked.precision) == ("cpu", expected)


@pytest.mark.parametrize(("native", "expected"), [(True, "bf16"), (False, "no")])
def test_auto_on_a_cpu(native, expected, cpu_only, monkeypatch):
    monkeypatch.setattr(device, "cpu_has_bfloat16", lambda: native)
    assert pick_device(EnvConfig()).precision == expected


@pytest.mark.parametrize("precision", ["16", "16-mixed"])
def test_float16_on_a_cpu(precision, cpu_only):
    with pytest.raises(ConfigError, match=rf"env\.precision='{precision}' is not possible on a CPU.*Use 'auto'"):
        pick_device(EnvConfig(precision=precision))


@pytest.mark.parametrize(
    ("given", "key"), [({"accelerator": "gpu"}, r"env\.accelerator='gpu'"), ({"num_gpus": 1}, r"env\.num_gpus=1")]
)
def test_no_gpu(given, key, cpu_only):
    with pytest.raises(ConfigError, match=f"{key} needs a GPU, and there is none"):
        pick_device(EnvConfig(**given))


@pytest.mark.parametrize(
    ("given", "place"),
    [({}, "cuda"), ({"accelerator": "cpu"}, "cpu"), ({"num_gpus": 0}, "cpu"), ({"accelerator": "gpu"}, "cuda")],
)
def test_place_with_a_gpu(given, place, with_gpu):
    assert pick_device(EnvConfig(precision="32", **given)).place.type == place


def test_precision_on_a_gpu(with_gpu, monkeypatch):
    assert pick_device(EnvConfig()).precision == "bf16"
    assert pick_device(EnvConfig(precision="16-mixed")).precision == "fp16"
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    assert pick_device(EnvConfig()).precision == "no"  # emulated is not native


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("flags\t\t: fpu avx512f avx512_bf16 sse\n", True),
        ("flags : fpu amx_bf16\n", True),
        ("Features : fp asimd bf16\n", True),
        ("flags : fpu avx512f\nmodel name : avx512_bf16\n", False),
        ("", False),
    ],
)
def test_bfloat16_from_cpuinfo(text, expected, tmp_path, monkeypatch):
    (tmp_path / "cpuinfo").write_text(text)
    monkeypatch.setattr(device, "Path", lambda name: tmp_path / Path(name).name)
    assert device.cpu_has_bfloat16.__wrapped__() is expected


def test_inference_arithmetic():
    linear, x = torch.nn.Linear(4, 4), torch.ones(2, 4)
    for precision, dtype in (("no", torch.float32), ("bf16", torch.bfloat16)):
        with Device(torch.device("cpu"), precision).inference():
            out = linear(x)
        assert out.dtype == dtype and not out.requires_grad


def test_accelerator_has_the_precision_of_each_fit():
    """accelerate keeps one state per process; a second fit may want another precision."""
    for precision in ("bf16", "no", "bf16"):
        accelerator = Device(torch.device("cpu"), precision).accelerator()
        assert (accelerator.mixed_precision, accelerator.device.type) == (precision, "cpu")


@pytest.mark.parametrize(("precision", "expected"), [("bf16", "eager"), ("no", "sdpa")])
def test_training_attention(precision, expected):
    backbone = tiny_backbone("bert")
    backbone.set_attn_implementation("sdpa")
    model = SimpleNamespace(pretrained=lambda: {"hf_text": SimpleNamespace(backbone=backbone)})
    with Device(torch.device("cpu"), precision).training_attention(model):
        assert backbone.config._attn_implementation == expected
    assert backbone.config._attn_implementation == "sdpa"
