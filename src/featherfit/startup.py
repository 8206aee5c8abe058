"""Imports, loading and collections go in; the same, without what only takes time in them, comes out."""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any


@contextlib.contextmanager
def collection_paused() -> Iterator[None]:
    """Runs a block that creates many objects, all of them to stay, with Python's garbage collector paused.

    Importing torch and transformers and reading a vocabulary creates a million objects. The collector goes through all
    of them every time there are a quarter more, which took a third of the time to the first prediction (4.1 s against
    2.9 s). What the block created counts as old afterwards, as if it had survived that; the collector's state is what
    it was, and a block within a block changes nothing.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        if gc.get_freeze_count() == 0:  # else somebody keeps frozen objects, and these would be thawed too
            gc.freeze()
            gc.unfreeze()
        gc.enable()


@contextlib.contextmanager
def older_objects_spared() -> Iterator[None]:
    """Runs a block whose full collections go through what it created, and through nothing older.

    Going through all that torch and transformers created takes 0.2 s each time. Where somebody keeps frozen objects, such as
    a block around this one, nothing changes: they would be thawed with the rest.
    """
    if gc.get_freeze_count():
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@contextlib.contextmanager
def scipy_when_called() -> Iterator[None]:
    """Imports transformers' models in this block without `scipy.optimize`, which takes 0.2 s and serves no text model.

    Every model's module imports all losses, and those for object detection import one function of it. Here they get a
    function that imports it when it is called; whatever else is asked of the module meanwhile comes from the real one.
    """
    name = "scipy.optimize"
    if name in sys.modules or "transformers.modeling_utils" in sys.modules or not _is_installed("scipy"):
        yield
        return
    sys.modules[name] = _ScipyOptimize(name)
    try:
        yield
    finally:
        if isinstance(sys.modules[name], _ScipyOptimize):
            del sys.modules[name]


class _ScipyOptimize(ModuleType):
    """Stands in for `scipy.optimize` until something but the one function is asked of it."""

    @staticmethod
    def linear_sum_assignment(*arguments: Any, **options: Any) -> Any:
        """scipy's function of that name."""
        from scipy.optimize import linear_sum_assignment

        return linear_sum_assignment(*arguments, **options)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


def _is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None
