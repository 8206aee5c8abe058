"""The files of an artifact, and how they are read and written: JSON and safetensors, whole or not at all."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from featherfit.errors import ArtifactError, PathExistsError
from featherfit.storage import sync

FORMAT_VERSION = 1
CONFIG = "config.json"
SCHEMA = "schema.json"
WEIGHTS = "trainable.safetensors"
METRICS = "metrics.json"
CARD = "README.md"
BASE = "base"
WORK = "training"
"""Folder beside the artifact's files where a fit keeps its states."""
RECORD = "fit.json"
"""In it: what the fit is."""
FILES = (CONFIG, SCHEMA, WEIGHTS, METRICS, CARD, BASE)
LARGE = 1 << 24
"""Bytes from which on a file is read for its checksum only if it may have changed since it was last read."""


def is_artifact(folder: Path) -> bool:
    """Whether `folder` holds an artifact of ours, by its config."""
    return (folder / CONFIG).is_file() and (folder / WEIGHTS).is_file()


def is_free(folder: Path) -> bool:
    """Whether `folder` does not exist or is empty."""
    return not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))


def is_of_fit(folder: Path) -> bool:
    """Whether `folder` is where a fit works and holds nothing else but what it has written of an artifact."""
    if not (folder / WORK / RECORD).is_file():
        return False
    return {entry.name for entry in folder.iterdir()} <= {WORK, *FILES}


def write_json(path: Path, value: Any) -> None:
    """Readable JSON; NaN becomes null, since JSON has no NaN."""
    path.write_text(json.dumps(_finite(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    return value


def read_config(folder: Path) -> dict[str, Any]:
    """The artifact's `config.json`.

    Raises:
        ArtifactError: No artifact there, unreadable, or of a format this version does not know.
    """
    if not folder.is_dir():
        raise ArtifactError(f"There is no artifact at {folder}: {'a file' if folder.exists() else 'nothing'} is there.")
    missing = [name for name in (CONFIG, SCHEMA, WEIGHTS) if not (folder / name).is_file()]
    if missing:
        told = " An interrupted fit is there; load(path, resume=True) goes on with it." if is_of_fit(folder) else ""
        raise ArtifactError(f"{folder} is not a complete artifact. It lacks: {', '.join(missing)}.{told}")
    config = read_json(folder / CONFIG)
    version = config.get("format_version") if isinstance(config, dict) else None
    if not isinstance(version, int):
        raise ArtifactError(f"{folder / CONFIG} has no format_version, so it was not written by featherfit.")
    if version > FORMAT_VERSION:
        raise ArtifactError(
            f"The artifact at {folder} has format {version}; this featherfit reads up to {FORMAT_VERSION}. Upgrade it: "
            "pip install -U featherfit."
        )
    return config


def read_json(path: Path) -> Any:
    """JSON of one of the artifact's files.

    Raises:
        ArtifactError: Not readable as JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ArtifactError(f"{path} cannot be read: {error}.") from None


def digests(folder: Path) -> dict[str, str]:
    """Checksums of what an artifact's predictions depend on, by path in `folder`."""
    from featherfit.checkpoints.fingerprints import remembered_sha256, sha256

    def digest(part: Path) -> str:
        return sha256(part) if part.stat().st_size < LARGE else remembered_sha256(part)

    parts = [folder / WEIGHTS, folder / SCHEMA, *sorted((folder / BASE).rglob("*"))]
    return {part.relative_to(folder).as_posix(): digest(part) for part in parts if part.is_file()}


@contextlib.contextmanager
def written_whole(target: Path) -> Iterator[Path]:
    """A folder to write into that takes `target`'s place when the block ends well, and vanishes otherwise.

    What stood at `target` is an earlier artifact or nothing, and stays until the new one is complete. Files there that
    are not an artifact's own move along.

    Where a fit works in `target`, the new files take their places one by one, `config.json` last: until then there is no
    artifact, and the fit can be gone on with.

    Raises:
        PathExistsError: Something else is at `target`.
    """
    if is_of_fit(target):
        with _written_in_place(target) as fresh:
            yield fresh
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        fresh.chmod(0o755)
        yield fresh
        if not target.exists():
            fresh.rename(target)
            return
        if not target.is_dir():
            raise PathExistsError(f"{target} is a file. Choose another path.")
        old = Path(tempfile.mkdtemp(prefix=f".{target.name}-old-", dir=target.parent))
        target.rename(old)
        try:
            fresh.rename(target)
        except OSError:
            old.rename(target)
            raise
        for other in old.iterdir():
            if other.name not in FILES:
                other.rename(target / other.name)
        shutil.rmtree(old)
    finally:
        if fresh.exists():
            shutil.rmtree(fresh)


@contextlib.contextmanager
def _written_in_place(target: Path) -> Iterator[Path]:
    fresh = target / WORK / "artifact"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    try:
        yield fresh
        for file in [file for file in fresh.rglob("*") if file.is_file()]:
            sync(file)
        (target / CONFIG).unlink(missing_ok=True)
        for name in sorted(FILES, key=CONFIG.__eq__):
            if (target / name).is_dir():
                shutil.rmtree(target / name)
            if (fresh / name).exists():
                (fresh / name).replace(target / name)
            else:
                (target / name).unlink(missing_ok=True)
        sync(target)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
