"""The values of a column go in; whether they are images, and why, comes out: a sample of them is opened."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from featherfit.data.images import (
    AT_ONCE,
    THREADS,
    BadImageError,
    glance,
    is_pillow,
    looks_like_base64,
    looks_like_path,
    open_image,
    sources,
)

SAMPLE = 50
"""Cells that are opened."""

ENOUGH = 0.5
"""Share of them that have to be images; the others are errors then, each with its row."""

_BYTES = (bytes, bytearray, memoryview)


def sampled(values: Sequence[Any]) -> list[Any]:
    """At most `SAMPLE` values, evenly spaced."""
    return list(values[:: max(1, -(-len(values) // SAMPLE))])


def image_paths(values: Sequence[Any], folder: Path | None) -> str | None:
    """Text, or paths, that end as image files do and are there."""

    def could_be(value: Any) -> bool:
        value = os.fspath(value) if isinstance(value, os.PathLike) else value
        return isinstance(value, str) and len(value) < 4096 and looks_like_path(value)

    return _opening(values, could_be, "image_path", folder, "are paths of images")


def image_bytes(values: Sequence[Any], folder: Path | None) -> str | None:
    """Encoded images, alone or as the mappings of Parquet's image data sets."""

    def could_be(value: Any) -> bool:
        return isinstance(value, _BYTES) or (isinstance(value, dict) and {"bytes", "path"} & value.keys() != set())

    return _opening(values, could_be, "image_bytearray", folder, "are the bytes of images")


def image_texts(values: Sequence[Any], folder: Path | None) -> str | None:
    """Encoded images as base64 text."""

    def could_be(value: Any) -> bool:
        return isinstance(value, str) and looks_like_base64(value)

    return _opening(values, could_be, "image_base64_str", folder, "are images as base64 text")


def image_objects(values: Sequence[Any], folder: Path | None) -> str | None:
    """Images of Pillow, and arrays of bytes."""

    def could_be(value: Any) -> bool:
        return is_pillow(value) or (isinstance(value, np.ndarray) and value.dtype == np.uint8 and value.ndim in (2, 3))

    return "its values are images" if len(values) and all(map(could_be, sampled(values))) else None


def unreadable_images(cells: Sequence[Any], column_type: str, folder: Path | None) -> dict[int, str]:
    """What is wrong with the cells whose images cannot be decoded to the end, by position."""

    def fault(cell: Any) -> str | None:
        try:
            for source in sources(cell, column_type, folder):
                open_image(source)
        except BadImageError as error:
            return str(error)
        return None

    with ThreadPoolExecutor(THREADS) as threads:
        found = {
            start + place: why
            for start in range(0, len(cells), AT_ONCE)
            for place, why in enumerate(threads.map(fault, cells[start : start + AT_ONCE]))
        }
    return {place: why for place, why in found.items() if why is not None}


def paths_not_there(values: Sequence[Any], folder: Path | None) -> str | None:
    """Why a column whose values end as image files do is not one of images; None if they do not, or are there."""
    sample = sampled(values)
    named = [value for value in sample if isinstance(value, str) and looks_like_path(value)]
    if not named or len(named) < ENOUGH * len(sample):
        return None
    try:
        path = sources(named[0], "image_path", folder)[0].path
    except BadImageError as error:
        return str(error)
    return f"of {len(sample)} looked at, fewer than half can be opened, for example {str(path)!r}"


def _opening(
    values: Sequence[Any], could_be: Callable[[Any], bool], column_type: str, folder: Path | None, what: str
) -> str | None:
    """A reason, if enough of a sample can be opened. What cannot be an image by its looks is not tried."""
    sample = sampled(values)
    likely = [value for value in sample if could_be(value)]
    if not likely or len(likely) < ENOUGH * len(sample):
        return None
    good = sum(_is_image(value, column_type, folder) for value in likely)
    if good < ENOUGH * len(sample):
        return None
    return f"{good} of {len(sample)} values looked at {what}"


def _is_image(value: Any, column_type: str, folder: Path | None) -> bool:
    try:
        found = sources(value, column_type, folder)
        for source in found:
            glance(source)
    except BadImageError:
        return False
    return bool(found)
