"""A packed forward against the same backbone called with padding: states, gradients, windows, positions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import TINY, tiny_backbone, tiny_model

from featherfit.checkpoints.families import FAMILIES
from featherfit.models.backbone import build_backbone_from_config
from featherfit.models.pooling import POOLINGS
from featherfit.models.text import TextEncoder
from featherfit.types import Batch

PACKING = [model_type for family in FAMILIES if family.packs for model_type in family.model_types]
VARIANTS: dict[str, dict[str, Any]] = {
    **{model_type: TINY[model_type] for model_type in PACKING},
    # Windows that are narrower than the rows.
    "mistral, window": {**TINY["mistral"], "sliding_window": 4},
    "qwen2, window": {**TINY["qwen2"], "use_sliding_window": True, "sliding_window": 3, "max_window_layers": 1},
    "modernbert, window": {**TINY["modernbert"], "local_attention": 6, "global_attn_every_n_layers": 2},
    "roberta, other padding token": {**TINY["roberta"], "pad_token_id": 3},
}
LENGTHS = [5, 18, 1, 20, 9, 17, 5]


def batch_of(lengths: list[int], pad_id: int) -> Batch:
    """Random rows with two segments."""
    random = torch.Generator().manual_seed(0)
    shape = (len(lengths), max(lengths))
    mask = (torch.arange(shape[1]) < torch.tensor(lengths).unsqueeze(1)).long()
    ids = torch.randint(4, 50, shape, generator=random).masked_fill(mask == 0, pad_id)
    segments = torch.randint(0, 2, shape, generator=random) * mask
    return Batch(ids, mask, segments, None, None, torch.arange(len(lengths)))


def pair(variant: str) -> tuple[TextEncoder, torch.nn.Module]:
    """An encoder that packs, and a backbone of the same weights with PyTorch's own attention."""
    backbones = []
    for _ in range(2):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            backbones.append(build_backbone_from_config(VARIANTS[variant], attn="sdpa"))
            for parameter in backbones[-1].parameters():
                parameter.data += 0.1 * torch.randn_like(parameter)
    return TextEncoder(backbones[0]), backbones[1]


def padded(backbone: torch.nn.Module, encoder: TextEncoder, batch: Batch) -> torch.Tensor:
    segments = {"token_type_ids": batch.token_type_ids} if encoder._takes_segments else {}
    states = backbone(input_ids=batch.input_ids, attention_mask=batch.attention_mask, **segments).last_hidden_state
    return POOLINGS[encoder.pooling](states[batch.attention_mask.bool()], batch.attention_mask.sum(1))


@pytest.mark.parametrize("variant", VARIANTS)
class TestPackedIsPadded:
    def test_output_and_gradient_of_every_parameter(self, variant):
        encoder, backbone = pair(variant)
        batch = batch_of(LENGTHS, backbone.config.pad_token_id)
        above = torch.randn(len(LENGTHS), encoder.out_dim, generator=torch.Generator().manual_seed(2))
        given, expected = encoder(batch), padded(backbone, encoder, batch)
        torch.testing.assert_close(given, expected, rtol=1e-4, atol=1e-4)
        given.backward(above)
        expected.backward(above)
        for name, parameter in backbone.named_parameters():
            own = encoder.backbone.get_parameter(name).grad
            assert (own is None) == (parameter.grad is None), name
            if own is not None:
                limit = 1e-4 * max(1.0, float(parameter.grad.abs().max()))
                torch.testing.assert_close(own, parameter.grad, rtol=1e-3, atol=limit, msg=name)

    def test_rows_do_not_see_each_other(self, variant):
        """A row alone, among others, and elsewhere among them is the same."""
        encoder, _ = pair(variant)
        batch = batch_of(LENGTHS, encoder.backbone.config.pad_token_id)
        order = torch.tensor(np.random.default_rng(0).permutation(len(LENGTHS)))
        moved = Batch(
            batch.input_ids[order], batch.attention_mask[order], batch.token_type_ids[order], None, None, order
        )
        with torch.no_grad():
            together = encoder(batch)
            torch.testing.assert_close(encoder(moved), together[order], rtol=1e-4, atol=1e-5)
            for row, length in enumerate(LENGTHS):
                own = slice(row, row + 1)
                alone = Batch(
                    batch.input_ids[own, :length],
                    batch.attention_mask[own, :length],
                    batch.token_type_ids[own, :length],
                    None,
                    None,
                    order[:1],
                )
                torch.testing.assert_close(encoder(alone), together[own], rtol=1e-4, atol=1e-4)


def test_the_windows_matter():
    """Without this the window variants above would test nothing."""
    for variant in VARIANTS:
        kind, _, special = variant.partition(", ")
        if special != "window":
            continue
        encoders = [pair(variant)[0], pair(kind)[0]]
        batch = batch_of(LENGTHS, 0)
        with torch.no_grad():
            narrow, wide = (encoder(batch) for encoder in encoders)
        assert not torch.allclose(narrow, wide, atol=1e-3), variant


def test_no_padding_is_computed():
    """Linear layers see the tokens, rounded up to a multiple of 32, whatever the longest row is."""
    encoder = tiny_model("bert").encoder
    seen = []
    layer = next(iter(encoder.layers().values()))
    layer.get_submodule(encoder.family.up[0]).register_forward_pre_hook(lambda _, args: seen.append(args[0].shape))
    encoder(batch_of([20, 1, 1, 1, 1, 1, 1, 1, 1, 1], 0))
    encoder(batch_of([20, 20], 0))
    assert seen == [(1, 32, 32), (1, 64, 32)]


def test_families_that_do_not_pack_keep_their_attention():
    assert {"deberta-v2", "mpnet", "t5", "gemma2"}.isdisjoint(PACKING)
    for model_type in TINY:
        backbone = tiny_backbone(model_type)
        before = backbone.config._attn_implementation
        encoder = TextEncoder(backbone)
        after = backbone.config._attn_implementation
        assert (after == "featherfit_packed") == encoder.family.packs == (model_type in PACKING)
        assert encoder.family.packs or after == before
