"""A tiny checkpoint, one fitted predictor to look at, and a working folder of its own; a `conftest.py` picks them."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_checkpoints import quick_fit, write_checkpoint

from featherfit import MultiModalPredictor


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A two-layer BERT on disk."""
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny-bert")


@pytest.fixture(scope="session")
def fitted(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> MultiModalPredictor:
    """A binary predictor; not to be trained further."""
    return quick_fit(checkpoint, tmp_path_factory.mktemp("fitted") / "artifact")


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
