"""Embedding tables go in; modules that give rows of them in the type the model computes in come out."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from featherfit.models.mapped import files_hold, give_up, state_of

LARGE_TABLE = 1_000_000
"""Numbers from which on a table is worth leaving in its file."""

RELEASED_AFTER = 256
"""Most ids that are looked up before the pages of their table are given back.

Reading them again costs less than a hundredth of a forward. Linux maps 64 KB around every row, or, where its cache keeps a
file in larger pieces, more: 1,200 ids brought 220 MB in.
"""


class MappedEmbedding(nn.Embedding):
    """`nn.Embedding` whose table keeps its own type and place, and whose rows come out in another type.

    Only the rows that are asked for are converted, which gives the same numbers as converting the table. So a table that
    is mapped from a file stays there and takes memory for the rows that were touched, which the system may drop again.
    A drop-in: the parameter `weight` under its name.

    Attributes:
        dtype: Type of the rows that come out.
    """

    dtype: torch.dtype
    _ids: int
    _looked_at: tuple[int, int] | None
    _in_file: bool

    @classmethod
    def of(cls, table: nn.Embedding, dtype: torch.dtype) -> MappedEmbedding:
        """The module that shares the parameter of `table`."""
        own = cls(table.num_embeddings, table.embedding_dim, padding_idx=table.padding_idx, device="meta")
        own.weight, own.dtype, own._ids, own._looked_at = table.weight, dtype, 0, None
        return own.train(table.training)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Ids (...) to rows (..., D) in `dtype`."""
        if self.weight.requires_grad or not self._is_in_file():
            return F.embedding(input, self.weight, self.padding_idx).to(self.dtype)
        parts = [self._looked_up(ids) for ids in input.flatten().split(RELEASED_AFTER)]
        self._ids += input.numel()
        if self._ids > RELEASED_AFTER:
            self._ids = 0
            give_up(self.weight)
        return torch.cat(parts).view(*input.shape, -1) if len(parts) > 1 else parts[0].view(*input.shape, -1)

    def _looked_up(self, ids: torch.Tensor) -> torch.Tensor:
        rows = F.embedding(ids, self.weight, self.padding_idx).to(self.dtype)
        if len(ids) == RELEASED_AFTER:
            give_up(self.weight)
        return rows

    def _is_in_file(self) -> bool:
        if self._looked_at != state_of(self.weight):
            self._looked_at, (self._in_file,) = state_of(self.weight), files_hold([self.weight])
        return self._in_file

    def extra_repr(self) -> str:
        """As for `nn.Embedding`, and the type of the rows."""
        return f"{super().extra_repr()}, dtype={self.dtype}"


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
