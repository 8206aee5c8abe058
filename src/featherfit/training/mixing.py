"""A batch with images goes in; the same one with its rows mixed in pairs comes out, for mixup and cutmix.

Mixup (Zhang et al., arXiv 1710.09412) adds two rows in shares drawn from a beta distribution, cutmix (Yun et al., arXiv
1905.04899) puts a rectangle of one image into another, and its area is the share. Labels are mixed in the same shares: the loss
of a mixed row is the weighted mean of its losses for both labels, which for cross entropy is that of the soft label.

Pixels are mixed where every row has one image. What has no pixels, and all encoders where rows have several images or none, is
mixed as the vector that comes out of the encoder (Verma et al., arXiv 1806.05236).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from featherfit.models.vision import PART
from featherfit.types import Batch, Mix

if TYPE_CHECKING:
    from featherfit.config.schema import MixupConfig


@dataclass(frozen=True)
class Mixing:
    """What `data.mixup` asks for, while it is on."""

    config: MixupConfig

    def __call__(self, batch: Batch) -> Batch:
        """The batch, which is on the host, with its rows mixed; or as it is, with the probability that is left, or a single row.

        Random numbers are torch's own, of the host.
        """
        config = self.config
        if len(batch) < 2 or float(torch.rand(())) >= config.prob:
            return batch
        part = batch.parts.get(PART)
        one_each = part is not None and torch.equal(
            part["image_rows"].cpu(), torch.arange(len(batch), dtype=torch.int64)
        )
        order, cuts = torch.randperm(len(batch)), self._cuts() and one_each
        share = self._shares(len(batch), config.cutmix_alpha if cuts else config.mixup_alpha)
        if not one_each or part is None:
            return replace(batch, mix=Mix(order, share))
        if cuts:
            pixels, share = _cut(part["pixels"], order, share)
        else:
            pixels = Mix(order, share)(part["pixels"])
        parts = {**batch.parts, PART: {**part, "pixels": pixels}}
        return replace(batch, parts=parts, mix=Mix(order, share, frozenset({PART})))

    def _cuts(self) -> bool:
        """Whether this batch is cut; the other is mixup."""
        mixes, cuts = self.config.mixup_alpha > 0, self.config.cutmix_alpha > 0
        return cuts and (not mixes or float(torch.rand(())) < self.config.switch_prob)

    def _shares(self, rows: int, alpha: float) -> torch.Tensor:
        """Share that every row keeps of itself, (B,): the same for all, or each its own where the mode is `elem`."""
        alpha = alpha or self.config.mixup_alpha or self.config.cutmix_alpha
        drawn = torch.distributions.Beta(alpha, alpha).sample((rows if self.config.mode == "elem" else 1,))
        return drawn.expand(rows)


def mixed_losses(losses: Callable[[torch.Tensor, torch.Tensor | None], torch.Tensor], batch: Batch) -> torch.Tensor:
    """The loss of every row, (B,); of a mixed one, of its own label and its partner's in their shares.

    Args:
        losses: Weighted losses (B,) of the batch's outputs for labels (B,) and weights (B,).
        batch: Has labels.
    """
    assert batch.labels is not None
    own, mix = losses(batch.labels, batch.weights), batch.mix
    if mix is None:
        return own
    weights = None if batch.weights is None else batch.weights[mix.order]
    return mix.share * own + (1 - mix.share) * losses(batch.labels[mix.order], weights)


def _cut(pixels: torch.Tensor, order: torch.Tensor, share: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Images with a rectangle of another each, and the share of their area that is still their own."""
    height, width = pixels.shape[-2:]
    mixed, kept = pixels.clone(), torch.empty(len(pixels))
    same = bool((share == share[0]).all())
    for row in range(len(pixels)):
        if row == 0 or not same:  # one rectangle for all images, where all have one share
            side = float((1 - share[row]).sqrt())
            across, down = float(torch.rand(())) * width, float(torch.rand(())) * height
            left, right = (round(min(max(across + by * side * width / 2, 0), width)) for by in (-1, 1))
            top, bottom = (round(min(max(down + by * side * height / 2, 0), height)) for by in (-1, 1))
        mixed[row, :, top:bottom, left:right] = pixels[order[row], :, top:bottom, left:right]
        kept[row] = 1 - (bottom - top) * (right - left) / (height * width)
    return mixed, kept
