"""A checkpoint folder goes in; `sha256:<hex>` over its weights and vocabulary comes out.

`config.json` is left out, so that rewriting it makes no new checkpoint.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import time
from pathlib import Path

from featherfit.checkpoints.cache import cache_dir, write_file
from featherfit.checkpoints.layout import vocabulary_files, weight_files
from featherfit.errors import CheckpointError

_LOG = logging.getLogger("featherfit")
_SHA256 = re.compile(r"[0-9a-f]{64}")
# A file may change without its time changing while the clock of the file system stands still.
_SETTLED_SECONDS = 2.0


def fingerprint(folder: str | Path) -> str:
    """Identifies a checkpoint by what decides its outputs: the bytes of its weights and of its vocabulary.

    `sha256` over one line `name digest` for each file, sorted by name, where `digest` is the hex sha256 of its bytes.
    Digests are remembered in the cache folder by path, size and time of the last change.

    Args:
        folder: A checkpoint folder.

    Returns:
        `sha256:` and 64 hex digits.

    Raises:
        CheckpointError: A file is missing or cannot be read.
    """
    folder = Path(folder)
    names = sorted([*weight_files(folder), *vocabulary_files(folder)])
    if not names:
        raise CheckpointError(f"{folder} holds neither weights nor a vocabulary, so there is nothing to fingerprint.")
    try:
        lines = "".join(f"{name} {_digest(folder / name)}\n" for name in names)
    except OSError as error:
        raise CheckpointError(f"Cannot read the checkpoint in {folder}: {error}.") from None
    return f"sha256:{hashlib.sha256(lines.encode()).hexdigest()}"


def _digest(path: Path) -> str:
    return _digest_in_blob_name(path) or remembered_sha256(path)


def _digest_in_blob_name(path: Path) -> str | None:
    """The hub cache links large files to blobs named by their sha256, and small ones to blobs named by a git hash."""
    if not path.is_symlink():
        return None
    blob = Path(os.readlink(path))
    return blob.name if blob.parent.name == "blobs" and _SHA256.fullmatch(blob.name) and path.is_file() else None


def remembered_sha256(path: Path) -> str:
    """Hex digest of a file's bytes, which are read only if its path, size or time of change is new."""
    path = path.resolve()
    stat = path.stat()
    key = hashlib.sha256(f"{path}|{stat.st_size}|{stat.st_mtime_ns}".encode()).hexdigest()
    memory = cache_dir() / "fingerprints" / key
    if memory.is_file():
        digest = memory.read_text(encoding="utf-8").strip()
        if _SHA256.fullmatch(digest):
            return digest
    digest = sha256(path)
    if time.time() - stat.st_mtime > _SETTLED_SECONDS:
        try:
            write_file(memory, digest)
        except OSError as error:
            _LOG.info("The fingerprint of %s is not remembered: %s", path, error)
    return digest


def sha256(path: Path) -> str:
    """Hex digest of a file's bytes."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()
