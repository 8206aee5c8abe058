import pytest

from featherfit.config.dotted import build_config
from featherfit.data.modalities import as_text, columns_by_encoder, fusion_of, unread
from featherfit.data.schema import Schema
from featherfit.errors import ConfigError

COLUMNS = {
    "b": "text", "a": "text", "colour": "categorical", "ok": "boolean", "price": "numerical", "when": "datetime",
    "id": "identifier", "same": "null",
}  # fmt: skip


def schema(**columns):
    found = columns or COLUMNS
    return Schema(found, {name: f"`{name}` is {kind}." for name, kind in found.items()}, "y", "binary")


def read(config=None, of=None):
    return columns_by_encoder(of or schema(), build_config(config or {}))


def test_each_column_goes_to_one_encoder():
    assert read() == {"ft_transformer": ["colour", "ok", "price", "when"], "hf_text": ["a", "b"]}
    assert unread(schema(), build_config({})) == ["id", "same"]


def test_encoders_without_columns_are_left_out():
    assert read(of=schema(a="text", id="identifier")) == {"hf_text": ["a"]}
    assert read(of=schema(a="numerical")) == {"ft_transformer": ["a"]}
    assert list(read({"model.names": ["hf_text", "ft_transformer", "fusion_logits"]})) == ["hf_text", "ft_transformer"]
    assert read({"model.names": ["hf_text"]}) == {"hf_text": ["a", "b"]}
    assert unread(schema(), build_config({"model.names": ["hf_text"]})) == [*"colour ok price when id same".split()]


def test_columns_as_text():
    both = {"data.categorical.convert_to_text": True, "data.numerical.convert_to_text": True}
    assert read(both) == {"ft_transformer": ["when"], "hf_text": ["a", "b", "colour", "ok", "price"]}
    config = build_config({**both, "data.categorical.convert_to_text_template": "list"})
    assert as_text(schema(), config) == {"colour": "list", "ok": "list", "price": "direct"}
    assert as_text(schema(), build_config({})) == {}
    assert read({"data.numerical.convert_to_text": True}, schema(a="numerical")) == {"hf_text": ["a"]}
    with pytest.raises(ConfigError, match=r"convert_to_text=True gives columns to the text encoder, and model.names="):
        read({"model.names": ["ft_transformer"], "data.numerical.convert_to_text": True})


def test_nothing_to_read():
    with pytest.raises(ConfigError, match=r"No column that model.names=\['hf_text'\] reads.\n    `a` is numerical"):
        read({"model.names": ["hf_text"]}, schema(a="numerical"))


def test_several_encoders_have_to_be_joined():
    with pytest.raises(
        ConfigError, match="ft_transformer and hf_text find columns in this table, and nothing joins them"
    ):
        read({"model.names": ["ft_transformer", "hf_text"]})
    assert fusion_of(build_config({})) == "fusion_mlp"
