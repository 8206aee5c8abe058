"""Forwards that memory does not suffice for go in; smaller ones that hold the same rows come out."""

from __future__ import annotations

import contextlib
import gc
import warnings
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch

from featherfit.data.batch import collate, cut_evenly
from featherfit.data.dataset import Dataset
from featherfit.errors import FeatherfitError
from featherfit.memory import release_freed_memory
from featherfit.types import Batch

T = TypeVar("T")

_MESSAGES = (
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)
"""What torch says where it has no exception of its own for it."""


class DoesNotFitError(FeatherfitError):
    """Memory ran out in the work on `batch`; the allocator's own error is the cause. `until_it_fits` catches it."""

    def __init__(self, batch: Batch):
        super().__init__(f"{len(batch)} rows of up to {batch.input_ids.shape[1]} tokens")
        self.batch = batch


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a GPU or on the host."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(message in str(error) for message in _MESSAGES)


@contextlib.contextmanager
def fits(batch: Batch) -> Iterator[None]:
    """Context of the work on a batch.

    Raises:
        DoesNotFitError: Memory ran out.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise DoesNotFitError(batch) from error


class TokenLimit:
    """Most tokens one forward takes. It falls when memory runs out, and does not rise again.

    Attributes:
        tokens: The limit as it is now, at least 1; a single row may have more.
        of_epoch: What it was when the epoch under way was cut into batches.
        padded: Whether padding counts, as it does for a model that computes it.
    """

    def __init__(self, tokens: int, dataset: Dataset, pad_id: int, *, padded: bool, remedy: str):
        """Starts at `tokens`.

        Args:
            tokens: Most tokens per forward.
            dataset: Where the rows of all batches are from.
            pad_id: Token to pad with.
            padded: Whether padding counts.
            remedy: A sentence that says with which setting forwards are smaller from the start.
        """
        self.tokens, self.of_epoch, self.padded = tokens, tokens, padded
        self._dataset, self._pad_id, self._remedy = dataset, pad_id, remedy

    def use(self, dataset: Dataset) -> None:
        """Takes the rows of later batches from `dataset`, which has them as they are in another epoch."""
        self._dataset = dataset

    def within(self, batches: list[Batch]) -> list[Batch]:
        """The batches as they are if all keep to the limit; otherwise their rows, in the same order, cut anew."""
        if not any(len(batch) > 1 and self._size(batch) > self.tokens for batch in batches):
            return batches
        rows, dataset = torch.cat([batch.rows for batch in batches]).numpy(), self._dataset
        return [
            collate(dataset.rows, part, self._pad_id, dataset.labels, dataset.weights, dataset.parts)
            for part in cut_evenly(rows, dataset.lengths, self.tokens, padded=self.padded)
        ]

    def lower(self, batch: Batch, where: str) -> None:
        """Halves the limit, or what `batch`, which did not fit, holds if that is less; says so in a warning.

        Args:
            batch: More than one row.
            where: What was being done, as the beginning of a sentence.
        """
        before = self.tokens
        self.tokens = max(1, min(before, self._size(batch)) // 2)
        warnings.warn(
            f"{where}: memory did not suffice for a forward of {self._size(batch)} tokens. It is done again, with at most "
            f"{self.tokens} tokens per forward from here on (it was {before}). {self._remedy}",
            stacklevel=2,
        )

    def _size(self, batch: Batch) -> int:
        lengths = self._dataset.lengths[batch.rows.cpu().numpy()]
        return int(lengths.max() * len(lengths) if self.padded else lengths.sum())


def until_it_fits(work: Callable[[], T], make_room: Callable[[Batch], None]) -> T:
    """Does `work` again and again until memory suffices.

    Args:
        work: Uses `fits`.
        make_room: Gets the batch that did not fit and raises if nothing can be done about it.
    """
    while True:
        try:
            return work()
        except DoesNotFitError as error:
            make_room(error.batch)
        # Only now, when no traceback holds the activations any more, can they be freed.
        give_memory_back()


def give_memory_back() -> None:
    """Frees what nothing refers to any more, on the host and on the GPU."""
    gc.collect()
    release_freed_memory()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def rewinding(place: torch.device) -> Callable[[], None]:
    """A function that sets torch's random numbers, on the host and on `place`, back to where they are now."""
    on_host = torch.get_rng_state()
    on_gpu = torch.cuda.get_rng_state(place) if place.type == "cuda" else None

    def rewind() -> None:
        torch.set_rng_state(on_host)
        if on_gpu is not None:
            torch.cuda.set_rng_state(on_gpu, place)

    return rewind
