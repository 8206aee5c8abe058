"""An image and words such as `center_crop` or `trivial_augment` go in; the image as these words have it comes out.

The words are those of AutoMM's `train_transforms` and `val_transforms`, applied in the order given, with Pillow. What is random
is drawn from the generator that is handed in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

SIZING = ("resize_to_square", "resize_shorter_side", "center_crop")
RANDOM = ("random_resize_crop", "random_horizontal_flip", "random_vertical_flip", "trivial_augment")
REFUSED = dict.fromkeys(
    ("color_jitter", "affine", "randaug"),
    "trivial_augment shifts, shears, turns and changes colours, each with a strength of its own, and has no numbers to tune",
)
"""Words of AutoMM's that are not offered, with the reason."""

BICUBIC = 3  # Pillow's number
STRENGTHS = 31
"""Strengths that TrivialAugment draws from, 0 included."""

FARTHEST = 32 / 224
"""Share of a side that TrivialAugment shifts an image by: 32 pixels of the 224 it was tried with."""

Operation = Callable[["Image", float], "Image"]


def apply_words(image: Image, words: Sequence[str], side: int, random: np.random.Generator | None) -> Image:
    """The image after all words.

    Args:
        image: 8 bits of red, green and blue.
        words: Of `SIZING` and `RANDOM`.
        side: Pixels of a side that sizes are relative to.
        random: What random words draw from; None where there are none.
    """
    for word in words:
        if word in _SIZED:
            image = _SIZED[word](image, side)
        else:
            assert random is not None
            image = _DRAWN[word](image, side, random)
    return image


def resize_shorter_side(image: Image, side: int) -> Image:
    """The shorter side as long as `side`, in proportion."""
    width, height = image.size
    scale = side / min(width, height)
    return image.resize((max(side, round(width * scale)), max(side, round(height * scale))), BICUBIC)


def resize_to_square(image: Image, side: int) -> Image:
    """Both sides as long as `side`, out of proportion."""
    return image.resize((side, side), BICUBIC)


def center_crop(image: Image, side: int) -> Image:
    """The square in the middle; what reaches beyond a smaller image is black."""
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side))


def random_resize_crop(image: Image, side: int, random: np.random.Generator) -> Image:
    """A part of 8 % to all of the area, its sides as 3:4 to 4:3, made a square of `side` (arXiv 1409.4842, section 6).

    Ten attempts; where none lies inside the image, the largest square in the middle.
    """
    width, height = image.size
    for _ in range(10):
        area = width * height * random.uniform(0.08, 1.0)
        ratio = math.exp(random.uniform(math.log(3 / 4), math.log(4 / 3)))
        wide, high = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < wide <= width and 0 < high <= height:
            left, top = int(random.integers(width - wide + 1)), int(random.integers(height - high + 1))
            break
    else:
        wide = high = min(width, height)
        left, top = (width - wide) // 2, (height - high) // 2
    return image.resize((side, side), BICUBIC, box=(left, top, left + wide, top + high))


def random_flip(image: Image, side: int, random: np.random.Generator, *, method: int) -> Image:
    """Mirrored, or not, with equal chances."""
    return image.transpose(method) if random.random() < 0.5 else image  # type: ignore[arg-type]


def trivial_augment(image: Image, side: int, random: np.random.Generator) -> Image:
    """One operation of fourteen and one strength, drawn evenly (TrivialAugment's wide space, arXiv 2103.10158, table 1)."""
    operation, signed = _TRIVIAL[int(random.integers(len(_TRIVIAL)))]
    strength = int(random.integers(STRENGTHS)) / (STRENGTHS - 1)
    sign = -1.0 if signed and random.random() < 0.5 else 1.0
    return operation(image, sign * strength)


def _affine(image: Image, numbers: tuple[float, ...]) -> Image:
    from PIL.Image import Transform

    return image.transform(image.size, Transform.AFFINE, numbers)


def _shear_x(image: Image, strength: float) -> Image:
    return _affine(image, (1, 0.99 * strength, 0, 0, 1, 0))


def _shear_y(image: Image, strength: float) -> Image:
    return _affine(image, (1, 0, 0, 0.99 * strength, 1, 0))


def _shift_x(image: Image, strength: float) -> Image:
    return _affine(image, (1, 0, image.width * FARTHEST * strength, 0, 1, 0))


def _shift_y(image: Image, strength: float) -> Image:
    return _affine(image, (1, 0, 0, 0, 1, image.height * FARTHEST * strength))


def _rotate(image: Image, strength: float) -> Image:
    return image.rotate(135 * strength)


def _enhance(image: Image, strength: float, *, what: str) -> Image:
    from PIL import ImageEnhance

    return getattr(ImageEnhance, what)(image).enhance(1 + 0.99 * strength)


def _posterize(image: Image, strength: float) -> Image:
    from PIL import ImageOps

    return ImageOps.posterize(image, 8 - round(6 * strength))


def _solarize(image: Image, strength: float) -> Image:
    from PIL import ImageOps

    return ImageOps.solarize(image, round(255 * (1 - strength)))


def _auto_contrast(image: Image, strength: float) -> Image:
    from PIL import ImageOps

    return ImageOps.autocontrast(image)


def _equalize(image: Image, strength: float) -> Image:
    from PIL import ImageOps

    return ImageOps.equalize(image)


def _identity(image: Image, strength: float) -> Image:
    return image


_TRIVIAL: tuple[tuple[Operation, bool], ...] = (
    (_identity, False),
    (_auto_contrast, False),
    (_equalize, False),
    (_rotate, True),
    (_solarize, False),
    (_posterize, False),
    (_shear_x, True),
    (_shear_y, True),
    (_shift_x, True),
    (_shift_y, True),
    *((partial(_enhance, what=what), True) for what in ("Color", "Contrast", "Brightness", "Sharpness")),
)
"""Operations, and whether their strength has a sign."""

_SIZED: dict[str, Callable[[Any, int], Any]] = {
    "resize_to_square": resize_to_square,
    "resize_shorter_side": resize_shorter_side,
    "center_crop": center_crop,
}
_DRAWN: dict[str, Callable[..., Any]] = {
    "random_resize_crop": random_resize_crop,
    "random_horizontal_flip": partial(random_flip, method=0),
    "random_vertical_flip": partial(random_flip, method=1),
    "trivial_augment": trivial_augment,
}
