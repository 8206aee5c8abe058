"""Tensors mapped from a file go in; the memory their pages take is given back, and the file keeps the numbers.

Linux maps 64 KB around every number that is read, so a table of which a few rows are used soon lies in memory whole.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
import weakref
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch

from featherfit.errors import CheckpointError

_DONT_NEED = 4  # MADV_DONTNEED, the same on all of Linux


def release_pages(tensors: Iterable[torch.Tensor]) -> int:
    """Gives back the memory of tensors whose numbers a file holds; of others, nothing happens.

    What is read of them later comes from the file again, mostly from the system's cache of it.

    Args:
        tensors: A tensor that was written to since it was mapped is left alone.

    Returns:
        Bytes of the pages given up, in memory or not: those that lie in one tensor whole.
    """
    own = list(tensors)
    return sum(give_up(tensor) for tensor, held in zip(own, files_hold(own), strict=True) if held)


def give_up(tensor: torch.Tensor) -> int:
    """`release_pages` of one tensor of which `files_hold` is known; of any other, the numbers would be lost."""
    madvise = _madvise()
    low = -(-tensor.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
    high = (tensor.data_ptr() + tensor.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE
    return high - low if low < high and madvise(low, high - low, _DONT_NEED) == 0 else 0


def files_hold(tensors: Sequence[torch.Tensor]) -> list[bool]:
    """Which of these tensors are mapped from a file and unchanged; on Linux, elsewhere none."""
    parts = _mapped_parts()
    return [_part_of(tensor, parts) is not None for tensor in tensors]


class FileRows:
    """Reads rows of a mapped tensor from its file: in a quarter of the time that mapped pages take, of which none is touched."""

    def __init__(self, tensor: torch.Tensor):
        """Opens the file.

        Args:
            tensor: (rows, D); `files_hold` it.

        Raises:
            FileNotFoundError: The file is no longer there, or another took its place; the mapping still holds it.
        """
        part = _part_of(tensor, _mapped_parts())
        if part is None:
            raise FileNotFoundError("No file holds these rows.")
        self._path, self._file = part.path, os.open(part.path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._file)
        if os.fstat(self._file).st_ino != part.inode:
            raise FileNotFoundError(f"{part.path} is another file now.")
        self._start = part.offset + tensor.data_ptr() - part.first
        self._width, self._dtype = tensor.shape[1], tensor.dtype

    def __call__(self, numbers: torch.Tensor) -> torch.Tensor:
        """Numbers (N,) of rows to rows (N, D), in the file's type.

        Raises:
            CheckpointError: The file has become shorter.
        """
        size = self._width * self._dtype.itemsize
        found = torch.empty(len(numbers) * size, dtype=torch.uint8)
        view = memoryview(found.numpy())  # type: ignore[arg-type]  # numpy's types call it no buffer before Python 3.12
        for at, number in zip(range(0, len(view), size), numbers.tolist(), strict=True):
            if os.preadv(self._file, [view[at : at + size]], self._start + number * size) != size:
                raise CheckpointError(f"{self._path} has changed since it was loaded. Load the predictor again.")
        return found.view(self._dtype).view(len(numbers), self._width)


def state_of(tensor: torch.Tensor) -> tuple[int, int]:
    """Another one when the tensor has changed or become another; one made in inference mode counts no changes."""
    return tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version


class _Part(NamedTuple):
    """What of this process is mapped from a file: addresses, and where they lie in it."""

    first: int
    end: int
    offset: int
    inode: int
    path: str


def _mapped_parts() -> list[_Part]:
    """All of them on Linux, elsewhere none."""
    found: list[_Part] = []
    if not sys.platform.startswith("linux"):
        return found
    for line in Path("/proc/self/maps").read_text(errors="surrogateescape").splitlines():
        addresses, _, offset, _, inode, *path = line.split(maxsplit=5)
        if inode != "0":
            first, end = addresses.split("-")
            found.append(_Part(int(first, 16), int(end, 16), int(offset, 16), int(inode), path[0] if path else ""))
    return found


def _part_of(tensor: torch.Tensor, parts: Sequence[_Part]) -> _Part | None:
    """The one that holds a tensor whole, which has not changed since."""
    if tensor.device.type != "cpu" or tensor.is_inference() or tensor._version or not tensor.is_contiguous():
        return None
    start, end = tensor.data_ptr(), tensor.data_ptr() + tensor.nbytes
    return next((part for part in parts if part.first <= start and end <= part.end), None)


@cache
def _madvise() -> Any:
    function = ctypes.CDLL(None, use_errno=True).madvise
    function.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return function
