"""Embedding tables go in; modules that give rows of them in the type the model computes in come out."""

from __future__ import annotations

from threading import Lock

import torch
from torch import nn
from torch.nn import functional as F

from featherfit.models.mapped import FileRows, files_hold, give_up, state_of

LARGE_TABLE = 1_000_000
"""Numbers from which on a table is worth leaving in its file."""

RELEASED_AFTER = 256
"""Most ids that are looked up before the pages of their table are given back.

Linux maps 64 KB around every row, or, where its cache keeps a file in larger pieces, more: 1,200 ids brought 220 MB in.
"""

KEPT_BYTES = 8 << 20
"""What the rows that a table in its file was asked for may take, until all of them are forgotten."""

_KEEPING = Lock()  # predictions may come from several threads, and a lock of the module's own could not be copied


class MappedEmbedding(nn.Embedding):
    """`nn.Embedding` whose table keeps its own type and place, and whose rows come out in another type.

    Only the rows that are asked for are converted, which gives the same numbers as converting the table. So a table that
    is mapped from a file stays there and takes memory for the rows that were touched, which the system may drop again.
    A drop-in: the parameter `weight` under its name.

    Rows that were read from a file are kept for the next forward, `KEPT_BYTES` of them: a language's texts ask for the
    same few thousand over and over, and a page fault for each would be a twentieth of a prediction's time.

    Attributes:
        dtype: Type of the rows that come out.
    """

    dtype: torch.dtype
    _kept: KeptRows | None
    _looked_at: tuple[int, int] | None

    @classmethod
    def of(cls, table: nn.Embedding, dtype: torch.dtype) -> MappedEmbedding:
        """The module that shares the parameter of `table`."""
        own = cls(table.num_embeddings, table.embedding_dim, padding_idx=table.padding_idx, device="meta")
        own.weight, own.dtype, own._kept, own._looked_at = table.weight, dtype, None, None
        return own.train(table.training)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Ids (...) to rows (..., D) in `dtype`."""
        if not self.weight.requires_grad:
            with _KEEPING:
                kept = self._kept_rows()
                if kept is not None:
                    return kept(input.flatten()).view(*input.shape, -1)
        return F.embedding(input, self.weight, self.padding_idx).to(self.dtype)

    def _kept_rows(self) -> KeptRows | None:
        """Those of the table as it is now; None where no file holds it."""
        if self._looked_at != state_of(self.weight):
            in_file = files_hold([self.weight])[0]
            self._looked_at, self._kept = state_of(self.weight), KeptRows(self.weight, self.dtype) if in_file else None
        return self._kept

    def extra_repr(self) -> str:
        """As for `nn.Embedding`, and the type of the rows."""
        return f"{super().extra_repr()}, dtype={self.dtype}"


class KeptRows:
    """Gives rows of a table that a file holds, and keeps them: each is read once until there is no more room."""

    def __init__(self, table: torch.Tensor, dtype: torch.dtype):
        """Keeps nothing yet.

        Args:
            table: (rows, D); frozen, mapped from a file, and `files_hold` it.
            dtype: Type of the rows that come out.
        """
        self._table, self._dtype = table.detach(), dtype
        try:
            self._file: FileRows | None = FileRows(table)
        except OSError:
            # Moved, replaced, or of another number in a layered file system: the mapping still holds it.
            self._file = None
        self._most = min(len(table), max(1, KEPT_BYTES // (table.shape[1] * dtype.itemsize)))
        self._count = 0
        with torch.inference_mode(False):  # what is kept serves training, too
            self._places = torch.full((len(table),), -1, dtype=torch.int32)
            self._rows = torch.empty(self._most, table.shape[1], dtype=dtype)

    @staticmethod
    def most_bytes(table: torch.Tensor, dtype: torch.dtype) -> int:
        """What one of these takes when it is full."""
        return len(table) * torch.int32.itemsize + min(KEPT_BYTES, table.numel() * dtype.itemsize)

    def __deepcopy__(self, memo: dict[int, object]) -> KeptRows:
        return KeptRows(self._table, self._dtype)

    @torch.no_grad()
    def __call__(self, ids: torch.Tensor) -> torch.Tensor:
        """Ids (N,) to rows (N, D)."""
        with torch.inference_mode(False):
            places = self._places.index_select(0, ids)
            new = ids[places < 0].unique()
            if self._count + len(new) > self._most:
                self._places.fill_(-1)
                self._count = 0
                new = ids.unique()
            if len(new) > self._most:
                return self._read(ids)
            if len(new):
                self._keep(new)
                places = self._places.index_select(0, ids)
        return self._rows.index_select(0, places)

    def _keep(self, ids: torch.Tensor) -> None:
        end = self._count + len(ids)
        self._rows[self._count : end] = self._read(ids)
        self._places[ids] = torch.arange(self._count, end, dtype=torch.int32)
        self._count = end

    def _read(self, ids: torch.Tensor) -> torch.Tensor:
        """Rows from the file; through its mapping, pages are given back meanwhile."""
        if self._file is not None:
            return self._file(ids).to(self._dtype)
        parts = []
        for some in ids.split(RELEASED_AFTER):
            parts.append(F.embedding(some, self._table).to(self._dtype))
            give_up(self._table)
        return torch.cat(parts)


def give_rows_in(model: nn.Module, dtype: torch.dtype, *, mapped: bool) -> None:
    """Makes every `nn.Embedding` in `model` give rows in `dtype`, in place; tables that are shared stay shared.

    Args:
        model: The tables' own types may differ from `dtype`. Subclasses of `nn.Embedding` compute in a way of their own
            and get a table in `dtype`.
        dtype: Type of rows.
        mapped: Freeze tables of more than `LARGE_TABLE` numbers and leave them as and where they are. Otherwise they are
            converted, as a device that computes quickly wants them. Smaller ones may train and become float32.
    """
    kept: dict[int, MappedEmbedding] = {}
    for path, table in list(model.named_modules(remove_duplicate=False)):
        if not isinstance(table, nn.Embedding) or isinstance(table, MappedEmbedding):
            continue
        large = table.weight.numel() > LARGE_TABLE
        if type(table) is not nn.Embedding or table.max_norm is not None or (large and not mapped):
            table.weight.data = table.weight.data.to(dtype)
            continue
        if large:
            table.weight.requires_grad_(False)
        else:
            table.weight.data = table.weight.data.float()
        model.set_submodule(path, kept.setdefault(id(table), MappedEmbedding.of(table, dtype)))
