"""A folder that nobody vouches for goes in; an `Opened` artifact, checked as far as it can be without its numbers, comes out.

Nothing here takes more memory than the JSON limits allow, follows a link, or opens a file that an artifact does not have.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featherfit.artifact import format as files
from featherfit.artifact.documents import Documents, read_documents
from featherfit.artifact.format import (
    BASE,
    CARD,
    CHECKSUMS,
    CONFIG,
    METRICS,
    SCHEMA,
    WEIGHTS,
    is_of_fit,
    parse_checksums,
)
from featherfit.artifact.headers import TensorInfo, read_header
from featherfit.artifact.standalone import (
    FURTHER_ENCODERS,
    check_settings,
    is_settings,
    may_be_in_base,
    of_encoder,
    read_base_headers,
)
from featherfit.artifact.strict_json import MOST_BYTES, parse_object
from featherfit.artifact.versions import upgraded
from featherfit.errors import ArtifactError
from featherfit.storage import expanded

_TOP = (CONFIG, SCHEMA, WEIGHTS, METRICS, CHECKSUMS, CARD)


@dataclass(frozen=True)
class Opened:
    """An artifact whose numbers have not been read.

    Attributes:
        folder: Where it is.
        documents: Its JSON.
        weights: The tensors that were trained.
        base: The tensors of an encoder inside it; none if there is none.
        base_config: The encoder's config, where it is inside.
        further: Config and tensors of the other encoders inside it, by their name.
        sizes: Bytes of every file, by path in the folder.
    """

    folder: Path
    documents: Documents
    weights: dict[str, TensorInfo]
    base: dict[str, TensorInfo]
    base_config: dict[str, Any] | None
    further: dict[str, tuple[dict[str, Any] | None, dict[str, TensorInfo]]]
    sizes: dict[str, int]

    def verify(self) -> None:
        """Compares every file with its checksum; reads all of them.

        Raises:
            ArtifactError: A file that was changed or damaged.
        """
        from featherfit.checkpoints.fingerprints import remembered_sha256, sha256

        for name, recorded in self.documents.checksums.items():
            file = self.folder / name
            try:
                found = sha256(file) if self.sizes[name] < files.LARGE else remembered_sha256(file)
            except OSError as error:
                raise ArtifactError(f"{file} cannot be read: {error}.") from None
            _compare(file, recorded, found)


def open_artifact(path: str | Path) -> Opened:
    """Looks at every file of an artifact, at weights only as far as their headers.

    Args:
        path: The artifact's folder.

    Raises:
        ArtifactError: Anything that is not as featherfit writes it.
    """
    folder = expanded(path)
    if not folder.is_dir():
        raise ArtifactError(f"There is no artifact at {folder}: {'a file' if folder.exists() else 'nothing'} is there.")
    sizes = dict(_files(folder))
    missing = [name for name in (CONFIG, SCHEMA, WEIGHTS) if name not in sizes]
    if missing:
        told = " An interrupted fit is there; load(path, resume=True) goes on with it." if is_of_fit(folder) else ""
        raise ArtifactError(f"{folder} is not a complete artifact. It lacks: {', '.join(missing)}.{told}")
    contents = {
        name: _read(folder / name, sizes[name]) for name in (CONFIG, SCHEMA, METRICS, CHECKSUMS) if name in sizes
    }
    found = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items() if name != CHECKSUMS}
    checksums = parse_checksums(contents.get(CHECKSUMS, b""), folder / CHECKSUMS)
    for name, digest in found.items():  # damage is told by a checksum rather than by what the JSON lacks
        _compare(folder / name, checksums.get(name, digest), digest)
    state = {
        "config": parse_object(contents[CONFIG], str(folder / CONFIG)),
        "schema_file": parse_object(contents[SCHEMA], str(folder / SCHEMA)),
        "summary": parse_object(contents.get(METRICS, b"{}"), str(folder / METRICS)),
        "checksums": checksums,
        "found": found,
    }
    state = upgraded(state, folder)
    del state["found"]
    documents = read_documents(state, folder)
    _compare_names(folder, documents.checksums, sizes)
    for name, digest in found.items():
        _compare(folder / name, documents.checksums[name], digest)
    names = frozenset(name.removeprefix(f"{BASE}/") for name in sizes if name.startswith(f"{BASE}/"))
    base_config, base = _base(folder / BASE, names)
    inside = {name: of_encoder(names, name) for name in FURTHER_ENCODERS}
    further = {name: _base(folder / BASE / name, own) for name, own in inside.items() if own}
    return Opened(folder, documents, read_header(folder / WEIGHTS), base, base_config, further, sizes)


def _files(folder: Path) -> Iterator[tuple[str, int]]:
    """Path and size of the artifact's own files; others at the top are none of our business and are never opened."""
    try:
        yield from ((name, _size(folder / name)) for name in _TOP if os.path.lexists(folder / name))
        if not os.path.lexists(folder / BASE):
            return
        _refuse_link(folder / BASE)
        for entry in _walk(folder / BASE):
            name = entry.relative_to(folder / BASE).as_posix()
            if not may_be_in_base(name):
                raise ArtifactError(f"{entry} is not a file that an artifact has; it is not opened. Remove it.")
            yield f"{BASE}/{name}", _size(entry)
    except OSError as error:
        raise ArtifactError(f"The artifact at {folder} cannot be read: {error}.") from None


def _walk(base: Path) -> Iterator[Path]:
    """Files in `base` and in folders right in it."""
    for entry in base.iterdir():
        _refuse_link(entry)
        yield from entry.iterdir() if entry.is_dir() else (entry,)


def _size(file: Path) -> int:
    """Bytes of a plain file."""
    _refuse_link(file)
    status = file.lstat()
    if not stat.S_ISREG(status.st_mode):
        raise ArtifactError(f"{file} is not a plain file.")
    return status.st_size


def _refuse_link(path: Path) -> None:
    if path.is_symlink():
        raise ArtifactError(
            f"{path} is a symbolic link, and what an artifact says has to be in it. Copy it with what its links point to "
            "(cp -RL), or download it with local_dir=."
        )


def _read(file: Path, size: int) -> bytes:
    """A small file, no more than was looked at."""
    if size > MOST_BYTES:
        raise ArtifactError(f"{file} has {size:,} bytes; at most {MOST_BYTES:,} are read.")
    try:
        with file.open("rb") as opened:
            return opened.read(size + 1)
    except OSError as error:
        raise ArtifactError(f"{file} cannot be read: {error}.") from None


def _base(folder: Path, names: frozenset[str]) -> tuple[dict[str, Any] | None, dict[str, TensorInfo]]:
    """Config and tensors of an encoder inside, whose files are right in `folder`."""
    config = None
    for name in sorted(filter(is_settings, names)):
        file = folder / name
        settings = check_settings(name, _read(file, _size(file)), str(file), names)
        config = settings if name == CONFIG else config
    return config, read_base_headers(folder, names)


def _compare_names(folder: Path, recorded: Mapping[str, str], sizes: Mapping[str, int]) -> None:
    """Recorded names are compared with what is there, never opened, so that they cannot lead out of the artifact."""
    lacking = sorted(recorded.keys() - sizes.keys())
    if lacking:
        raise ArtifactError(f"{folder} is not a complete artifact. It lacks: {', '.join(lacking[:5])}.")
    unrecorded = sorted(sizes.keys() - recorded.keys() - {CHECKSUMS, CARD})
    if unrecorded:
        raise ArtifactError(
            f"{folder / CHECKSUMS} does not speak of {', '.join(unrecorded[:5])}: the artifact is damaged."
        )


def _compare(file: Path, recorded: str, found: str) -> None:
    if found != recorded:
        raise ArtifactError(f"{file} was changed or damaged: its checksum is not the recorded one.")
