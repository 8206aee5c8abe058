"""The files of an artifact, and how they are read and written: JSON and safetensors, whole or not at all."""

from __future__ import annotations

import contextlib
import datetime
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from featherfit.errors import ArtifactError, PathExistsError

FORMAT_VERSION = 2
"""What changed with each: `artifact/versions.py`."""
CONFIG = "config.json"
SCHEMA = "schema.json"
WEIGHTS = "trainable.safetensors"
METRICS = "metrics.json"
CARD = "README.md"
CHECKSUMS = "SHA256SUMS"
BASE = "base"
WORK = "training"
"""Folder beside the artifact's files where a fit keeps its states."""
FILES = (CONFIG, SCHEMA, WEIGHTS, METRICS, CARD, CHECKSUMS, BASE)
LARGE = 1 << 24
"""Bytes from which on a file is read for its checksum only if it may have changed since it was last read."""


def is_artifact(folder: Path) -> bool:
    """Whether `folder` holds an artifact of ours, by its config."""
    return (folder / CONFIG).is_file() and (folder / WEIGHTS).is_file()


def is_free(folder: Path) -> bool:
    """Whether `folder` does not exist or is empty."""
    return not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))


def output_path(*wanted: str | Path | None) -> Path:
    """The first of these that is given, or a new folder under `featherfit-models`.

    Raises:
        PathExistsError: It is not empty.
    """
    given = next((folder for folder in wanted if folder is not None), None)
    now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S-%f")
    path = Path("featherfit-models") / now if given is None else Path(given).expanduser()
    if not is_free(path):
        raise PathExistsError(f"path {path} exists and is not empty. Choose another one; fit overwrites nothing.")
    return path


def discard_work(folder: Path) -> None:
    """Removes the states of a fit, and the folder itself if nothing else came of it."""
    if (folder / WORK).is_dir():
        shutil.rmtree(folder / WORK)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def is_of_fit(folder: Path) -> bool:
    """Whether `folder` holds the states of a fit under way and nothing else."""
    return folder.is_dir() and [entry.name for entry in folder.iterdir()] == [WORK]


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


def write_checksums(folder: Path) -> None:
    """Writes the checksums of everything predictions depend on, in the form of `sha256sum`, which can check them too."""
    from featherfit.checkpoints.fingerprints import remembered_sha256, sha256

    parts = [*(folder / name for name in (CONFIG, SCHEMA, WEIGHTS, METRICS)), *sorted((folder / BASE).rglob("*"))]
    lines = [
        f"{sha256(part) if part.stat().st_size < LARGE else remembered_sha256(part)}  {part.relative_to(folder).as_posix()}\n"
        for part in parts
        if part.is_file()
    ]
    (folder / CHECKSUMS).write_text("".join(lines), encoding="utf-8")


def parse_checksums(content: bytes, file: Path) -> dict[str, str]:
    """Digest by path, as `write_checksums` wrote them.

    Raises:
        ArtifactError: Lines of another form, or a path twice.
    """
    try:
        lines = [line.split("  ", 1) for line in content.decode("utf-8").splitlines()]
    except UnicodeDecodeError as error:
        raise ArtifactError(f"{file} cannot be read: {error}.") from None
    found = {line[1]: line[0] for line in lines if len(line) == 2}
    if len(found) < len(lines):
        raise ArtifactError(f"{file} is damaged: every line has to be a checksum, two spaces and a file's name.")
    return found


@contextlib.contextmanager
def written_whole(target: Path) -> Iterator[Path]:
    """A folder to write into that takes `target`'s place when the block ends well, and vanishes otherwise.

    What stood at `target` is an earlier artifact or nothing, and stays until the new one is complete. Files there that
    are not an artifact's own move along.

    Raises:
        PathExistsError: Something else is at `target`.
    """
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
