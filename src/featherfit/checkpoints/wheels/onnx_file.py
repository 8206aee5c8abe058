"""An ONNX file goes in; its constants as arrays and its operations come out.

ONNX is a protocol buffer, and what is needed of it are five kinds of fields
(https://github.com/onnx/onnx/blob/main/onnx/onnx.proto), so no package has to be installed to read weights. The file is
mapped, not read: an array is a view of it.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from featherfit.errors import CheckpointError

# Numbers of fields, by message.
_MODEL_GRAPH = 7
_GRAPH_NODE, _GRAPH_CONSTANT = 1, 5
_NODE_INPUT, _NODE_OUTPUT, _NODE_KIND = 1, 2, 4
_TENSOR_DIMS, _TENSOR_TYPE, _TENSOR_NAME, _TENSOR_RAW = 1, 2, 8, 9
_FLOAT32 = 1

# Kinds of values on the wire; fixed ones have a size.
_VARINT, _BYTES, _FIXED = 0, 2, {1: 8, 5: 4}


@dataclass(frozen=True)
class Operation:
    """A node of the graph: its kind, and the names of what goes in and comes out."""

    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class OnnxGraph:
    """What a file computes.

    Attributes:
        constants: Every float32 constant by name; views of the file, not to be written to.
        operations: In the file's order.
    """

    constants: dict[str, np.ndarray] = field(default_factory=dict)
    operations: list[Operation] = field(default_factory=list)


def read_onnx(path: Path) -> OnnxGraph:
    """Reads a model.

    Raises:
        CheckpointError: The file is cut off, or no ONNX model with a graph.
    """
    graph = OnnxGraph()
    try:
        with open(path, "rb") as file:
            data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        graphs = [value for number, value in _fields(data) if number == _MODEL_GRAPH]
        for number, value in _fields(_bytes(graphs[0])):
            if number == _GRAPH_CONSTANT:
                name, array = _constant(_bytes(value))
                if array is not None:
                    graph.constants[name] = array
            elif number == _GRAPH_NODE:
                graph.operations.append(_operation(_bytes(value)))
    except (IndexError, ValueError) as error:  # an empty file, one cut off, or another format
        raise CheckpointError(f"{path} is no ONNX model that can be read: {error}.") from None
    return graph


def _constant(message: memoryview) -> tuple[str, np.ndarray | None]:
    """Name and numbers; None for what is not float32."""
    name, dims, raw = "", [], None
    kind: int | memoryview = 0
    for number, value in _fields(message):
        if number == _TENSOR_NAME:
            name = _text(value)
        elif number == _TENSOR_TYPE:
            kind = value
        elif number == _TENSOR_DIMS:
            dims += [value] if isinstance(value, int) else list(_packed(value))
        elif number == _TENSOR_RAW:
            raw = _bytes(value)
    if kind != _FLOAT32 or raw is None:
        return name, None
    return name, np.frombuffer(raw, dtype="<f4").reshape(dims)


def _operation(message: memoryview) -> Operation:
    kind, inputs, outputs = "", [], []
    for number, value in _fields(message):
        if number == _NODE_KIND:
            kind = _text(value)
        elif number == _NODE_INPUT:
            inputs.append(_text(value))
        elif number == _NODE_OUTPUT:
            outputs.append(_text(value))
    return Operation(kind, tuple(inputs), tuple(outputs))


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Number and value of every field: a whole number, or bytes."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, kind = key >> 3, key & 7
        if kind == _VARINT:
            whole, at = _varint(message, at)
            yield number, whole
            continue
        if kind == _BYTES:
            size, at = _varint(message, at)
        elif kind in _FIXED:
            size = _FIXED[kind]
        else:
            raise ValueError(f"a field of the unknown kind {kind}")
        if at + size > len(message):
            raise ValueError("a field goes beyond the end")
        yield number, message[at : at + size]
        at += size


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """A whole number, seven bits a byte, and where it ends."""
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at


def _packed(message: memoryview) -> Iterator[int]:
    at = 0
    while at < len(message):
        value, at = _varint(message, at)
        yield value


def _bytes(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise ValueError("a number where bytes were expected")
    return value


def _text(value: int | memoryview) -> str:
    return str(_bytes(value), "utf-8")
