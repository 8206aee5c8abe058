"""Files to write go in; they appear whole or not at all, and what is wrong with a disk comes out as `StorageError`."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featherfit.errors import FeatherfitError, StorageError

if TYPE_CHECKING:
    import torch

PART = ".part"
"""Ending of a file under way; one that is left over was never finished."""

_REMEDIES = {
    errno.ENOSPC: "Make room on that disk.",
    errno.EDQUOT: "Make room within your quota.",
    errno.EFBIG: "The limit on the size of files (ulimit -f) has to be higher.",
    errno.EROFS: "Choose a folder that can be written to.",
    errno.EACCES: "Choose a folder that can be written to.",
    errno.EPERM: "Choose a folder that can be written to.",
    errno.ENOENT: "The folder was removed meanwhile.",
    errno.ENOTDIR: "A part of that path is a file.",
    errno.EEXIST: "A part of that path is a file.",
}
_OS_ERROR = re.compile(r"os error (\d+)")


def expanded(path: str | Path) -> Path:
    """The path with `~` and `~user` replaced by home folders; those of nobody stay as they are, and no file is there."""
    return Path(os.path.expanduser(path))


@contextlib.contextmanager
def storing(what: str, where: Path) -> Iterator[None]:
    """Context in which something is written.

    Args:
        what: What it is, as the beginning of a sentence.
        where: The file or folder.

    Raises:
        StorageError: The system refused.
    """
    try:
        yield
    except OSError as error:
        if isinstance(error, FeatherfitError):
            raise
        reason = os.strerror(error.errno) if error.errno else str(error)
        remedy = _REMEDIES.get(error.errno or 0, "")
        raise StorageError(f"{what} cannot be written to {where}: {reason}. {remedy}".strip()) from error


@contextlib.contextmanager
def replaced(file: Path) -> Iterator[Path]:
    """A path to write to, which takes the place of `file`, on the disk itself, when the block ends well.

    Raises:
        OSError: The system refused; `file` is what it was.
    """
    part = file.with_name(f"{file.name}{PART}")
    try:
        yield part
        sync(part)
        os.replace(part, file)
        sync(file.parent)
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def exchanged(one: Path, other: Path) -> bool:
    """Swaps two folders in one step, so that each name always has one: `renameat2` of Linux.

    Returns:
        Whether that was done. Other systems and some file systems have no such step; nothing is changed there.
    """
    if sys.platform != "linux":
        return False
    import ctypes

    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return call is not None and call(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0


def sync(path: Path) -> None:
    """Waits until a file, or what a folder lists, is on the disk."""
    if os.name == "nt" and path.is_dir():  # where folders cannot be opened
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system that cannot do so for folders
            raise
    finally:
        os.close(descriptor)


def write_json_whole(file: Path, value: Any) -> None:
    """Writes strict JSON in one step.

    Raises:
        OSError: The system refused.
        ValueError: NaN or infinity in it.
    """
    with replaced(file) as part:
        part.write_text(json.dumps(value, ensure_ascii=False, allow_nan=False, indent=1) + "\n", encoding="utf-8")


def write_tensors_whole(file: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Writes safetensors in one step.

    Raises:
        OSError: The system refused.
    """
    with replaced(file) as part:
        write_tensors(part, tensors)


def write_tensors(file: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Writes safetensors.

    Args:
        file: To be written over.
        tensors: By name, on any device.

    Raises:
        OSError: The system refused.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    file.touch()
    mode = file.stat().st_mode
    try:
        save_file({name: t.detach().contiguous().cpu() for name, t in tensors.items()}, file, metadata={"format": "pt"})
    except SafetensorError as error:
        found = _OS_ERROR.search(str(error))
        if found is None:
            raise
        code = int(found[1])
        raise OSError(code, os.strerror(code), str(file)) from error
    file.chmod(mode)  # safetensors' own files are for nobody but their owner
