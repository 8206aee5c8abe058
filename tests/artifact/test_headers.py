"""Headers of safetensors: the library's own files are read, and no other."""

from __future__ import annotations

import json
import struct

import pytest
import torch
from safetensors.torch import save_file

from featherfit.artifact.headers import TensorInfo, read_header
from featherfit.errors import ArtifactError


def test_what_the_library_writes(tmp_path):
    state = {
        "a": torch.zeros(2, 3),
        "b": torch.zeros(0, dtype=torch.bfloat16),
        "c": torch.ones((), dtype=torch.int64),
        "d": torch.zeros(1, dtype=torch.bool),
    }
    save_file(state, tmp_path / "x", metadata={"format": "pt"})
    found = read_header(tmp_path / "x")
    assert found == {
        "a": TensorInfo("F32", (2, 3)),
        "b": TensorInfo("BF16", (0,)),
        "c": TensorInfo("I64", ()),
        "d": TensorInfo("BOOL", (1,)),
    }
    assert [found[name].numbers for name in "abcd"] == [6, 0, 1, 1]


GOOD = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    ("header", "body", "reason"),
    [
        ({"a": GOOD}, 7, "cut off or added to"),
        ({"a": GOOD}, 9, "cut off or added to"),
        ({"a": {**GOOD, "shape": [3]}}, 8, "'a' has 8 bytes"),
        ({"a": {**GOOD, "data_offsets": [1, 9]}}, 9, "overlap or leave gaps at byte 0"),
        ({"a": GOOD, "b": GOOD}, 8, "overlap or leave gaps at byte 8"),
        ({"a": {**GOOD, "dtype": "F4"}}, 8, "in a way that safetensors do not"),
        ({"a": {**GOOD, "shape": [-2]}}, 8, "in a way"),
        ({"a": {**GOOD, "shape": [True, 2]}}, 8, "in a way"),
        ({"a": {**GOOD, "shape": [1] * 8 + [2]}}, 8, "in a way"),
        ({"a": {**GOOD, "data_offsets": [0, 1 << 60]}}, 8, "in a way"),
        ({"a": {**GOOD, "more": 1}}, 8, "in a way"),
        ({"a": 1}, 8, "in a way"),
    ],
)  # fmt: skip
def test_refused(header, body, reason, tmp_path):
    content = json.dumps(header).encode()
    (tmp_path / "x").write_bytes(struct.pack("<Q", len(content)) + content + bytes(body))
    with pytest.raises(ArtifactError, match=reason):
        read_header(tmp_path / "x")


@pytest.mark.parametrize(
    ("length", "reason"), [(1 << 63, "its header would not fit"), (100, "would not fit"), (3, "cannot be read")]
)
def test_header_lengths(length, reason, tmp_path):
    (tmp_path / "x").write_bytes(struct.pack("<Q", length) + b"{}" + bytes(50))
    with pytest.raises(ArtifactError, match=reason):
        read_header(tmp_path / "x")


def test_a_long_header(tmp_path):
    with (tmp_path / "x").open("wb") as file:
        file.write(struct.pack("<Q", 100 << 20))
        file.truncate(200 << 20)  # a hole: no disk is used
    with pytest.raises(ArtifactError, match="at most 4,194,304 are read"):
        read_header(tmp_path / "x")


@pytest.mark.parametrize("content", [b"", b"\x80\x04K\x01.", b"PK\x03\x04" + bytes(100)])
def test_no_safetensors(content, tmp_path):
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(ArtifactError):
        read_header(tmp_path / "x")
