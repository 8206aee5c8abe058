"""Token states of rows one after another (T, D) and the rows' lengths (B,) go in; one vector a row, (B, D) float32, comes out.

No padding stands between rows, and every row has at least one token.
"""

from __future__ import annotations

from collections.abc import Callable

import torch


def cls_pooling(states: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """The state of the first token, whatever it is."""
    return states[lengths.cumsum(0) - lengths].float()


def mean_pooling(states: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """The mean over a row's tokens, summed in float32."""
    return torch.segment_reduce(states.float(), "mean", lengths=lengths, unsafe=True)


def last_pooling(states: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """The state of the last token."""
    return states[lengths.cumsum(0) - 1].float()


POOLINGS: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "cls": cls_pooling,
    "mean": mean_pooling,
    "last": last_pooling,
}
