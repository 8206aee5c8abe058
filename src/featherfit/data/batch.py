"""Token rows go in; batches come out: which rows go together, and their padded tensors.

Rows of similar length share a forward, so that little is spent on padding. What trains together depends on the seed and
the epoch only, and what is predicted together depends on the rows only, never on their order in the table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from featherfit.data.parts import PartRows
from featherfit.data.processors.text import TokenizedRows
from featherfit.types import Batch

NO_PARTS: Mapping[str, PartRows] = {}


def total_lengths(rows: TokenizedRows, parts: Mapping[str, PartRows]) -> np.ndarray:
    """Tokens that each row takes in a forward, all encoders together, (rows,) int64."""
    return sum((part.lengths for part in parts.values()), rows.lengths)


def longest_row(lengths: np.ndarray, of_text: np.ndarray, max_len: int | None) -> int:
    """Most tokens a row may take in a forward.

    Args:
        lengths: Of `total_lengths`.
        of_text: Those of the text alone, (rows,).
        max_len: Most tokens a text may have; None for as many as any has.
    """
    if max_len is None:
        return int(lengths.max(initial=1))
    return max(1, max_len + int((lengths - of_text).max(initial=0)))


def collate(
    rows: TokenizedRows,
    index: Sequence[int] | np.ndarray,
    pad_id: int,
    labels: np.ndarray | None = None,
    weights: np.ndarray | None = None,
    parts: Mapping[str, PartRows] = NO_PARTS,
) -> Batch:
    """Tensors of the rows at positions `index`, padded on the right to the longest of them.

    Args:
        rows: All rows.
        index: Positions in `rows`, (B,), at least one.
        pad_id: Token to pad with.
        labels: Class ids or scaled targets of all rows, (rows,).
        weights: Loss weights of all rows, (rows,).
        parts: What other encoders read of all rows, by their name.

    Returns:
        A batch of B rows and L tokens, L the longest row's length.
    """
    positions = np.asarray(index, dtype=np.int64)
    lengths = rows.lengths[positions]
    shape = (len(positions), int(lengths.max()))
    input_ids = np.full(shape, pad_id, dtype=np.int64)
    segments = None if rows.segments is None else np.zeros(shape, dtype=np.int64)
    for line, position in enumerate(positions):
        input_ids[line, : lengths[line]] = rows.ids[position]
        if segments is not None and rows.segments is not None:
            segments[line, : lengths[line]] = rows.segments[position]
    mask = (np.arange(shape[1]) < lengths[:, None]).astype(np.int64)
    return Batch(
        input_ids=torch.from_numpy(input_ids),
        attention_mask=torch.from_numpy(mask),
        token_type_ids=None if segments is None else torch.from_numpy(segments),
        labels=None if labels is None else torch.from_numpy(labels[positions]),
        weights=None if weights is None else torch.from_numpy(weights[positions].astype(np.float32)),
        rows=torch.from_numpy(positions),
        parts={name: part.tensors(positions) for name, part in parts.items()},
        states=None if rows.states is None else rows.states.take(positions),
    )


def training_batches(
    lengths: np.ndarray,
    batch_size: int,
    tokens: int,
    *,
    padded: bool,
    seed: int,
    epoch: int,
    share: int = 0,
    shares: int = 1,
) -> list[list[np.ndarray]]:
    """One epoch's optimiser steps, each a list of micro-batches of row positions.

    A step is a random batch of `batch_size` rows; only the last may be smaller. Within a step rows are sorted by length,
    longest first, and cut into micro-batches: little or no padding, the same gradient.

    Args:
        lengths: Tokens per row, (rows,).
        batch_size: Rows per step, at least 1.
        tokens: Most tokens per forward; a row that is longer gets a forward of its own.
        padded: Whether padding counts, as it does for a model that computes it.
        seed: Together with `epoch` decides the order.
        epoch: Which pass over the rows this is.
        share: Which share of every step to give, from 0; shares have the same lengths as nearly as can be.
        shares: How many there are. A share of a step of fewer rows may be empty.
    """
    order = np.random.default_rng([seed, epoch]).permutation(len(lengths))
    steps = []
    for start in range(0, len(order), batch_size):
        step = order[start : start + batch_size]
        own = step[np.argsort(-lengths[step], kind="stable")][share::shares]
        steps.append(cut_evenly(own, lengths, tokens, padded=padded) if len(own) else [])
    return steps


def cut_evenly(order: np.ndarray, lengths: np.ndarray, tokens: int, *, padded: bool) -> list[np.ndarray]:
    """As `cut`, into as many batches, the largest as small as possible: a last batch of a few rows is a slow one."""
    batches = cut(order, lengths, tokens, padded=padded)
    low, high = int(lengths[order].max()), tokens
    while low < high:
        middle = (low + high) // 2
        smaller = cut(order, lengths, middle, padded=padded)
        if len(smaller) > len(batches):
            low = middle + 1
        else:
            batches, high = smaller, middle
    return batches


def cut(order: np.ndarray, lengths: np.ndarray, tokens: int, *, padded: bool) -> list[np.ndarray]:
    """Rows, in the order given, in batches of at most `tokens` tokens, or of a single row.

    Args:
        order: Positions of rows.
        lengths: Tokens of all rows.
        tokens: Most tokens per batch.
        padded: Count every row as long as the longest of its batch.
    """
    batches, first, total, longest = [], 0, 0, 0
    for place, length in enumerate(lengths[order].tolist()):
        total, longest = total + length, max(longest, length)
        size = longest * (place - first + 1) if padded else total
        if size > tokens and place > first:
            batches.append(order[first:place])
            first, total, longest = place, length, length
    return [*batches, order[first:]] if len(order) else []


@dataclass(frozen=True)
class InferencePlan:
    """How a table is predicted.

    Attributes:
        batches: Positions of rows, no two with the same content, per forward.
        same_as: For every row of the table, the position of the row that is computed for it, (rows,).
    """

    batches: list[np.ndarray]
    same_as: np.ndarray


def inference_plan(
    rows: TokenizedRows, tokens: int, *, padded: bool, parts: Mapping[str, PartRows] = NO_PARTS
) -> InferencePlan:
    """Batches of at most `tokens` tokens, sorted by length and then by content; equal rows are computed once.

    The same rows make the same batches in whatever order the table holds them, so that a row's rounding errors do not
    depend on that order either.

    Args:
        rows: All rows.
        tokens: Most tokens per forward; a row that is longer gets a forward of its own.
        padded: Whether padding counts.
        parts: What other encoders read of all rows, by their name.
    """
    first_with: dict[tuple[bytes, ...], int] = {}
    same_as = np.empty(len(rows), dtype=np.int64)
    for position in range(len(rows)):
        segments = b"" if rows.segments is None else rows.segments[position].tobytes()
        others = (part.content(position) for part in parts.values())
        same_as[position] = first_with.setdefault((rows.ids[position].tobytes(), segments, *others), position)
    ordered = sorted(first_with, key=lambda content: (len(content[0]), content))
    order = np.array([first_with[content] for content in ordered], dtype=np.int64)
    return InferencePlan(cut(order, total_lengths(rows, parts), tokens, padded=padded), same_as)


def load_batches(
    rows: TokenizedRows,
    plan: Sequence[np.ndarray],
    pad_id: int,
    labels: np.ndarray | None = None,
    weights: np.ndarray | None = None,
    *,
    workers: int = 0,
    parts: Mapping[str, PartRows] = NO_PARTS,
) -> Iterator[Batch]:
    """The batches of `plan`, one array of positions each, in its order.

    Args:
        rows: All rows.
        plan: Positions of each batch's rows.
        pad_id, labels, weights, parts: As for `collate`.
        workers: Processes that assemble batches ahead; 0 for none.
    """

    def assemble(positions: np.ndarray) -> Batch:
        return collate(rows, positions, pad_id, labels, weights, parts)

    if workers == 0:
        return _ahead(assemble, plan) if any(part.decodes for part in parts.values()) else map(assemble, plan)
    from torch.utils.data import DataLoader

    loader: Any = DataLoader
    # A generator of its own, or the loader would draw from the caller's random numbers.
    own = torch.Generator()
    return iter(loader(list(plan), batch_size=None, collate_fn=assemble, num_workers=workers, generator=own))


def _ahead(assemble: Callable[[np.ndarray], Batch], plan: Sequence[np.ndarray]) -> Iterator[Batch]:
    """The batches, each begun while the one before it is worked on: decoding images need not keep a model waiting."""
    with ThreadPoolExecutor(1) as thread:
        coming = None
        for positions in plan:
            following = thread.submit(assemble, positions)
            if coming is not None:
                yield coming.result()
            coming = following
        if coming is not None:
            yield coming.result()
