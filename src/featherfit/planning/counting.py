"""A call goes in; the most memory its tensors took beyond what was there before comes out, in bytes."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def peak_of(call: Callable[[], Any], place: torch.device) -> int:
    """Runs `call` and counts the tensors it makes: results, what is kept for backward, temporaries between operations.

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
    with _Counter() as counter:
        call()
    return counter.most


class _Counter(TorchDispatchMode):
    """Adds up the storages that operations return while they live.

    Attributes:
        most: The largest sum there was.
    """

    def __init__(self) -> None:
        super().__init__()
        self.most = self._now = 0
        self._alive: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = {_key(leaf) for leaf in tree_leaves((args, kwargs)) if _has_storage(leaf)}
        for leaf in tree_leaves(result):
            if _has_storage(leaf) and (key := _key(leaf)) not in given and key not in self._alive:
                storage = leaf.untyped_storage()
                self._alive.add(key)
                self._now += storage.nbytes()
                weakref.finalize(storage, self._gone, key, storage.nbytes()).atexit = False
        self.most = max(self.most, self._now)
        return result

    def _gone(self, key: int, size: int) -> None:
        self._alive.discard(key)
        self._now -= size


def _has_storage(leaf: Any) -> bool:
    return isinstance(leaf, torch.Tensor) and leaf.layout == torch.strided and leaf.device.type == "cpu"


def _key(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage()._cdata
