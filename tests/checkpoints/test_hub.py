"""The hub cache by hand, and the hub through a stand-in for its library or a server that does not answer."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from featherfit.checkpoints import hub
from featherfit.errors import CheckpointError


def test_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert hub.hub_cache_dir() == tmp_path / "hub"
    monkeypatch.delenv("HF_HUB_CACHE")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    assert hub.hub_cache_dir() == tmp_path / "hf" / "hub"
    monkeypatch.delenv("HF_HOME")
    assert hub.hub_cache_dir() == Path.home() / ".cache" / "huggingface" / "hub"


def test_the_main_revision_comes_first_then_the_newest(
    make_bert: Callable[..., Path], put_in_hub_cache: Callable[..., Path], tmp_path: Path
) -> None:
    bert = make_bert(tmp_path / "bert")
    folders = [put_in_hub_cache("me/tiny", bert, revision=letter * 40, main=letter == "b") for letter in "abc"]
    for age, folder in enumerate(folders):
        os.utime(folder, (1e9 + age, 1e9 + age))
    snapshots = list(hub.cached_snapshots("me/tiny"))
    assert [snapshot.folder.name[0] for snapshot in snapshots] == ["b", "c", "a"]
    assert snapshots[0].note is None and "cccccccccc" in str(snapshots[1].note)
    assert list(hub.cached_snapshots("me/other")) == []
    assert hub.cached_names() == ["me/tiny"]


def test_hub_names() -> None:
    assert hub.is_hub_name("bert-base-uncased") and hub.is_hub_name("intfloat/multilingual-e5-small")
    assert not hub.is_hub_name("a/b/c") and not hub.is_hub_name("my model")


@pytest.fixture
def fake_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict:
    """Stands in for `huggingface_hub`; `files` is what the repository holds, `asked` what was downloaded."""
    import huggingface_hub

    state: dict = {"files": [], "asked": None}

    def siblings() -> list[SimpleNamespace]:
        return [SimpleNamespace(rfilename=name) for name in state["files"]]

    api = SimpleNamespace(model_info=lambda name, timeout: SimpleNamespace(siblings=siblings()))

    def snapshot_download(name: str, *, allow_patterns: list[str], cache_dir: Path) -> str:
        state["asked"] = (name, allow_patterns, cache_dir)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: api)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return state


def test_a_download_asks_for_the_checkpoint_only(fake_hub: dict, tmp_path: Path) -> None:
    fake_hub["files"] = ["config.json", "model.safetensors", "tokenizer.json", "pytorch_model.bin", "README.md"]
    assert hub.download("me/tiny") == tmp_path
    assert fake_hub["asked"] == ("me/tiny", ["config.json", "model.safetensors", "tokenizer.json"], tmp_path / "hub")


def test_a_repository_without_weights_is_not_downloaded(fake_hub: dict) -> None:
    fake_hub["files"] = ["config.json", "tf_model.h5"]
    with pytest.raises(CheckpointError, match=r"no model\.safetensors and no pytorch_model\.bin"):
        hub.download("me/tiny")
    assert fake_hub["asked"] is None


def test_a_server_that_does_not_answer_is_one_line_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import HfApi, constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        hang_up = threading.Timer(3, server.close)  # so that this fails instead of waiting for ever
        hang_up.start()
        endpoint = f"http://127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setattr("huggingface_hub.HfApi", lambda: HfApi(endpoint=endpoint))
        monkeypatch.setattr(hub, "ANSWER_SECONDS", 0.2)
        start = time.monotonic()
        with pytest.raises(CheckpointError, match="Timeout") as caught:
            hub.download("me/tiny")
        hang_up.cancel()
    assert time.monotonic() - start < 2
    assert "\n" not in str(caught.value)
    assert caught.value.__suppress_context__ and caught.value.__cause__ is None
