"""Which files of a folder or a repository make a checkpoint, and the pooling recorded in it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from featherfit.checkpoints.layout import (
    files_to_download,
    is_timm,
    missing_parts,
    read_json,
    read_pooling,
    vocabulary_files,
    weight_files,
    write_mean_pooling,
)
from featherfit.errors import CheckpointError


def fill(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).write_text("{}")
    return folder


def test_the_tiny_checkpoint_loads_with_transformers(make_bert: Callable[..., Path], tmp_path: Path) -> None:
    from transformers import AutoModel

    model, report = AutoModel.from_pretrained(
        make_bert(tmp_path / "bert"), add_pooling_layer=False, output_loading_info=True
    )
    assert len(model.encoder.layer) == 2
    assert not report["missing_keys"] and not report["unexpected_keys"]


def test_a_complete_folder_lacks_nothing(make_bert: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_bert(tmp_path / "bert")
    assert weight_files(folder) == ["model.safetensors"]
    assert vocabulary_files(folder) == ["tokenizer.json"]
    assert missing_parts(folder) == []


@pytest.mark.parametrize(
    ("removed", "told"),
    [("config.json", "config.json"), ("model.safetensors", "weights"), ("tokenizer.json", "tokenizer files")],
)
def test_each_missing_part_is_told(make_bert: Callable[..., Path], tmp_path: Path, removed: str, told: str) -> None:
    folder = make_bert(tmp_path / "bert")
    (folder / removed).unlink()
    (missing,) = missing_parts(folder)
    assert missing.startswith(told)


def test_safetensors_go_before_bin_and_shards_follow_their_index(tmp_path: Path) -> None:
    fill(tmp_path, "config.json", "vocab.txt", "pytorch_model.bin")
    assert weight_files(tmp_path) == ["pytorch_model.bin"]
    shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    index = {"weight_map": {"b": shards[1], "a": shards[0], "c": shards[1]}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert weight_files(tmp_path) == shards
    fill(tmp_path, shards[0])
    assert missing_parts(tmp_path) == [shards[1]]
    fill(tmp_path, "model.safetensors")
    assert weight_files(tmp_path) == ["model.safetensors"]


def test_a_byte_level_tokenizer_needs_no_vocabulary(tmp_path: Path) -> None:
    fill(tmp_path, "config.json", "model.safetensors", "tokenizer_config.json")
    assert missing_parts(tmp_path) == []


@pytest.mark.parametrize("settings", ["preprocessor_config.json", "processor_config.json"])
def test_an_image_model_needs_settings_for_images_instead(tmp_path: Path, settings: str) -> None:
    fill(tmp_path, "config.json", "model.safetensors")
    (missing,) = missing_parts(tmp_path)
    assert "an image model's preprocessor_config.json" in missing
    fill(tmp_path, settings)
    assert missing_parts(tmp_path) == []
    assert settings in files_to_download(["config.json", "model.safetensors", settings, "README.md"])


def test_a_config_of_timms_has_them_itself(tmp_path: Path) -> None:
    fill(tmp_path, "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "resnet18", "pretrained_cfg": {}}))
    assert missing_parts(tmp_path) == []
    assert is_timm({"architecture": "resnet18"}) and not is_timm({"model_type": "bert", "architecture": "x"})


def test_a_download_takes_safetensors_and_leaves_other_formats() -> None:
    repository = [
        ".gitattributes",
        "README.md",
        "1_Pooling/config.json",
        "config.json",
        "model.safetensors",
        "onnx/model.onnx",
        "pytorch_model.bin",
        "sentencepiece.bpe.model",
        "tf_model.h5",
        "tokenizer.json",
    ]
    assert files_to_download(repository) == [
        "1_Pooling/config.json",
        "config.json",
        "model.safetensors",
        "sentencepiece.bpe.model",
        "tokenizer.json",
    ]


def test_a_download_takes_bin_only_without_safetensors_and_shards_with_their_index() -> None:
    assert files_to_download(["config.json", "pytorch_model.bin"]) == ["config.json", "pytorch_model.bin"]
    sharded = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json"]
    assert files_to_download([*sharded, "pytorch_model.bin", "consolidated.safetensors"]) == sharded
    assert files_to_download(["config.json", "tf_model.h5"]) == ["config.json"]


@pytest.mark.parametrize(
    ("recorded", "expected"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}, "mean"),
        ({"pooling_mode_mean_tokens": False, "pooling_mode_lasttoken": True}, "last"),
        ({"embedding_dimension": 8, "pooling_mode": "lasttoken"}, "last"),
    ],
)
def test_pooling_is_read_in_both_forms(tmp_path: Path, recorded: dict[str, Any], expected: str) -> None:
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps(recorded))
    assert read_pooling(tmp_path) == expected


@pytest.mark.parametrize(
    "recorded",
    [
        {"pooling_mode_max_tokens": True},
        {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True},
        {"pooling_mode": "weightedmean"},
    ],
)
def test_other_poolings_are_a_warning(tmp_path: Path, recorded: dict[str, Any]) -> None:
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps(recorded))
    with pytest.warns(UserWarning, match=r"not offered \(cls, mean, last are\)"):
        assert read_pooling(tmp_path) is None


def test_mean_pooling_is_read_back_and_none_is_none(tmp_path: Path) -> None:
    assert read_pooling(tmp_path) is None
    write_mean_pooling(tmp_path, 8)
    assert read_pooling(tmp_path) == "mean"


@pytest.mark.parametrize("text", ["{", "[]", None])
def test_unreadable_json_names_the_file(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        read_json(tmp_path / "config.json")
