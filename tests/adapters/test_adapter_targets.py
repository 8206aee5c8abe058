"""Which layers get adapters: named sets, AutoMM's expressions, module filters, and the errors."""

from __future__ import annotations

import re

import pytest
from tiny_models import TINY, tiny_model
from torch import nn

from featherfit.adapters.targets import find_targets
from featherfit.checkpoints.families import AUTOMM_FILTER
from featherfit.config.schema import LoraConfig
from featherfit.errors import TargetError

LITERAL = ["query", "value", "^q$", "^v$", "^k$", "^o$"]


def names(model_type: str, filter: str | list[str], module_filter: list[str] | None = None) -> list[str]:
    config = LoraConfig(filter=filter, module_filter=module_filter)
    return [target.name for target in find_targets(tiny_model(model_type).encoder, config)]


def in_layers(stack: str, *relative: str) -> list[str]:
    return [f"{stack}.{index}.{name}" for index in (0, 1) for name in relative]


def automm_rule(model_type: str) -> list[str]:
    """AutoMM's loop, written again: every child of every module whose own name an expression matches."""
    return [
        f"{parent}.{child}".lstrip(".")
        for parent, module in tiny_model(model_type).encoder.backbone.named_modules()
        for child, _ in module.named_children()
        if any(re.match(pattern, child) for pattern in LITERAL)
    ]


def test_the_literal_list_is_automms():
    assert list(AUTOMM_FILTER) == LITERAL


@pytest.mark.parametrize("model_type", TINY)
def test_automms_literal_list_selects_what_automm_selects(model_type):
    expected = automm_rule(model_type)
    if expected:
        assert sorted(names(model_type, LITERAL)) == sorted(expected)
        assert sorted(names(model_type, "automm")) == sorted(expected)
    else:
        with pytest.raises(TargetError, match="Linear layers by own name: "):
            names(model_type, LITERAL)


def test_where_automm_finds_nothing_the_set_has_its_equivalents():
    assert names("distilbert", "automm") == in_layers("transformer.layer", "attention.q_lin", "attention.v_lin")
    assert names("llama", "automm") == in_layers("layers", "self_attn.q_proj", "self_attn.v_proj")
    assert names("modernbert", "automm") == in_layers("layers", "attn.Wqkv")


def test_named_sets():
    attention = [f"attention.{name}" for name in ("self.query", "self.key", "self.value", "output.dense")]
    assert names("bert", "attention") == in_layers("encoder.layer", *attention)
    assert names("bert", "all-linear") == in_layers("encoder.layer", *attention, "intermediate.dense", "output.dense")
    assert names("bert", "paper") == in_layers(
        "encoder.layer", "attention.self.key", "attention.self.value", "output.dense"
    )
    assert names("t5", "paper") == in_layers(
        "encoder.block", "layer.0.SelfAttention.k", "layer.0.SelfAttention.v", "layer.1.DenseReluDense.wo"
    )


@pytest.mark.parametrize("model_type", TINY)
def test_sets_in_every_family(model_type):
    encoder = tiny_model(model_type).encoder
    linears = {
        f"{at}.{name}"
        for at, layer in encoder.layers().items()
        for name, module in layer.named_modules()
        if isinstance(module, nn.Linear)
    }
    family, depth = encoder.family, len(encoder.layers())
    assert set(names(model_type, "all-linear")) == linears
    assert len(names(model_type, "attention")) == depth * len({family.query, family.key, family.value, family.out})
    for word in ("attention", "paper", "automm"):
        assert set(names(model_type, word)) < linears


def test_only_the_papers_feed_forward_layer_is_scaled_at_its_input():
    encoder = tiny_model("bert").encoder
    for word, expected in (
        ("paper", ["encoder.layer.0.output.dense", "encoder.layer.1.output.dense"]),
        ("all-linear", []),
    ):
        targets = find_targets(encoder, LoraConfig(filter=word))
        assert [target.name for target in targets if target.scales_input] == expected


def test_expressions_match_the_own_name_from_its_start():
    assert names("bert", ["que"]) == in_layers("encoder.layer", "attention.self.query")
    with pytest.raises(TargetError):
        names("bert", ["uery"])
    with pytest.raises(TargetError):
        names("bert", ["attention.self.query"])  # a full name is not an own name


def test_module_filter_matches_the_full_name_of_the_parent():
    first = [r"encoder\.layer\.0\..*"]
    assert (
        names("bert", "automm", first) == in_layers("encoder.layer", "attention.self.query", "attention.self.value")[:2]
    )
    assert names("t5", ["w"], [".*DenseReluDense"]) == in_layers(
        "encoder.block", *(f"layer.1.DenseReluDense.{name}" for name in ("wi_0", "wi_1", "wo"))
    )
    with pytest.raises(TargetError, match=r"module_filter: 'layer.9' matches the full name of no module"):
        names("bert", "automm", [".*", "layer.9"])


def test_what_matches_and_is_not_linear_is_passed_over():
    model = tiny_model("bert")
    for layer in model.encoder.layers().values():
        layer.attention.self.query_norm = nn.LayerNorm(32)
    found = find_targets(model.encoder, LoraConfig(filter=["query"]))
    assert [target.name for target in found] == in_layers("encoder.layer", "attention.self.query")
    with pytest.raises(TargetError, match="'query_norm' matches the own name of no linear"):
        find_targets(model.encoder, LoraConfig(filter=["query_norm"]))


def test_errors_list_the_candidates_and_the_sets():
    with pytest.raises(TargetError) as caught:
        names("bert", ["query", "valeu", "kye"])
    assert str(caught.value) == (
        "optim.lora.filter: 'valeu', 'kye' matches the own name of no linear layer. Linear layers by own name: "
        "query (x2), key (x2), value (x2), dense (x6). Named sets: automm, attention, all-linear, paper."
    )
    with pytest.raises(TargetError, match=r"unknown set 'attenton'. Did you mean 'attention'\?"):
        names("bert", "attenton")
    with pytest.raises(TargetError, match=r"'\(' is not a regular expression"):
        names("bert", ["("])
    with pytest.raises(TargetError, match="the empty list"):
        names("bert", [])
