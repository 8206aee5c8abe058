"""What the C library's allocator and oneDNN keep between forwards, and when it goes back to the system."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable, Iterator
from functools import cache
from typing import TypeVar

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST_BLOCK = 1 << 30
_SMALL_BLOCK = 1 << 16
_KEPT_KERNELS = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "64", "LRU_CACHE_CAPACITY": "32"}
_FORWARDS = 8
TIDIED_AFTER = 4
"""Layers after which a `Tidier` gives back what is free."""

T = TypeVar("T")


@cache
def keep_freed_memory() -> None:
    """Lets glibc keep freed activations for the next forward, for the rest of the process; elsewhere nothing happens.

    By default large blocks go back to the system when freed, and the next forward pays a page fault for every 4 KB it
    touches: about a tenth of a training step. `released_now_and_then` gives back what gathers between the blocks.
    """
    if (glibc := _glibc()) is not None:
        glibc.mallopt(_M_MMAP_THRESHOLD, _LARGEST_BLOCK)
        glibc.mallopt(_M_TRIM_THRESHOLD, 2 * _LARGEST_BLOCK - 1)


def return_freed_memory() -> None:
    """Lets glibc give every block of 64 KB or more back as soon as it is freed, until `keep_freed_memory` is called.

    A block that is kept seldom serves the next one of its size: glibc cuts an aligned block (torch's all are) out of a
    larger one, and something small soon sits in the cuttings. So a process that keeps what it frees grows to twice its
    activations and more; one that gives it back takes what is in use, and a tenth longer.
    """
    keep_freed_memory.cache_clear()
    if (glibc := _glibc()) is not None:
        glibc.mallopt(_M_MMAP_THRESHOLD, _SMALL_BLOCK)
        glibc.mallopt(_M_TRIM_THRESHOLD, _SMALL_BLOCK)
        glibc.malloc_trim(0)


def release_freed_memory() -> None:
    """Gives what is free back to the system; after training, which needs more than what follows."""
    if (glibc := _glibc()) is not None:
        glibc.malloc_trim(0)


def released_now_and_then(forwards: Iterable[T]) -> Iterator[T]:
    """The same items; at every eighth, and not at the first, what is free goes back to the system.

    Batches differ in size, so that what one has freed fits the next badly and the process grows by a third. Giving it
    back takes some 20 ms.
    """
    for number, forward in enumerate(forwards):
        if number and number % _FORWARDS == 0:
            release_freed_memory()
        yield forward


class Tidier:
    """Called before every layer, it gives back what is free at every fourth: `released_now_and_then` in the small.

    A large model's layers recompute and decode more than they keep, in blocks of many sizes between which the little they
    keep comes to lie: without this a forward of 1.2 billion parameters grew by 0.6 GB, of which nothing was in use.
    """

    def __init__(self) -> None:
        self._layers = 0

    def __call__(self) -> None:
        if self._layers % TIDIED_AFTER == 0:
            release_freed_memory()
        self._layers += 1


def keep_few_kernels() -> None:
    """Lets oneDNN, and PyTorch above it, keep the kernels of a forward or two, not of 1,024 shapes; if not started yet.

    A kernel takes 0.3 MB and 0.2 ms to make, and every shape of batch needs about twenty. A short training fills the
    1,024 places of PyTorch's own cache (`LRU_CACHE_CAPACITY`) with 70 MB, of which nothing is asked for again.
    """
    for variable, capacity in _KEPT_KERNELS.items():
        os.environ.setdefault(variable, capacity)


@cache
def _glibc() -> ctypes.CDLL | None:
    try:
        library = ctypes.CDLL("libc.so.6")
    except OSError:
        return None
    return library if hasattr(library, "mallopt") and hasattr(library, "malloc_trim") else None
