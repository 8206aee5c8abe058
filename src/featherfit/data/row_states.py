"""States of many rows' tokens go in, batch by batch; those of any rows come out, from memory or a file that nobody sees."""

from __future__ import annotations

import contextlib
import mmap
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

import numpy as np
import torch

from featherfit.config.text import show_bytes
from featherfit.errors import StorageError
from featherfit.storage import storing

_GIVEN_BACK_AFTER = 1 << 26
"""Bytes read from the file after which the memory of its pages is given back; the system's cache keeps them."""

_WHAT = "What the frozen layers make of the rows"


class RowStates:
    """States of every token of some rows, (D,) each.

    Attributes:
        flat: All of them, (N, D), one row after another.
        starts: Where each row begins there, (rows,).
        file: The file that holds them, mapped; None if memory does.
    """

    def __init__(self, flat: torch.Tensor, file: mmap.mmap | None, starts: np.ndarray, lengths: np.ndarray):
        """Of rows that begin at `starts` (rows,) and have `lengths` (rows,); several may begin at the same place."""
        self.flat, self.starts, self.file = flat, starts, file
        self._lengths, self._read = lengths, 0

    def take(self, rows: np.ndarray) -> torch.Tensor:
        """States (T, D) of the rows at these positions, one row after another."""
        lengths = self._lengths[rows]
        begins = np.cumsum(lengths) - lengths
        places = np.arange(lengths.sum()) + np.repeat(self.starts[rows] - begins, lengths)
        found = self.flat[torch.from_numpy(places)]
        self._read += found.nbytes
        if self.file is not None and self._read > _GIVEN_BACK_AFTER and hasattr(mmap, "MADV_DONTNEED"):
            self.file.madvise(mmap.MADV_DONTNEED)
            self._read = 0
        return found

    def told(self) -> str:
        """How large they are, and where."""
        return f"{show_bytes(self.flat.nbytes)} {'in memory' if self.file is None else 'on disk'}"


def keep_states(
    parts: Iterable[tuple[np.ndarray, torch.Tensor]], lengths: np.ndarray, total: int, *, in_memory: int, folder: Path
) -> RowStates:
    """Keeps states as they come.

    The file has no name where the system can do without one, and else goes with the last who has it open; so nothing is left
    behind, however the process ends.

    Args:
        parts: Positions of some rows, and the states (T, D) of their tokens, one row after another; at least one.
        lengths: Tokens of all rows, (rows,).
        total: Tokens of the rows in all parts.
        in_memory: Most bytes to keep in memory; more go to a file.
        folder: Where to put it.

    Raises:
        StorageError: There is no room for it, or the system refuses.
    """
    starts, done = np.zeros(len(lengths), dtype=np.int64), 0
    with contextlib.ExitStack() as stack:
        keeper: _Memory | _File | None = None
        for rows, states in parts:
            if keeper is None:
                size = total * states[0].nbytes
                keeper = _Memory(states, total) if size <= in_memory else stack.enter_context(_File.open(folder, size))
            starts[rows] = done + np.cumsum(lengths[rows]) - lengths[rows]
            keeper.add(states)
            done += len(states)
        assert keeper is not None and done == total
        flat, file = keeper.all_of(states)
        return RowStates(flat, file, starts, lengths)


class _Memory:
    def __init__(self, like: torch.Tensor, total: int):
        self._flat, self._done = like.new_empty(total, like.shape[1]), 0

    def add(self, states: torch.Tensor) -> None:
        self._flat[self._done : self._done + len(states)] = states
        self._done += len(states)

    def all_of(self, like: torch.Tensor) -> tuple[torch.Tensor, None]:
        return self._flat, None


class _File:
    def __init__(self, file: IO[bytes], folder: Path):
        self._file, self._folder = file, folder

    @classmethod
    @contextlib.contextmanager
    def open(cls, folder: Path, size: int) -> Iterator[_File]:
        with storing(_WHAT, folder):
            folder.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(folder).free
            if free < size:
                raise StorageError(
                    f"{_WHAT} takes {show_bytes(size)}, and {folder} has {show_bytes(free)} left. "
                    "Make room, let FEATHERFIT_HOME name a folder on another disk, or set optim.prefix_cache=off."
                )
            file = tempfile.TemporaryFile(dir=folder)
        with file:
            yield cls(file, folder)

    def add(self, states: torch.Tensor) -> None:
        with storing(_WHAT, self._folder):
            self._file.write(states.contiguous().view(torch.uint8).numpy().data)

    def all_of(self, like: torch.Tensor) -> tuple[torch.Tensor, mmap.mmap]:
        with storing(_WHAT, self._folder):
            self._file.flush()
            # Copied where written to, which never happens: torch wants memory that could be.
            mapped = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_COPY)
        return torch.frombuffer(mapped, dtype=like.dtype).view(-1, like.shape[1]), mapped
