"""`base/` of an artifact: what may be in it, what its JSON must not say, and that what we write passes."""

from __future__ import annotations

import json

import pytest
import transformers
from tiny_models import TINY

from featherfit.artifact.standalone import check_settings, may_be_in_base, without_foreign
from featherfit.errors import ArtifactError


def check(name: str, settings: dict, present: tuple[str, ...] = ()) -> dict:
    return check_settings(name, json.dumps(settings).encode(), name, frozenset(present))


@pytest.mark.parametrize(
    "name",
    ["config.json", "tokenizer.json", "1_Pooling/config.json", "model.safetensors", "model-00001-of-00002.safetensors"],
)
def test_files_it_may_hold(name):
    assert may_be_in_base(name)


@pytest.mark.parametrize(
    "name",
    ["pytorch_model.bin", "adapter_config.json", "modeling_x.py", "model.safetensors.pkl", "x/config.json", "model-1-of-2.safetensors",
     "chat_template.jinja", "../config.json", "model-00001-of-00002.safetensors\n"],
)  # fmt: skip
def test_files_it_may_not(name):
    assert not may_be_in_base(name)


@pytest.mark.parametrize(
    "settings",
    [
        {"auto_map": {"AutoModel": "x.Y"}}, {"a": [{"auto_map": "x"}]}, {"attn_implementation": "somebody/kernel"},
        {"quantization_config": {}}, {"tokenizer_file": "/x"}, {"fast_tokenizer_files": ["x"]}, {"vocab": "/etc/passwd"},
    ],
)  # fmt: skip
def test_settings_that_ask_for_more(settings):
    for name in ("config.json", "tokenizer_config.json"):
        with pytest.raises(ArtifactError, match="asks for code or files from elsewhere"):
            check(name, settings)
        assert "auto_map" not in json.dumps(without_foreign(settings))
        check(name, without_foreign(settings))


def test_settings_that_ask_for_nothing():
    harmless = {"tokenizer_file": None, "vocab": {"a": 1}, "auto_mapping": 1, "model_max_length": 10**30}
    assert check("tokenizer_config.json", harmless) == harmless


@pytest.mark.parametrize(
    ("key", "value"),
    [("hidden_size", 10**7), ("num_labels", 200_000), ("sizes", [1, 10**9]), ("pad_token_id", -(10**9))],
)
def test_large_numbers(key, value):
    with pytest.raises(ArtifactError, match="more than any text model has"):
        check("config.json", {key: value})


def test_the_index_names_files_beside_it():
    shard = "model-00001-of-00001.safetensors"
    check("model.safetensors.index.json", {"weight_map": {"a": shard}}, (shard,))
    for weight_map in ({"a": f"../{shard}"}, {"a": shard, "b": "/x"}, {}, [shard], {"a": 1}):
        with pytest.raises(ArtifactError, match="weight files beside it"):
            check("model.safetensors.index.json", {"weight_map": weight_map}, (shard,))
    with pytest.raises(ArtifactError, match="weight files beside it"):
        check("model.safetensors.index.json", {"weight_map": {"a": shard}})


@pytest.mark.parametrize("model_type", sorted(TINY))
def test_configs_of_every_family_pass(model_type):
    config = transformers.CONFIG_MAPPING[model_type]()
    check("config.json", without_foreign(json.loads(config.to_json_string(use_diff=False))))
