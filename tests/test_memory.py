"""What is asked of the C library's allocator, and what that does."""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
import sys
from types import SimpleNamespace

import pytest

from featherfit import memory
from featherfit.config.schema import EnvConfig
from featherfit.training import device

glibc_only = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="there is no glibc")


@pytest.fixture
def calls(monkeypatch) -> list[tuple[str, int, int]]:
    """Calls of a library that does nothing."""
    made: list[tuple[str, int, int]] = []
    library = SimpleNamespace(
        mallopt=lambda name, value: made.append(("mallopt", name, value)),
        malloc_trim=lambda left: made.append(("trim", 0, left)),
    )
    monkeypatch.setattr(memory, "_glibc", lambda: library)
    return made


def test_what_is_asked(calls):
    memory.keep_freed_memory.__wrapped__()
    memory.release_freed_memory()
    assert calls == [("mallopt", -3, 2**30), ("mallopt", -1, 2**31 - 1), ("trim", 0, 0)]  # numbers of <malloc.h>


def test_what_is_freed_goes_back_until_it_is_to_be_kept_again(calls):
    memory.keep_freed_memory()
    calls.clear()
    memory.return_freed_memory()
    assert calls == [("mallopt", -3, 2**16), ("mallopt", -1, 2**16), ("trim", 0, 0)]
    memory.keep_freed_memory()
    assert calls[3:] == [("mallopt", -3, 2**30), ("mallopt", -1, 2**31 - 1)]


@glibc_only
def test_glibc_takes_it():
    library = memory._glibc()
    assert library is not None
    assert library.mallopt(-3, memory._LARGEST_BLOCK) == 1 == library.mallopt(-1, 2 * memory._LARGEST_BLOCK - 1)


@pytest.mark.parametrize("missing", ["library", "function"])
def test_elsewhere_nothing_happens(missing, monkeypatch):
    def load(name: str) -> object:
        if missing == "library":
            raise OSError(name)
        return SimpleNamespace(mallopt=None)  # a musl has no malloc_trim

    monkeypatch.setattr(ctypes, "CDLL", load)
    assert memory._glibc.__wrapped__() is None
    monkeypatch.setattr(memory, "_glibc", memory._glibc.__wrapped__)
    memory.keep_freed_memory.__wrapped__()
    memory.release_freed_memory()


def test_what_is_free_goes_back_at_every_eighth_forward(calls):
    seen = []
    for forward in memory.released_now_and_then(range(18)):
        seen.append((forward, len(calls)))
    assert [sum(trims == n for _, trims in seen) for n in (0, 1, 2)] == [8, 8, 2]
    assert [forward for forward, _ in seen] == list(range(18))


def test_what_is_free_goes_back_at_every_fourth_layer(calls):
    tidy = memory.Tidier()
    seen = []
    for _ in range(10):
        tidy()
        seen.append(len(calls))
    assert seen == [1] * 4 + [2] * 4 + [3] * 2, "before the first, which finds what the last step left"


@pytest.mark.parametrize(
    ("cache", "capacity"), [("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64"), ("LRU_CACHE_CAPACITY", "32")]
)
def test_kernels_kept_are_few_unless_the_user_said_how_many(cache, capacity, monkeypatch):
    monkeypatch.delenv(cache, raising=False)
    memory.keep_few_kernels()
    assert os.environ[cache] == capacity
    monkeypatch.setenv(cache, "7")
    memory.keep_few_kernels()
    assert os.environ[cache] == "7"


@pytest.mark.parametrize(("gpu", "asked"), [(False, 1), (True, 0)])
def test_only_where_the_cpu_computes(gpu, asked, monkeypatch):
    made: list[int] = []
    monkeypatch.setattr(device, "has_gpu", lambda: gpu)
    monkeypatch.setattr(device, "keep_freed_memory", lambda: made.append(1))
    device.pick_device(EnvConfig(precision="32"))
    assert len(made) == asked


@glibc_only
def test_large_blocks_are_reused_without_page_faults_and_go_back_in_the_end():
    """In a process of its own, since it holds for the rest of it."""
    code = """
import ctypes, resource
from featherfit.memory import keep_freed_memory, release_freed_memory

libc = ctypes.CDLL("libc.so.6")
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
SIZE = 64 << 20

def faults() -> int:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = libc.malloc(SIZE)
    ctypes.memset(block, 1, SIZE)
    libc.free(block)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident() -> int:
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()

print(*[min(faults() for _ in range(3)), keep_freed_memory(), faults(), faults(), resident(), release_freed_memory(), resident()])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    default, _, _, kept, held, _, released = [None if x == "None" else int(x) for x in done.stdout.split()]
    assert default > 20 * max(kept, 1)
    assert held - released > 60e6
