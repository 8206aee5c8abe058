"""Cells of image columns: every form, and every way an image can be odd."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms  # noqa: F401

from featherfit.data import images
from featherfit.data.images import (
    BadImageError,
    Source,
    glance,
    looks_like_base64,
    looks_like_path,
    open_image,
    sources,
)

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def encoded(image: Image.Image, format: str = "PNG", **settings) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **settings)
    return buffer.getvalue()


def halves(left=RED, right=BLUE, size=(8, 4)) -> Image.Image:
    image = Image.new("RGB", size, left)
    image.paste(right, (size[0] // 2, 0, *size))
    return image


def noise() -> bytes:
    """A JPEG most of which is not its header."""
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    return encoded(Image.fromarray(pixels), "JPEG")


def opened(cell, column_type="image_path", folder=None) -> list[np.ndarray]:
    return [np.asarray(open_image(source)) for source in sources(cell, column_type, folder)]


def test_every_form_gives_the_same_pixels(tmp_path):
    image, data = halves(), encoded(halves())
    (tmp_path / "a.png").write_bytes(data)
    text = base64.b64encode(data).decode()
    cells = [
        ("a.png", "image_path", tmp_path),
        (str(tmp_path / "a.png"), "image_path", None),
        (tmp_path / "a.png", "image_path", None),
        (data, "image_bytearray", None),
        (bytearray(data), "image_bytearray", None),
        (text, "image_base64_str", None),
        (f"data:image/png;base64,{text}", "image_base64_str", None),
        (f"data:image/png;base64,{text}", "image_path", None),
        ({"bytes": data, "path": None}, "image_bytearray", None),
        ({"bytes": None, "path": "a.png"}, "image_bytearray", tmp_path),
        (image, "image", None),
        (np.asarray(image), "image", None),
    ]
    for cell, column_type, folder in cells:
        (pixels,) = opened(cell, column_type, folder)
        np.testing.assert_array_equal(pixels, np.asarray(image), err_msg=f"{column_type}: {cell!r:.60}")


def test_several_images_a_cell(tmp_path):
    for name, colour in (("a.png", RED), ("b.png", GREEN)):
        Image.new("RGB", (2, 2), colour).save(tmp_path / name)
    expected = [RED, GREEN]
    text = ";".join(base64.b64encode((tmp_path / name).read_bytes()).decode() for name in ("a.png", "b.png"))
    for cell, column_type in (
        ("a.png;b.png", "image_path"),
        (" a.png ; b.png;", "image_path"),
        (["a.png", "b.png"], "image_path"),
        (text, "image_base64_str"),
        (";".join(f"data:image/png;base64,{part}" for part in text.split(";")), "image_base64_str"),
        (np.array(["a.png", "b.png"], dtype=object), "image_path"),
    ):
        assert [tuple(pixels[0, 0]) for pixels in opened(cell, column_type, tmp_path)] == expected, cell


@pytest.mark.parametrize("cell", [None, float("nan"), "", "  ", ";", b"", [], [None, ""]])
def test_a_missing_cell_has_no_images(cell):
    assert sources(cell, "image_path") == []


@pytest.mark.parametrize(
    ("cell", "column_type", "why"),
    [
        ("https://example.org/a.png", "image_path", "URL, and nothing is downloaded"),
        ("a.png;s3://bucket/b.png", "image_path", "URL"),
        (3, "image_path", "int is no image"),
        ({"file": "a.png"}, "image_path", "without 'bytes' or 'path'"),
        ("no base64!", "image_base64_str", "no base64"),
        ("a\0.png", "image_path", "zero bytes"),
    ],
)
def test_what_names_no_image_is_refused(cell, column_type, why):
    with pytest.raises(BadImageError, match=why):
        sources(cell, column_type)


def test_what_cannot_be_decoded_says_why(tmp_path):
    data = noise()
    (tmp_path / "text.png").write_text("not an image")
    (tmp_path / "script.eps").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n")
    cases = [
        (Source(path=tmp_path / "gone.png"), "there is no file '.*gone.png'"),
        (Source(path=tmp_path), "is a folder"),
        (Source(path=tmp_path / "text.png"), "no image of a known format"),
        (Source(path=tmp_path / "script.eps"), "no image of a known format"),
        (Source(encoded=data[: len(data) // 2]), "damaged or cut off"),
        (Source(encoded=data[:20]), "no image of a known format|damaged"),
        (Source(decoded=np.zeros((4, 4), dtype=np.float32)), "an array of float32"),
        (Source(decoded=Image.new("F", (4, 4))), "fractions"),
        (Source(decoded=Image.new("RGB", (1, 200))), "one side more than 100 times the other"),
    ]
    for source, why in cases:
        with pytest.raises(BadImageError, match=why):
            open_image(source)


def test_a_glance_sees_all_but_damage_further_inside(tmp_path):
    data = noise()
    glance(Source(encoded=data[: len(data) // 2]))
    with pytest.raises(BadImageError, match="there is no file"):
        glance(Source(path=tmp_path / "gone.png"))


def png_of(width: int, height: int) -> bytes:
    """A PNG that claims a size its data does not have."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [9_000, 12_000, 60_000])
def test_a_bomb_is_refused_before_it_is_decoded(side):
    for look in (glance, open_image):
        with pytest.raises(BadImageError, match=r"more (pixels )?than the 67,108,864"):
            look(Source(encoded=png_of(side, side)))


def test_the_first_frame_of_an_animation():
    data = encoded(Image.new("RGB", (4, 4), RED), "GIF", save_all=True, append_images=[Image.new("RGB", (4, 4), BLUE)])
    (pixels,) = opened(data, "image_bytearray")
    assert tuple(pixels[0, 0]) == RED


def test_cmyk_becomes_rgb():
    data = encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG")
    (pixels,) = opened(data, "image_bytearray")
    assert np.abs(pixels[0, 0].astype(int) - RED).max() <= 3


def test_sixteen_bits_are_scaled_and_not_clipped():
    deep = np.array([[0, 257, 32_896, 65_535]], dtype=np.uint16)
    for image in (Image.fromarray(deep), Image.fromarray(deep.astype(np.int32))):
        pixels = np.asarray(open_image(Source(decoded=image)))
        np.testing.assert_array_equal(pixels[0, :, 0], [0, 1, 128, 255])
        assert pixels.shape == (1, 4, 3)
    (pixels,) = opened(encoded(Image.fromarray(deep)), "image_bytearray")
    np.testing.assert_array_equal(pixels[0, :, 1], [0, 1, 128, 255])


def test_exif_turns_the_image():
    image = halves(size=(8, 4))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by a quarter, clockwise
    (pixels,) = opened(encoded(image, exif=exif), "image_bytearray")
    np.testing.assert_array_equal(pixels, np.asarray(image.rotate(-90, expand=True)))


def test_what_is_transparent_is_white():
    image = Image.new("RGBA", (2, 1), (0, 0, 0, 0))
    image.putpixel((1, 0), (255, 0, 0, 255))
    (pixels,) = opened(encoded(image), "image_bytearray")
    assert [tuple(pixel) for pixel in pixels[0]] == [(255, 255, 255), RED]
    palette = Image.new("P", (1, 1), 0)
    palette.putpalette([0, 255, 0])
    (pixels,) = opened(encoded(palette, transparency=0), "image_bytearray")
    assert tuple(pixels[0, 0]) == (255, 255, 255)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "YCbCr", "HSV", "LAB"])
def test_every_mode_becomes_eight_bits_of_three_colours(mode):
    image = open_image(Source(decoded=Image.new(mode, (3, 2))))
    assert (image.mode, image.size) == ("RGB", (3, 2))


def test_the_callers_image_stays_as_it_is():
    image = Image.new("RGBA", (3, 2), (1, 2, 3, 4))
    before = image.tobytes()
    open_image(Source(decoded=image))
    assert (image.mode, image.tobytes()) == ("RGBA", before)


def test_identity(tmp_path):
    data = encoded(halves())
    (tmp_path / "a.png").write_bytes(data)
    assert Source(encoded=data).identity() == Source(encoded=bytes(bytearray(data))).identity()
    assert Source(encoded=data).identity() != Source(encoded=data + b"x").identity()
    before = Source(path=tmp_path / "a.png").identity()
    assert before == Source(path=Path(tmp_path, "a.png")).identity()
    (tmp_path / "a.png").write_bytes(data + b"x")
    assert Source(path=tmp_path / "a.png").identity() != before
    assert Source(decoded=halves()).identity() == Source(decoded=halves()).identity()
    assert Source(decoded=halves(RED, RED)).identity() != Source(decoded=halves()).identity()


def test_what_text_looks_like():
    assert looks_like_path("a/b.PNG") and looks_like_path("a.jpg;b.webp") and not looks_like_path("a.txt")
    assert not looks_like_path("") and not looks_like_path("I like a.png very much")
    data = base64.b64encode(encoded(halves())).decode()
    assert looks_like_base64(data) and looks_like_base64("data:image/png;base64,")
    assert not looks_like_base64("hello world, this is a text of words only, and commas")


def test_formats_that_this_pillow_has_not_are_passed_over(monkeypatch):
    monkeypatch.setattr(images, "FORMATS", ("NONSENSE", "PNG"))
    images._formats.cache_clear()
    assert images._formats() == ("PNG",)
    images._formats.cache_clear()
