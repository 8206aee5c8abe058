"""A call goes in; the most memory its tensors took beyond what was there before comes out, in bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

_ALLOCATION = "[memory]"  # what PyTorch's profiler calls an allocation or, with a size below zero, its end


def peak_of(call: Callable[[], Any], place: torch.device) -> int:
    """Runs `call` and counts what PyTorch's allocator was asked for: results, what is kept for backward, temporaries.

    Args:
        call: Has to run in this thread; on a CPU, PyTorch runs backward passes there too.
        place: The device whose memory counts.
    """
    if place.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with torch.autograd.profiler.profile(use_cpu=True, profile_memory=True) as found:
        call()
    assert found.kineto_results is not None
    events = [event for event in found.kineto_results.events() if event.name() == _ALLOCATION]
    return largest_sum([(event.start_ns(), event.nbytes()) for event in events])


def largest_sum(changes: list[tuple[int, int]]) -> int:
    """The largest running sum of changes, each a time and a size, in order of time; 0 at least."""
    now = most = 0
    for _, size in sorted(changes, key=lambda change: change[0]):
        now += size
        most = max(most, now)
    return most
