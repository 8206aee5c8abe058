"""A safetensors file goes in; names, types and shapes of its tensors come out. None of its numbers are read.

The format: 8 bytes, little-endian, say how long the header is; the header is a JSON object that gives for each tensor `dtype`,
`shape` and where in the rest of the file its bytes begin and end (https://github.com/huggingface/safetensors).
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featherfit.artifact.strict_json import MOST_BYTES, parse_object
from featherfit.errors import ArtifactError

BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
"""Bytes of one number, by the types that weights come in."""

MOST_DIMENSIONS = 8


@dataclass(frozen=True)
class TensorInfo:
    """A tensor as its header describes it.

    Attributes:
        dtype: A key of `BYTES`.
        shape: Its dimensions.
    """

    dtype: str
    shape: tuple[int, ...]

    @property
    def numbers(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)


def read_header(file: Path) -> dict[str, TensorInfo]:
    """The tensors of a safetensors file, once header and file agree about every byte.

    Raises:
        ArtifactError: Not safetensors, cut off, tensors that overlap or leave gaps, or a type that weights do not have.
    """
    try:
        size = file.stat().st_size
        with file.open("rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            if size < 8 or length > size - 8:
                raise ArtifactError(
                    f"{file} is not a safetensors file, or was cut off: its header would not fit in it."
                )
            if length > MOST_BYTES:
                raise ArtifactError(f"{file} has a header of {length:,} bytes; at most {MOST_BYTES:,} are read.")
            content = opened.read(length)
    except OSError as error:
        raise ArtifactError(f"{file} cannot be read: {error}.") from None
    entries = parse_object(content, f"The header of {file}")
    entries.pop("__metadata__", None)
    return _tensors(entries, size - 8 - length, file)


def _tensors(entries: Mapping[str, Any], room: int, file: str | os.PathLike[str]) -> dict[str, TensorInfo]:
    """Checks that the tensors fill `room` bytes exactly."""
    found, pieces = {}, []
    for name, entry in entries.items():
        if not _is_entry(entry):
            raise ArtifactError(f"{file}: the header describes {name!r} in a way that safetensors do not.")
        found[name] = info = TensorInfo(entry["dtype"], tuple(entry["shape"]))
        begin, end = entry["data_offsets"]
        if end - begin != info.numbers * BYTES[info.dtype]:
            raise ArtifactError(
                f"{file}: {name!r} has {end - begin} bytes, but its shape and type take another number."
            )
        pieces.append((begin, end))
    place = 0
    for begin, end in sorted(pieces):
        if begin != place:
            raise ArtifactError(f"{file}: its tensors overlap or leave gaps at byte {place}.")
        place = end
    if place != room:
        raise ArtifactError(
            f"{file} was cut off or added to: {room} bytes of numbers, and its header speaks of {place}."
        )
    return found


def _is_entry(entry: Any) -> bool:
    return (
        isinstance(entry, dict)
        and entry.keys() == {"dtype", "shape", "data_offsets"}
        and isinstance(entry["dtype"], str)
        and entry["dtype"] in BYTES
        and _are_sizes(entry["shape"])
        and len(entry["shape"]) <= MOST_DIMENSIONS
        and _are_sizes(entry["data_offsets"])
        and len(entry["data_offsets"]) == 2
    )


def _are_sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(size) is int and 0 <= size < 1 << 48 for size in value)
