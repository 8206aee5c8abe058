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
from featherfit.storage import exchanged, sync

FORMAT_VERSION = 4
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
RECORD = "fit.json"
"""In it: what the fit is."""
FILES = (CONFIG, SCHEMA, WEIGHTS, METRICS, CARD, CHECKSUMS, BASE)
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

    Where a fit works in `target`, the new files take their places one by one, `config.json` last: until then there is no
    artifact, and the fit can be gone on with.

    Raises:
        PathExistsError: Something else is at `target`.
    """
    if is_of_fit(target):
        with _written_in_place(target) as fresh:
            yield fresh
        return
    target = target.resolve()  # through a link, which stays what it is
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    with contextlib.ExitStack() as undoing:
        undoing.callback(shutil.rmtree, fresh, ignore_errors=True)
        fresh.chmod(0o755)
        yield fresh
        _sync_files(fresh)
        old = _placed(fresh, target)
        undoing.pop_all()
    sync(target.parent)  # before what it replaces is gone
    if old is not None:
        for other in old.iterdir():
            if other.name not in FILES:
                other.rename(target / other.name)
        shutil.rmtree(old)


def _placed(fresh: Path, target: Path) -> Path | None:
    """Moves a folder to `target`; where what stood there is now, None if nothing did."""
    if not target.exists():
        fresh.rename(target)
        return None
    if not target.is_dir():
        raise PathExistsError(f"{target} is a file. Choose another path.")
    if exchanged(fresh, target):
        return fresh
    # Whoever dies between these two leaves the earlier artifact under the name of `old`.
    old = Path(tempfile.mkdtemp(prefix=f".{target.name}-old-", dir=target.parent))
    target.rename(old)
    try:
        fresh.rename(target)
    except OSError:
        old.rename(target)
        raise
    return old


def _sync_files(folder: Path) -> None:
    for file in [file for file in folder.rglob("*") if file.is_file()]:
        sync(file)


@contextlib.contextmanager
def _written_in_place(target: Path) -> Iterator[Path]:
    fresh = target / WORK / "artifact"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    try:
        yield fresh
        _sync_files(fresh)
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
