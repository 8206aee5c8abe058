"""Whatever the bytes, what reads an artifact returns or raises `ArtifactError`."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from featherfit.artifact import format as files
from featherfit.artifact.headers import read_header
from featherfit.artifact.opening import open_artifact
from featherfit.artifact.strict_json import parse_json
from featherfit.errors import ArtifactError

JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=3), inner, max_size=4)),
    max_leaves=10,
)
PIECES = st.lists(
    st.sampled_from(
        [b"[", b"]", b"{", b"}", b'"', b"\\", b",", b":", b"1", b"e", b"NaN", b"a", b"\xff", b"\\ud800", b" "]
    ),
    max_size=30,
)


@given(st.one_of(st.binary(max_size=40), PIECES.map(b"".join), JSON.map(lambda value: json.dumps(value).encode())))
def test_strict_json(content):
    try:
        strict = parse_json(content, "it")
    except ArtifactError:
        return
    assert strict == json.loads(content)


@given(JSON)
def test_strict_json_reads_what_json_writes(value):
    content = json.dumps(value, ensure_ascii=False)
    try:
        sound = "NaN" not in content and "Infinity" not in content and content.encode("utf-8")
    except UnicodeEncodeError:
        sound = False
    if sound:
        assert parse_json(content.encode(), "it") == value


ENTRY = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "I8", "F4", 1]),
        "shape": st.lists(st.integers(-1, 4), max_size=3),
        "data_offsets": st.lists(st.integers(-1, 40), max_size=3),
    }
)


@given(
    st.dictionaries(st.text(max_size=3), st.one_of(ENTRY, JSON), max_size=3), st.binary(max_size=40), st.integers(-3, 3)
)
def test_headers(header, body, shift):
    content = json.dumps(header).encode()
    Path("file").write_bytes(struct.pack("<Q", max(0, len(content) + shift)) + content + body)
    try:
        tensors = read_header(Path("file"))
    except ArtifactError:
        return
    from safetensors import safe_open

    with safe_open("file", "pt") as theirs:  # whom we let through, the library reads
        assert set(theirs.keys()) == set(tensors)


NAMES = [files.CONFIG, files.SCHEMA, files.WEIGHTS, files.METRICS, files.CHECKSUMS]


@pytest.fixture
def copied(fitted, tmp_path):
    return Path(shutil.copytree(fitted.path, tmp_path / "copied"))


@given(st.sampled_from(NAMES), st.integers(0, 10**6), st.integers(0, 30), st.binary(max_size=30), st.booleans())
def test_spliced_bytes(copied, fitted, name, place, gone, new, rehash):
    file = copied / name
    raw = (Path(fitted.path) / name).read_bytes()
    place %= len(raw)
    file.write_bytes(raw[:place] + new + raw[place + gone :])
    if rehash:
        files.write_checksums(copied)
    try:
        open_artifact(copied)
    except ArtifactError as error:
        assert str(error)
    finally:
        for each in NAMES:
            shutil.copyfile(Path(fitted.path) / each, copied / each)
