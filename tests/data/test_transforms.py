"""Words that change images: what they do, and that the random ones are as the papers have them."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from featherfit.data.transforms import _TRIVIAL, RANDOM, SIZING, apply_words, center_crop, resize_shorter_side


def picture(width: int = 30, height: int = 20) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def drawn(word: str, times: int, image: Image.Image | None = None, side: int = 16) -> list[Image.Image]:
    image = image or picture()
    return [apply_words(image, [word], side, np.random.default_rng(seed)) for seed in range(times)]


def test_sizes():
    image = picture(30, 20)
    assert resize_shorter_side(image, 10).size == (15, 10)
    assert apply_words(image, ["resize_to_square"], 10, None).size == (10, 10)
    assert apply_words(image, ["resize_shorter_side", "center_crop"], 10, None).size == (10, 10)
    np.testing.assert_array_equal(np.asarray(center_crop(image, 10)), np.asarray(image)[5:15, 10:20])
    small = np.asarray(center_crop(picture(4, 4), 6))
    assert small.shape == (6, 6, 3) and (small[0] == 0).all()


@pytest.mark.parametrize("word", RANDOM)
def test_random_words_draw_from_the_generator_alone(word):
    first, again = drawn(word, 12), drawn(word, 12)
    assert all(a.tobytes() == b.tobytes() for a, b in zip(first, again, strict=True))
    assert len({image.tobytes() for image in first}) > 1, "they change from draw to draw"


def test_flips_are_even_and_exact():
    image = picture()
    mirrored = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).tobytes()
    found = [out.tobytes() for out in drawn("random_horizontal_flip", 400)]
    assert set(found) == {image.tobytes(), mirrored}
    assert 160 < found.count(mirrored) < 240


def test_crops_have_the_area_and_the_sides_of_the_paper(monkeypatch):
    boxes = []
    monkeypatch.setattr(Image.Image, "resize", lambda image, size, resample, box: boxes.append(box) or image)
    drawn("random_resize_crop", 500, picture(200, 200))
    wide = np.array([right - left for left, _, right, _ in boxes])
    high = np.array([bottom - top for _, top, _, bottom in boxes])
    share = wide * high / 200**2
    assert 0.07 < share.min() < 0.12 and 0.9 < share.max() <= 1
    ratio = wide / high
    assert 0.73 < ratio.min() < 0.8 and 1.25 < ratio.max() < 1.36
    assert all(left >= 0 and top >= 0 and right <= 200 and bottom <= 200 for left, top, right, bottom in boxes)


def test_trivial_augment_takes_every_operation_and_keeps_size_and_mode():
    assert len(_TRIVIAL) == 14
    out = drawn("trivial_augment", 300)
    assert {(image.size, image.mode) for image in out} == {((30, 20), "RGB")}
    same = sum(image.tobytes() == picture().tobytes() for image in out)
    assert 300 / 14 * 0.5 < same < 300 / 14 * 4, "the identity is one of fourteen, and strengths of 0 do nothing"


@pytest.mark.parametrize("place", range(14))
def test_each_operation_at_no_strength_and_at_full(place):
    operation, signed = _TRIVIAL[place]
    image = picture()
    for strength in (0.0, 1.0, -1.0) if signed else (0.0, 1.0):
        assert operation(image, strength).size == image.size
    if signed:  # what has a sign does nothing at 0
        assert np.abs(np.asarray(operation(image, 0.0)).astype(int) - np.asarray(image)).max() <= 1
        assert operation(image, 1.0).tobytes() != operation(image, -1.0).tobytes()


def test_no_word_is_of_both_kinds():
    assert not set(SIZING) & set(RANDOM)
