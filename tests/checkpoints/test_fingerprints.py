"""The fingerprint: its definition, what changes it and what does not, and what is remembered of it."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from featherfit.checkpoints import cache_dir, fingerprint, fingerprints
from featherfit.errors import CheckpointError


@pytest.fixture
def bert(make_bert: Callable[..., Path], tmp_path: Path) -> Path:
    return make_bert(tmp_path / "bert")


def by_definition(folder: Path, *names: str) -> str:
    lines = [f"{name} {hashlib.sha256((folder / name).read_bytes()).hexdigest()}\n" for name in sorted(names)]
    return "sha256:" + hashlib.sha256("".join(lines).encode()).hexdigest()


def flip_bit(path: Path, at: int = -1) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def test_it_is_what_it_is_defined_to_be(bert: Path) -> None:
    (bert / "vocab.txt").write_text("not read where there is a tokenizer.json")
    assert fingerprint(bert) == by_definition(bert, "model.safetensors", "tokenizer.json")


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_one_bit_changes_it(bert: Path, name: str) -> None:
    before = fingerprint(bert)
    flip_bit(bert / name)
    assert fingerprint(bert) != before


def test_a_rewritten_config_does_not_change_it(bert: Path) -> None:
    before = fingerprint(bert)
    config = json.loads((bert / "config.json").read_text())
    (bert / "config.json").write_text(json.dumps({**config, "transformers_version": "9"}, indent=4))
    (bert / "tokenizer_config.json").write_text("{}")
    assert fingerprint(bert) == before


def test_digests_of_settled_files_are_remembered(bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long_ago = time.time() - 60
    for name in ("model.safetensors", "tokenizer.json"):
        os.utime(bert / name, (long_ago, long_ago))
    before = fingerprint(bert)
    assert len(list((cache_dir() / "fingerprints").iterdir())) == 2
    hashed = []
    original = fingerprints.sha256
    monkeypatch.setattr(fingerprints, "sha256", lambda path: hashed.append(path.name) or original(path))
    assert fingerprint(bert) == before and hashed == []
    flip_bit(bert / "model.safetensors")
    assert fingerprint(bert) == by_definition(bert, "model.safetensors", "tokenizer.json") != before
    assert hashed == ["model.safetensors"]


def test_a_file_just_written_is_not_remembered(bert: Path) -> None:
    """Its next version could have the same time and size."""
    fingerprint(bert)
    stamp = (bert / "model.safetensors").stat()
    flip_bit(bert / "model.safetensors")
    os.utime(bert / "model.safetensors", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert fingerprint(bert) == by_definition(bert, "model.safetensors", "tokenizer.json")


def test_a_cache_folder_that_cannot_be_written_changes_nothing(bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = bert / "a file"
    blocked.write_text("")
    monkeypatch.setenv("FEATHERFIT_HOME", str(blocked))
    os.utime(bert / "model.safetensors", (1e9, 1e9))
    assert fingerprint(bert) == by_definition(bert, "model.safetensors", "tokenizer.json")


@pytest.mark.parametrize(("algorithm", "shortcut"), [("sha256", True), ("sha1", False)])
def test_blob_names_stand_for_bytes_only_where_they_are_sha256(
    bert: Path, monkeypatch: pytest.MonkeyPatch, algorithm: str, shortcut: bool
) -> None:
    expected = by_definition(bert, "model.safetensors", "tokenizer.json")
    weights = bert / "model.safetensors"
    blob = bert / "blobs" / hashlib.new(algorithm, weights.read_bytes()).hexdigest()
    blob.parent.mkdir()
    weights.rename(blob)
    weights.symlink_to(Path("blobs") / blob.name)
    hashed = []
    original = fingerprints.sha256
    monkeypatch.setattr(fingerprints, "sha256", lambda path: hashed.append(path) or original(path))
    assert fingerprint(bert) == expected
    assert (blob.resolve() not in hashed) == shortcut


def test_nothing_to_hash_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nothing to fingerprint"):
        fingerprint(tmp_path)
