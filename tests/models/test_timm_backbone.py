"""Models of timm, where it is installed: the same vectors, and targets for adapters."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from featherfit.adapters.targets import find_targets
from featherfit.checkpoints import read_checkpoint
from featherfit.config.schema import LoraConfig
from featherfit.data.processors.pixels import Pixels
from featherfit.errors import CheckpointError, MissingDependencyError
from featherfit.models.backbone import build_backbone, build_backbone_from_config
from featherfit.models.vision import VisionEncoder

try:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import timm
except (ImportError, RuntimeError):
    timm = None
needs_timm = pytest.mark.skipif(timm is None, reason="timm is not installed")
CONFIG = {"input_size": [3, 64, 64], "crop_pct": 0.9, "interpolation": "bicubic", "mean": [0.5] * 3, "std": [0.5] * 3}


def write(folder: Path, name: str) -> Path:
    torch.manual_seed(0)
    model = timm.create_model(name, pretrained=False, num_classes=5)
    save_file({key: tensor.contiguous() for key, tensor in model.state_dict().items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"architecture": name, "num_classes": 5, "pretrained_cfg": CONFIG}))
    return folder


@needs_timm
@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("convnext_atto", "linear"),
        ("tf_efficientnet_lite0", "linear"),
        ("resnet18", None),
        ("vit_tiny_patch16_224", "qkv"),
    ],
)
def test_the_vectors_are_timms_own(name: str, own: str | None, tmp_path: Path) -> None:
    checkpoint = read_checkpoint(write(tmp_path, name), name="x", source="folder")
    encoder = VisionEncoder(build_backbone(checkpoint, images=True)).eval()
    side = 224 if name.startswith("vit") else 64
    x = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    reference = timm.create_model(name, pretrained=False, num_classes=5).eval()
    with torch.no_grad():
        expected = reference.forward_head(reference.forward_features(x), pre_logits=True)
        torch.testing.assert_close(encoder.vectors(x), expected, rtol=1e-3, atol=1e-3)
    assert encoder.out_dim == expected.shape[1]
    if own is not None:
        targets = find_targets(encoder, LoraConfig())
        assert targets and all(target.name.rpartition(".")[2] in (own, "fc2") for target in targets)
    meta = build_backbone_from_config(checkpoint.config, images=True, device="meta")
    assert {n: p.shape for n, p in meta.named_parameters()} == {
        n: p.shape for n, p in encoder.backbone.named_parameters()
    }
    assert Pixels.from_checkpoint(tmp_path, image_size=None, image_norm=None).shape == (3, 64, 64)


@needs_timm
def test_names_that_are_no_architecture_are_not_looked_up(tmp_path: Path) -> None:
    for name in ("hf-hub:someone/model", "no_such_model", 3):
        with pytest.raises(CheckpointError, match="is none of timm"):
            build_backbone_from_config({"model_type": "timm", "architecture": name}, images=True)


@pytest.mark.skipif(timm is not None, reason="timm is installed")
def test_without_timm_the_install_line_is_told() -> None:
    try:
        import timm  # noqa: F401
    except RuntimeError:
        pytest.skip("timm is there and does not work")
    except ImportError:
        pass
    with pytest.raises(MissingDependencyError, match=r"pip install \"featherfit\[timm\]\""):
        build_backbone_from_config({"model_type": "timm", "architecture": "resnet18"}, images=True)
