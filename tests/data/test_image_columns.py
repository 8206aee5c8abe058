"""Which columns are images, decided by opening a sample."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from featherfit.data.image_columns import (
    image_bytes,
    image_objects,
    image_paths,
    image_texts,
    paths_not_there,
    unreadable_images,
)

RULES = {
    "image_path": image_paths,
    "image_bytearray": image_bytes,
    "image_base64_str": image_texts,
    "image": image_objects,
}


def png(shade: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (8, 8), shade).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def forms(tmp_path: Path) -> dict[str, list]:
    data = [png(shade) for shade in range(120)]
    for number, content in enumerate(data):
        (tmp_path / f"{number}.png").write_bytes(content)
    return {
        "image_path": [f"{number}.png" for number in range(120)],
        "image_bytearray": data,
        "image_base64_str": [base64.b64encode(content).decode() for content in data],
        "image": [Image.open(io.BytesIO(content)) for content in data],
    }


@pytest.mark.parametrize("form", RULES)
def test_each_form_is_found_by_its_own_rule_alone(form, forms, tmp_path):
    reasons = {name: rule(forms[form], tmp_path) for name, rule in RULES.items()}
    assert [name for name, reason in reasons.items() if reason] == [form]
    assert "image" in reasons[form]


def test_other_forms(tmp_path, forms):
    assert (
        image_paths([tmp_path / name for name in forms["image_path"]], None)
        == "40 of 40 values looked at are paths of images"
    )
    assert image_paths([f"{one};{one}" for one in forms["image_path"]], tmp_path)
    assert image_bytes([{"bytes": one, "path": None} for one in forms["image_bytearray"]], None)
    assert image_objects([np.zeros((4, 4, 3), dtype=np.uint8)] * 3, None)


def test_what_cannot_be_decoded_is_found_by_position(tmp_path, forms):
    torn = forms["image_bytearray"][0][:40]
    cells = [forms["image_path"][0], None, "gone.png", torn, f"{forms['image_path'][0]};gone.png", "http://a/b.png"]
    found = unreadable_images(cells, "image_path", tmp_path)
    assert list(found) == [2, 3, 4, 5] and "no file" in found[2] and "URL" in found[5]
    assert unreadable_images([], "image_path", None) == {}


def test_half_of_the_sample_has_to_open(tmp_path, forms):
    cells = forms["image_path"][:40]
    assert image_paths([*cells[:22], *["gone.png"] * 18], tmp_path).startswith("22 of 40")
    assert image_paths([*cells[:18], *["gone.png"] * 22], tmp_path) is None
    assert image_paths([*cells[:18], *["good kettle"] * 22], tmp_path) is None


@pytest.mark.parametrize(
    "values",
    [
        [],
        ["a text", "another one"],
        ["0.png is my favourite image"],
        [b"bytes, but no image"],
        ["QUJD" * 20],
        [1.5, 2.5],
    ],
)
def test_what_is_no_image(values, tmp_path):
    assert [rule(values, tmp_path) for rule in RULES.values()] == [None] * 4


def test_paths_that_lead_nowhere_are_told_of(tmp_path, forms):
    why = paths_not_there(forms["image_path"], tmp_path / "elsewhere")
    assert why.startswith("of 40 looked at, fewer than half can be opened") and "elsewhere" in why
    assert "URL" in paths_not_there(["https://example.org/a.png"] * 3, None)
    assert paths_not_there(["a text"] * 3, None) is None
