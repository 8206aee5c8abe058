"""Lengths of rows go in; how their tokens stand one after another without padding, and attend in groups, comes out.

Everything but attention treats tokens one by one, so the tokens of all rows form one sequence (T, D). Attention takes rows
of similar length together, padded to a common width; which rows share a group is chosen by what it costs.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

# One group costs as much as this many scores: some ten calls, whose fixed price is 10 to 20 microseconds each.
_GROUP_PRICE = 200_000
_LARGEST_GROUP = 1_500_000
"""Scores of one group: what stays in a core's caches together with its inputs. A single row may have more."""


# oneDNN compiles kernels for every shape it meets, 0.3 ms each. So few shapes occur.
_SIZES = np.array(
    sorted({2**k for k in range(21)} | {3 * 2**k for k in range(20)})
)  # 1, 2, 3, 4, 6, 8, 12, 16, 24, ...


def widths_of(lengths: np.ndarray) -> np.ndarray:
    """Tokens rows are padded to for attention: 16, multiples of 32 up to 256, of 64 up to 1,024, then 1,536, 2,048, ...

    Multiples of 32 suit the vectors of the kernels.
    """
    widest = 128 * _SIZES[np.searchsorted(_SIZES, -(-lengths // 128))]
    wide = np.where(lengths <= 1024, -(-lengths // 64) * 64, widest)
    return np.where(lengths <= 16, 16, np.where(lengths <= 256, -(-lengths // 32) * 32, wide))


def tokens_of(tokens: int) -> int:
    """Tokens a packed batch is filled up to."""
    step = 32 if tokens <= 512 else 64 if tokens <= 2048 else 128
    return -(-tokens // step) * step


@dataclass(frozen=True, eq=False)
class Group:
    """Rows that attend together, each within itself.

    Attributes:
        rows: Number n of rows; empty ones may follow the real ones.
        width: Tokens P of the longest, rounded up.
        start: The group's first place among the head states that all groups attend with.
        real: Tokens of each row, (n,); 0 for an empty one.
    """

    rows: int
    width: int
    start: int
    real: torch.Tensor
    _masks: dict[tuple, torch.Tensor | None] = field(default_factory=dict)

    def mask(self, heads: int, dtype: torch.dtype, *, causal: bool, window: int | None) -> torch.Tensor | None:
        """What is added to the scores, broadcastable to (n * heads, P, P): 0, or very low where a key is not seen.

        Args:
            heads: Heads per row.
            dtype: Type of the scores.
            causal: A token sees no later ones; padding stands behind all real tokens, so it is not seen either.
            window: Farthest key a token sees, counted in tokens; None for all.
        """
        key = (heads, dtype, causal, window)
        if key not in self._masks:
            self._masks[key] = self._make_mask(heads, dtype, causal, window)
        return self._masks[key]

    def _make_mask(self, heads: int, dtype: torch.dtype, causal: bool, window: int | None) -> torch.Tensor | None:
        at = torch.arange(self.width, device=self.real.device)
        distance = at.unsqueeze(1) - at  # (P, P): query minus key
        seen = torch.ones_like(distance, dtype=torch.bool)
        if causal:
            seen &= distance >= 0
        if window is not None and window < self.width:
            seen &= distance.abs() <= window
        padded = not causal and bool((self.real != self.width).any())
        if not padded and bool(seen.all()):
            return None
        low = torch.finfo(dtype).min / 2  # not infinite: a padded query of a window may see no key at all
        if not padded:
            return torch.zeros(1, self.width, self.width, dtype=dtype, device=at.device).masked_fill_(~seen, low)
        # (n, P) keys. An empty row sees its first one: nobody reads it, but every sum of powers is above 0.
        real = at < self.real.clamp(min=1).unsqueeze(1)
        keys = real.unsqueeze(1) if bool(seen.all()) else real.unsqueeze(1) & seen
        mask = torch.zeros(keys.shape, dtype=dtype, device=at.device).masked_fill_(~keys, low)
        return mask.repeat_interleave(heads, dim=0)


@dataclass(frozen=True, eq=False)
class Packing:
    """The rows of a batch, packed.

    A head state is what one head makes of one token, a vector of d numbers; those of the packed tokens are numbered
    token * H + head. For attention they are laid out group by group as (n, H, P), padding included.

    Attributes:
        order: Which row of the batch stands at each place, shortest first, (B,).
        lengths: Tokens of each row in that order, (B,).
        positions: Position of every token in its row, (T,).
        tokens: Where the packed tokens stand in the batch's (B, L), flattened, (T,). T is as `tokens_of` says: the
            first token is repeated as often as that takes, at the end.
        real: Tokens without these repetitions.
        take: Number of the head state at every place of the groups, (sum of n * H * P,); padding repeats a row's first.
        put: Place in the groups of every head state, (T * H,); the first place for repeated tokens.
        padding: The places in the groups that are padding.
        groups: Rows that attend together, in order.
    """

    order: torch.Tensor
    lengths: torch.Tensor
    positions: torch.Tensor
    tokens: torch.Tensor
    real: int
    take: torch.Tensor
    put: torch.Tensor
    padding: torch.Tensor
    groups: tuple[Group, ...]

    @property
    def widest(self) -> int:
        """Width of the widest group."""
        return max(group.width for group in self.groups)


def pack(mask: torch.Tensor, heads: int) -> Packing:
    """Plans the packed forward of a batch.

    Args:
        mask: The attention mask, (B, L), padded on the right; every row has at least one token.
        heads: Attention heads H.
    """
    device, columns = mask.device, mask.shape[1]
    by_row = mask.sum(dim=1).cpu().numpy()
    order = np.argsort(by_row, kind="stable")
    lengths = by_row[order]
    starts = np.cumsum(lengths) - lengths
    positions = np.arange(lengths.sum()) - np.repeat(starts, lengths)
    tokens = np.repeat(order * columns, lengths) + positions
    groups, take, real = [], [], []
    place = 0
    for first, last in group_bounds(lengths, heads):
        width = int(widths_of(lengths[last - 1 : last])[0])
        rows = round_up(last - first)
        inside = np.pad(lengths[first:last], (0, rows - last + first))
        group_take, group_real = _layout(inside, np.pad(starts[first:last], (0, rows - last + first)), width, heads)
        groups.append(Group(rows, width, place, torch.from_numpy(inside).to(device)))
        take.append(group_take)
        real.append(group_real)
        place += len(group_take)
    taken, is_real = np.concatenate(take), np.concatenate(real)
    extra = tokens_of(len(tokens)) - len(tokens)
    put = np.zeros((len(tokens) + extra) * heads, dtype=np.int64)
    put[taken[is_real]] = np.flatnonzero(is_real)

    def there(array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(array).to(device)

    return Packing(
        there(order),
        there(lengths),
        there(np.pad(positions, (0, extra))),
        there(np.pad(tokens, (0, extra), constant_values=tokens[0])),
        len(tokens),
        there(taken),
        there(put),
        there(np.flatnonzero(~is_real)),
        tuple(groups),
    )


def round_up(rows: int) -> int:
    """Rows of a group with empty ones added: 1, 2, 3, 4, 6, 8, 12, ..."""
    return int(_SIZES[np.searchsorted(_SIZES, rows)])


def pieces(rows: int, most: int) -> list[int]:
    """Cuts rows of one width into groups of at most `most` that `round_up` makes at most a fifth larger."""
    cut = []
    largest = int(_SIZES[np.searchsorted(_SIZES, most, side="right") - 1])
    while rows > 0:
        piece = min(rows, largest)
        if round_up(piece) > 1.2 * piece:
            piece = int(_SIZES[np.searchsorted(_SIZES, piece) - 1])
        cut.append(piece)
        rows -= piece
    return cut


def _layout(lengths: np.ndarray, starts: np.ndarray, width: int, heads: int) -> tuple[np.ndarray, np.ndarray]:
    """Head states of one group as (n, H, P), flattened, and which of them are real."""
    at = np.arange(width)
    real = at < lengths[:, None]  # (n, P)
    token = np.where(real, starts[:, None] + at, starts[:, None])
    states = token[:, None, :] * heads + np.arange(heads)[:, None]
    return states.reshape(-1), np.broadcast_to(real[:, None, :], states.shape).reshape(-1)


def group_bounds(lengths: np.ndarray, heads: int) -> list[tuple[int, int]]:
    """Cuts rows, sorted by length, into groups: the cheapest cut, and no group larger than the caches hold.

    The price of a group is a constant plus its scores, n * heads * P^2. Cuts lie between rows of different widths, so
    the best is found by dynamic programming over the distinct widths.
    """
    widths = widths_of(lengths)
    distinct, counts = np.unique(widths, return_counts=True)
    upto = np.concatenate([[0], np.cumsum(counts)])
    price, cut = [0.0], [0]
    for last, width in enumerate(distinct.tolist(), start=1):
        options = [price[first] + heads * width**2 * (upto[last] - upto[first]) for first in range(last)]
        best = int(np.argmin(options))
        price.append(float(options[best]) + _GROUP_PRICE)
        cut.append(best)
    bounds: list[tuple[int, int]] = []
    last = len(distinct)
    while last > 0:
        first, width = cut[last], int(distinct[last - 1])
        most = max(1, _LARGEST_GROUP // (heads * width**2))
        ends = int(upto[first]) + np.cumsum(pieces(int(upto[last] - upto[first]), most))
        bounds = [*zip([int(upto[first]), *ends[:-1].tolist()], ends.tolist(), strict=True), *bounds]
        last = first
    return bounds
