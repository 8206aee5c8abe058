"""Tensors mapped from a file go in; the memory their pages take is given back, and the file keeps the numbers.

Linux maps 64 KB around every number that is read, so a table of which a few rows are used soon lies in memory whole.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
from collections.abc import Iterable, Iterator
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
    madvise = _madvise()
    own = [tensor for tensor in tensors if tensor.device.type == "cpu" and not tensor.is_inference()]
    if madvise is None or not own:
        return 0
    files, released = list(_mapped_files()), 0
    for tensor in own:
        start, end = tensor.data_ptr(), tensor.data_ptr() + tensor.nbytes
        low, high = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE, end // mmap.PAGESIZE * mmap.PAGESIZE
        in_file = any(first <= start and end <= last for first, last in files)
        unchanged = tensor._version == 0 and tensor.is_contiguous()
        if unchanged and in_file and low < high and madvise(low, high - low, _DONT_NEED) == 0:
            released += high - low
    return released


def _mapped_files() -> Iterator[tuple[int, int]]:
    """First address and end of every part of this process that is mapped from a file."""
    for line in Path("/proc/self/maps").read_text(errors="surrogateescape").splitlines():
        addresses, _, _, _, inode, *_ = line.split(maxsplit=5)
        if inode != "0":
            first, last = addresses.split("-")
            yield int(first, 16), int(last, 16)


@cache
def _madvise() -> Any | None:
    if not sys.platform.startswith("linux"):
        return None
    function = ctypes.CDLL(None, use_errno=True).madvise
    function.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return function
