"""The FT-Transformer's numbers against the formulas of its papers (arXiv 2106.11959, 2203.05556)."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn import functional

from featherfit.config.columns import FtTransformerConfig
from featherfit.data.processors.table import TableSpec
from featherfit.errors import ConfigError
from featherfit.models.tabular import PiecewiseLinear, TableEncoder

SPEC = TableSpec((3, 4), ((0.0, 1.0, 3.0), (-1.0, 1.0)))
QUIET = {"attention_dropout": 0.0, "ffn_dropout": 0.0}


def encoder(seed=0, spec=SPEC, **settings):
    return TableEncoder(
        spec, FtTransformerConfig(**{"token_dim": 16, "attention_num_heads": 4, **settings}), seed=seed
    ).eval()


def rows(*numbers, categories=None):
    values = torch.tensor(numbers, dtype=torch.float32)
    codes = torch.tensor(categories or [[0, 0]] * len(values))
    return SimpleNamespace(parts={"ft_transformer": {"categories": codes, "numbers": values}})


def test_piecewise_linear_code():
    layer = PiecewiseLinear(SPEC.edges, 8)
    found = layer.pieces(torch.tensor([[-1.0, -1.0], [0.5, 0.0], [2.0, 1.0], [5.0, 3.0]]))
    expected = [  # by hand: edges 0, 1, 3 and -1, 1; the first piece goes on below, the last above
        [[-1.0, 0.0], [0.0, 0.0]],
        [[0.5, 0.0], [0.5, 0.0]],
        [[1.0, 0.5], [1.0, 0.0]],
        [[1.0, 2.0], [2.0, 0.0]],
    ]
    torch.testing.assert_close(found, torch.tensor(expected))


def test_number_tokens():
    layer = PiecewiseLinear(SPEC.edges, 8)
    x = torch.randn(5, 2)
    code = layer.pieces(x)
    for place in range(2):
        expected = torch.relu(code[:, place] @ layer.weight[place] + layer.bias[place])
        torch.testing.assert_close(layer(x)[:, place], expected)


def _attention(block, x):
    q, k, v = (getattr(block.attention, name)(x) for name in ("query", "key", "value"))
    heads = block.attention.heads
    split = [part.unflatten(-1, (heads, -1)) for part in (q, k, v)]
    scores = torch.einsum("bihd,bjhd->bhij", split[0], split[1]) / math.sqrt(x.shape[-1] // heads)
    mixed = torch.einsum("bhij,bjhd->bihd", scores.softmax(-1), split[2]).flatten(-2)
    return block.attention.out(mixed)


@pytest.mark.parametrize("activation", ["reglu", "geglu", "gelu"])
def test_the_whole_of_it(activation):
    model = encoder(ffn_activation=activation, num_blocks=2)
    batch = rows([0.2, 0.4], [2.0, -3.0], categories=[[2, 0], [0, 3]])
    codes, numbers = batch.parts["ft_transformer"].values()
    tokens = [model.row.expand(2, -1)]
    for place, offset in enumerate((0, 3)):
        tokens.append(model.categories.weight[codes[:, place] + offset] + model.category_bias[place])
    x = torch.stack([*tokens, *model.numbers(numbers).unbind(1)], dim=1)
    for place, block in enumerate(model.blocks):
        normed = (
            x if place == 0 else functional.layer_norm(x, (16,), block.attention_norm.weight, block.attention_norm.bias)
        )
        x = x + _attention(block, normed)
        h = block.feed_forward.up(functional.layer_norm(x, (16,), block.norm.weight, block.norm.bias))
        if activation == "gelu":
            h = functional.gelu(h)
        else:
            left, right = h.chunk(2, -1)
            h = left * (torch.relu(right) if activation == "reglu" else functional.gelu(right))
        x = x + block.feed_forward.down(h)
    expected = torch.relu(functional.layer_norm(x[:, 0], (16,), model.norm.weight, model.norm.bias))
    torch.testing.assert_close(model(batch), expected, rtol=1e-4, atol=1e-5)


def test_settings_change_the_model():
    def count(**settings):
        return sum(p.numel() for p in encoder(**settings).parameters())

    base = count()
    for setting in ({"token_dim": 32}, {"num_blocks": 1}, {"ffn_hidden_size": 8}, {"ffn_activation": "relu"}, {"hidden_size": 32},
                    {"pooling_mode": "mean"}):  # fmt: skip
        assert count(**setting) != base
    batch, plain = rows([0.2, 0.4]), encoder()
    for setting in ({"attention_num_heads": 2}, {"head_activation": "leaky_relu"}, {"ffn_activation": "geglu"}):
        assert not torch.equal(encoder(**setting)(batch), plain(batch))
    for dropout in ("attention_dropout", "residual_dropout", "ffn_dropout"):
        still = encoder(**{**QUIET, "residual_dropout": 0.0}).train()
        noisy = encoder(**{**QUIET, "residual_dropout": 0.0, dropout: 0.5}).train()
        assert torch.equal(still(batch), still(batch))
        assert not torch.equal(noisy(batch), noisy(batch))
    with pytest.raises(ConfigError, match=r"attention_num_heads=4 does not divide model.ft_transformer.token_dim=18"):
        encoder(token_dim=18)


def test_a_row_does_not_depend_on_others():
    model = encoder()
    values = torch.randn(9, 2)
    together = model(rows(*values.tolist()))
    for place in range(9):
        torch.testing.assert_close(model(rows(values[place].tolist()))[0], together[place], rtol=1e-5, atol=1e-6)


def test_weights_follow_the_seed_alone():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one = encoder(seed=3)
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(2)
    same = [torch.equal(a, b) for a, b in zip(one.parameters(), encoder(seed=3).parameters(), strict=True)]
    other = [torch.equal(a, b) for a, b in zip(one.parameters(), encoder(seed=4).parameters(), strict=True)]
    assert all(same) and not all(other)


@pytest.mark.parametrize("spec", [TableSpec((), SPEC.edges), TableSpec((3, 4), ()), SPEC])
def test_on_the_meta_device(spec):
    with torch.device("meta"):
        without = encoder(spec=spec)
    built = encoder(spec=spec)
    shapes = {name: p.shape for name, p in built.named_parameters()}
    assert shapes == {name: p.shape for name, p in without.named_parameters()}
    numbers = torch.zeros(2, len(spec.edges))
    batch = SimpleNamespace(
        parts={"ft_transformer": {"categories": torch.zeros(2, len(spec.codes), dtype=torch.int64), "numbers": numbers}}
    )
    assert built(batch).shape == (2, 16) and np.isfinite(built(batch).detach().numpy()).all()


def test_float32_under_autocast():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = encoder()(rows([0.2, 0.4]))
    assert found.dtype == torch.float32
    assert torch.equal(found, encoder()(rows([0.2, 0.4])))
