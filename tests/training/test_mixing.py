"""Mixup and cutmix against their formulas: pixels, vectors, shares and losses."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tiny_vision import SIDE, image_batch, tiny_vision_model
from torch.nn import functional

from featherfit.config.schema import MixupConfig
from featherfit.training.mixing import Mixing, mixed_losses
from featherfit.types import Batch, Mix

ROWS = 6


def batch() -> Batch:
    pixels = torch.randn(ROWS, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    part = {"pixels": pixels, "image_rows": torch.arange(ROWS)}
    nothing = torch.zeros(ROWS, 0, dtype=torch.int64)
    return Batch(nothing, nothing, None, torch.arange(ROWS) % 3, None, torch.arange(ROWS), {"timm_image": part})


def pixels_of(some: Batch) -> torch.Tensor:
    return some.parts["timm_image"]["pixels"]


def mixed(seed: int = 0, rows: Batch | None = None, **settings) -> Batch:
    torch.manual_seed(seed)
    return Mixing(MixupConfig(turn_on=True, **settings))(rows or batch())


@pytest.mark.parametrize("mode", ["batch", "elem"])
def test_mixup_adds_pixels_in_the_shares_of_the_labels(mode):
    out = mixed(cutmix_alpha=0, mode=mode)
    share = out.mix.share.view(-1, 1, 1, 1)
    expected = share * pixels_of(batch()) + (1 - share) * pixels_of(batch())[out.mix.order]
    torch.testing.assert_close(pixels_of(out), expected)
    assert out.mix.done == {"timm_image"} and (len(out.mix.share.unique()) == 1) == (mode == "batch")
    assert sorted(out.mix.order.tolist()) == list(range(ROWS))


@pytest.mark.parametrize("mode", ["batch", "elem"])
def test_cutmix_puts_in_a_rectangle_whose_area_is_the_share(mode):
    for seed in range(8):
        out = mixed(seed, mixup_alpha=0, mode=mode)
        own, other = pixels_of(batch()), pixels_of(batch())[out.mix.order]
        for row in range(ROWS):
            changed = (pixels_of(out)[row] != own[row]).any(dim=0)
            inside = changed.any(dim=1)[:, None] & changed.any(dim=0)[None, :]
            assert torch.equal(changed, inside) or out.mix.order[row] == row
            assert torch.equal(pixels_of(out)[row][:, changed], other[row][:, changed])
            if out.mix.order[row] != row:
                assert float(out.mix.share[row]) == pytest.approx(1 - float(changed.float().mean()), abs=1e-6)


def test_shares_follow_the_beta_distribution():
    for alpha in (0.4, 1.0, 4.0):
        shares = torch.stack([mixed(seed, cutmix_alpha=0, mixup_alpha=alpha).mix.share[0] for seed in range(400)])
        assert float(shares.mean()) == pytest.approx(0.5, abs=0.05)
        assert float(shares.var()) == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.25)


def test_how_often():
    assert mixed(prob=0.0).mix is None
    found = [mixed(seed, prob=0.3).mix is not None for seed in range(300)]
    assert 60 < sum(found) < 120
    cuts = 0
    for seed in range(200):
        out = mixed(seed, switch_prob=0.25)
        moved = out.mix.order != torch.arange(ROWS)
        cuts += bool((pixels_of(out) == pixels_of(batch()))[moved].any())  # sums of two images have no pixel of either
    assert 25 < cuts < 80
    one = replace(batch(), rows=torch.arange(1))
    assert mixed(rows=one).mix is None, "a single row has no partner"


def test_rows_with_several_images_or_none_are_mixed_as_vectors():
    rows = replace(image_batch(), labels=torch.tensor([0, 1, 2]))
    out = mixed(rows=rows, cutmix_alpha=0)
    assert out.mix.done == frozenset() and torch.equal(pixels_of(out), pixels_of(rows))
    model = tiny_vision_model("vit")
    with torch.no_grad():
        plain = model.vectors(rows)["timm_image"]
        torch.testing.assert_close(model.vectors(out)["timm_image"], out.mix(plain))
        torch.testing.assert_close(model.vectors(mixed())["timm_image"], model.encoders()["timm_image"](mixed()))


def test_the_loss_is_that_of_the_soft_label():
    logits = torch.randn(ROWS, 3, generator=torch.Generator().manual_seed(1))
    labels, share = torch.arange(ROWS) % 3, torch.rand(ROWS, generator=torch.Generator().manual_seed(2))
    order = torch.roll(torch.arange(ROWS), 1)
    rows = replace(batch(), labels=labels, mix=Mix(order, share))

    def losses(wanted: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
        plain = functional.cross_entropy(logits, wanted, reduction="none")
        return plain if weights is None else plain * weights

    one_hot = functional.one_hot(labels, 3).float()
    soft = share[:, None] * one_hot + (1 - share[:, None]) * one_hot[order]
    expected = functional.cross_entropy(logits, soft, reduction="none")
    torch.testing.assert_close(mixed_losses(losses, rows), expected)
    weighted = replace(rows, weights=torch.arange(1.0, ROWS + 1))
    both = share * weighted.weights * losses(labels, None) + (1 - share) * weighted.weights[order] * losses(
        labels[order], None
    )
    torch.testing.assert_close(mixed_losses(losses, weighted), both)
    torch.testing.assert_close(mixed_losses(losses, replace(rows, mix=None)), losses(labels, None))
