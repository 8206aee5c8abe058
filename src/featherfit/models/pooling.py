"""Token states (B, L, D) and an attention mask (B, L) go in; one vector a row, (B, D) float32, comes out."""

from __future__ import annotations

from collections.abc import Callable

import torch


def cls_pooling(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The state of the first token, whatever it is."""
    return states[:, 0].float()


def mean_pooling(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The mean over real tokens, summed in float32; zeros for a row without any."""
    weights = mask.unsqueeze(-1).float()
    with torch.autocast(states.device.type, enabled=False):
        return (states.float() * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)


def last_pooling(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The state of the last real token of a row padded on the right; of the first position for a row without any."""
    last = (mask.sum(dim=1) - 1).clamp(min=0)
    return states[torch.arange(len(states), device=states.device), last].float()


POOLINGS: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "cls": cls_pooling,
    "mean": mean_pooling,
    "last": last_pooling,
}
