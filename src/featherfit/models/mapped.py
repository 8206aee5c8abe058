"""Tensors mapped from a file go in; the memory their pages take is given back, and the file keeps the numbers.

Linux maps 64 KB around every number that is read, so a table of which a few rows are used soon lies in memory whole.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch

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
    if not sys.platform.startswith("linux"):
        return [False] * len(tensors)
    files = list(_mapped_files())

    def held(tensor: torch.Tensor) -> bool:
        if tensor.device.type != "cpu" or tensor.is_inference() or tensor._version or not tensor.is_contiguous():
            return False
        start, end = tensor.data_ptr(), tensor.data_ptr() + tensor.nbytes
        return any(first <= start and end <= last for first, last in files)

    return [held(tensor) for tensor in tensors]


def state_of(tensor: torch.Tensor) -> tuple[int, int]:
    """Another one when the tensor has changed or become another; one made in inference mode counts no changes."""
    return tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version


def _mapped_files() -> Iterator[tuple[int, int]]:
    """First address and end of every part of this process that is mapped from a file."""
    for line in Path("/proc/self/maps").read_text(errors="surrogateescape").splitlines():
        addresses, _, _, _, inode, *_ = line.split(maxsplit=5)
        if inode != "0":
            first, last = addresses.split("-")
            yield int(first, 16), int(last, 16)


@cache
def _madvise() -> Any:
    function = ctypes.CDLL(None, use_errno=True).madvise
    function.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return function
