"""The reader of ONNX files, against files written here byte by byte."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from featherfit.checkpoints.wheels.onnx_file import Operation, read_onnx
from featherfit.errors import CheckpointError


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def body(field: int, value: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(value)) + value


def tensor(name: str, array: np.ndarray, kind: int = 1, *, packed: bool = False) -> bytes:
    dims = body(1, b"".join(map(varint, array.shape))) if packed else b"".join(number(1, n) for n in array.shape)
    return body(5, dims + number(2, kind) + body(8, name.encode()) + body(9, array.tobytes()))


def node(kind: str, inputs: list[str], outputs: list[str]) -> bytes:
    named = b"".join(body(1, name.encode()) for name in inputs) + b"".join(body(2, name.encode()) for name in outputs)
    return body(1, named + body(4, kind.encode()))


def model(*parts: bytes) -> bytes:
    unknown = varint(20 << 3 | 5) + struct.pack("<f", 1.0) + varint(21 << 3 | 1) + struct.pack("<d", 1.0)
    return number(1, 7) + body(2, b"pytorch") + unknown + body(7, b"".join(parts))


def test_constants_and_operations(tmp_path: Path) -> None:
    array = np.arange(300, dtype=np.float32).reshape(3, 100)
    whole = np.arange(4, dtype=np.int64)
    parts = (
        tensor("a.weight", array),
        tensor("b", array, packed=True),
        tensor("shape", whole, kind=7),
        node("MatMul", ["x", "a.weight"], ["y"]),
        node("Add", ["y", "b"], ["z"]),
    )
    (tmp_path / "m.onnx").write_bytes(model(*parts))
    graph = read_onnx(tmp_path / "m.onnx")
    assert list(graph.constants) == ["a.weight", "b"], "what is not float32 is passed over"
    for found in graph.constants.values():
        np.testing.assert_array_equal(found, array)
    assert graph.operations == [
        Operation("MatMul", ("x", "a.weight"), ("y",)),
        Operation("Add", ("y", "b"), ("z",)),
    ]


@pytest.mark.parametrize("content", [b"", b"not a model at all", b"\x00" * 64, model()[:-3] + b"\x3a\xff", b"\x3f\x01"])
def test_what_is_no_model_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(CheckpointError, match="no ONNX model that can be read"):
        read_onnx(tmp_path / "m.onnx")


def test_a_file_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    content = model(tensor("a.weight", np.ones((10, 10), dtype=np.float32)))
    (tmp_path / "m.onnx").write_bytes(content[:-50])
    with pytest.raises(CheckpointError, match="goes beyond the end"):
        read_onnx(tmp_path / "m.onnx")
