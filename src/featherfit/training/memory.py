"""How the C library's allocator treats memory that a forward has freed."""

from __future__ import annotations

import ctypes
from functools import cache

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST_BLOCK = 1 << 30


@cache
def keep_freed_memory() -> None:
    """Lets glibc keep freed activations for the next forward, for the rest of the process; elsewhere nothing happens.

    By default large blocks go back to the system when freed, and the next forward pays a page fault for every 4 KB it
    touches: about a tenth of a training step. The peak stays the same; `release_freed_memory` gives the rest back.
    """
    if (glibc := _glibc()) is not None:
        glibc.mallopt(_M_MMAP_THRESHOLD, _LARGEST_BLOCK)
        glibc.mallopt(_M_TRIM_THRESHOLD, 2 * _LARGEST_BLOCK - 1)


def release_freed_memory() -> None:
    """Gives what is free back to the system; after training, which needs more than what follows."""
    if (glibc := _glibc()) is not None:
        glibc.malloc_trim(0)


@cache
def _glibc() -> ctypes.CDLL | None:
    try:
        library = ctypes.CDLL("libc.so.6")
    except OSError:
        return None
    return library if hasattr(library, "mallopt") and hasattr(library, "malloc_trim") else None
