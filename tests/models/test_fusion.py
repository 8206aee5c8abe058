import pytest
import torch
from torch import nn
from torch.nn import functional

from featherfit.config.dotted import build_config
from featherfit.errors import ConfigError
from featherfit.models.build import MultiModalModel, assemble
from featherfit.models.fusion import build_fusion, left_out

WIDTHS = {"hf_text": 12, "ft_transformer": 8}


class Fixed(nn.Module):
    """An encoder that gives what the batch has under its name."""

    def __init__(self, name):
        super().__init__()
        self.name, self.out_dim = name, WIDTHS[name]

    def forward(self, batch):
        return batch[self.name]


class Vectors(dict):
    """A batch of vectors by the encoders' names, whose rows are not mixed."""

    mix = None


def fusion(name, seed=0, **flat):
    config = build_config({key.replace("__", "."): value for key, value in flat.items()})
    return build_fusion(name, WIDTHS, config.model, seed=seed).eval()


def vectors(rows=5):
    draw = torch.Generator().manual_seed(0)
    return Vectors((name, torch.randn(rows, width, generator=draw)) for name, width in WIDTHS.items())


@pytest.mark.parametrize(
    ("name", "flat", "width"),
    [
        ("fusion_mlp", {}, 128),
        ("fusion_mlp", {"model__fusion_mlp__hidden_sizes": [32, 16]}, 16),
        ("fusion_mlp", {"model__fusion_mlp__adapt_in_features": None}, 128),
        ("fusion_mlp", {"model__fusion_mlp__adapt_in_features": "min"}, 128),
        ("fusion_transformer", {}, 192),
        ("fusion_transformer", {"model__fusion_transformer__hidden_size": 64}, 64),
        ("fusion_logits", {}, 20),
    ],
)
def test_shapes(name, flat, width):
    joined = fusion(name, **flat)
    assert joined.out_dim == width and joined(vectors()).shape == (5, width)
    torch.testing.assert_close(joined(vectors())[2:3], joined({key: x[2:3] for key, x in vectors().items()}))


def test_mlp_is_norm_product_activation():
    joined, given = fusion("fusion_mlp"), vectors()
    x = torch.cat([joined.adapters[name](given[name]) for name in WIDTHS], dim=1)
    assert x.shape == (5, 24)
    x = functional.layer_norm(x, (24,), joined.norms[0].weight, joined.norms[0].bias)
    torch.testing.assert_close(joined(given), functional.leaky_relu(joined.layers[0](x)))


@pytest.mark.parametrize(
    ("name", "flat"),
    [
        ("fusion_mlp", {"model__fusion_mlp__activation": "gelu"}),
        ("fusion_mlp", {"model__fusion_mlp__adapt_in_features": "min"}),
        ("fusion_transformer", {"model__fusion_transformer__num_blocks": 1}),
        ("fusion_transformer", {"model__fusion_transformer__attention_num_heads": 4}),
        ("fusion_transformer", {"model__fusion_transformer__ffn_hidden_size": 32}),
        ("fusion_transformer", {"model__fusion_transformer__ffn_activation": "relu"}),
        ("fusion_transformer", {"model__fusion_transformer__head_activation": "gelu"}),
    ],
)
def test_settings_change_the_fusion(name, flat):
    assert not torch.equal(fusion(name)(vectors()), fusion(name, **flat)(vectors()))


@pytest.mark.parametrize(
    ("name", "setting"),
    [
        ("fusion_mlp", "dropout"),
        ("fusion_transformer", "attention_dropout"),
        ("fusion_transformer", "residual_dropout"),
        ("fusion_transformer", "ffn_dropout"),
    ],
)
def test_dropouts(name, setting):
    rates = (
        {"dropout": 0.0}
        if name == "fusion_mlp"
        else {f"{one}_dropout": 0.0 for one in ("attention", "residual", "ffn")}
    )
    still = fusion(name, **{f"model__{name}__{key}": rate for key, rate in rates.items()}).train()
    noisy = fusion(name, **{f"model__{name}__{key}": rate for key, rate in {**rates, setting: 0.5}.items()}).train()
    assert torch.equal(still(vectors()), still(vectors()))
    assert not torch.equal(noisy(vectors()), noisy(vectors()))


def test_heads_have_to_divide_the_width():
    with pytest.raises(
        ConfigError, match="attention_num_heads=5 does not divide model.fusion_transformer.hidden_size=192"
    ):
        fusion("fusion_transformer", model__fusion_transformer__attention_num_heads=5)


def model_of(names, **flat):
    config = build_config({"model.names": names, **{key.replace("__", "."): value for key, value in flat.items()}})
    others = {name: Fixed(name) for name in names if name == "ft_transformer"}
    text = Fixed("hf_text") if "hf_text" in names else None
    return assemble(text, others, config, outputs=3, seed=0)


def test_one_encoder_has_no_fusion():
    for names in (["hf_text"], ["ft_transformer"], ["hf_text", "fusion_mlp"]):
        model = model_of(names)
        assert model.fusion is None and model(vectors()).shape == (5, 3)
        assert {name.partition(".")[0] for name, _ in model.named_parameters()} == {"head"}


def test_vectors_keep_the_order_of_the_names():
    assert list(model_of(["hf_text", "ft_transformer", "fusion_mlp"]).encoders()) == ["hf_text", "ft_transformer"]
    assert list(model_of(["ft_transformer", "fusion_mlp", "hf_text"]).encoders()) == ["ft_transformer", "hf_text"]


def test_late_fusion_is_the_mean_of_the_logits():
    model, given = model_of(["hf_text", "ft_transformer", "fusion_logits"]), vectors()
    expected = torch.stack([model.heads[name](given[name]) for name in WIDTHS]).mean(0)
    torch.testing.assert_close(model(given), expected)
    assert not hasattr(model, "head") and (model.outputs, model.out_dim) == (3, 20)
    torch.testing.assert_close(model.embed(given), torch.cat(list(given.values()), dim=1))
    assert [(linear.in_features, start) for linear, start in model.probed()] == [(12, 0), (8, 12)]


@pytest.mark.parametrize("name", ["fusion_mlp", "fusion_transformer"])
def test_heads_of_encoders_where_they_have_a_loss(name):
    names = ["hf_text", "ft_transformer", name]
    assert model_of(names).own_heads() == {} and model_of(names).aux_loss_weight is None
    model = model_of(names, **{f"model__{name}__aux_loss_weight": 0.5})
    logits, own = model.eval().all_logits(vectors())
    assert model.aux_loss_weight == 0.5 and own.keys() == WIDTHS.keys()
    torch.testing.assert_close(own["hf_text"], model.heads["hf_text"](vectors()["hf_text"]))
    torch.testing.assert_close(logits, model.head(model.fusion(vectors())))


class TestModalityDropout:
    def test_share(self):
        torch.manual_seed(0)
        found = left_out({"a": torch.ones(20_000, 2), "b": torch.ones(20_000, 3)}, 0.2)
        gone = torch.stack([(x == 0).all(1) for x in found.values()])
        assert not gone.all(0).any()  # a row keeps one of them
        assert gone.float().mean().item() == pytest.approx(0.2 - 0.2**2 / 2, abs=0.01)
        assert all(((x == 0) | (x == 1)).all() for x in found.values())

    def test_while_training_only(self):
        model, given = model_of(["hf_text", "ft_transformer", "fusion_mlp"], data__modality_dropout=0.5), vectors(50)
        assert all(torch.equal(x, given[name]) for name, x in model.eval().vectors(given).items())
        assert not torch.equal(model.train().vectors(given)["hf_text"], given["hf_text"])

    def test_not_of_a_single_encoder(self):
        model = model_of(["hf_text"], data__modality_dropout=0.5).train()
        assert torch.equal(model.vectors(vectors())["hf_text"], vectors()["hf_text"])


def test_names_of_parameters():
    model = model_of(["hf_text", "ft_transformer", "fusion_mlp"])
    assert isinstance(model, MultiModalModel)
    assert {name.partition(".")[0] for name, _ in model.named_parameters()} == {"fusion", "head"}
