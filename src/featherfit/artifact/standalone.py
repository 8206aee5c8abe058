"""`base/` of an artifact: the encoder and tokenizer of one that stands alone. Which files it may hold, and what they must not say.

The text encoder's files are right in it; those of another encoder are in `base/<its name>/`.

Third parties' code reads these files. So nothing may be there that could make it run code, open another file or fetch one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from featherfit.artifact.headers import TensorInfo, read_header
from featherfit.artifact.strict_json import parse_object
from featherfit.checkpoints.layout import (
    CONFIG,
    FAST_TOKENIZER,
    IMAGE_PROCESSOR,
    POOLING,
    TOKENIZER_SETTINGS,
    VOCABULARIES,
)
from featherfit.errors import ArtifactError

INDEX = "model.safetensors.index.json"
WHOLE = "model.safetensors"
_SHARD = re.compile(r"model-\d{5}-of-\d{5}\.safetensors\Z")
_NAMES = frozenset((CONFIG, POOLING, FAST_TOKENIZER, INDEX, WHOLE, *VOCABULARIES, *TOKENIZER_SETTINGS))
_SETTINGS = (CONFIG, POOLING, INDEX, *TOKENIZER_SETTINGS)
_FURTHER = frozenset((CONFIG, INDEX, WHOLE, IMAGE_PROCESSOR))

FURTHER_ENCODERS = ("timm_image",)
"""Encoders beside the text encoder that have pretrained weights."""

MOST_NUMBER = 1 << 21
"""Of a whole number in the encoder's config: above any vocabulary or length there is. Sizes of real weights are compared later."""

MOST_LABELS = 100_000
_COUNTS_OF_LABELS = frozenset(("num_labels",))
_UNBOUND = frozenset(("rope_theta",))

FOREIGN = frozenset(
    (
        *("auto_map", "custom_pipelines", "trust_remote_code"),  # code of the checkpoint's own
        *("attn_implementation", "_attn_implementation", "experts_implementation"),  # may name kernels on the hub
        *("quantization_config", "compression_config", "base_model_name_or_path"),  # other loaders
        *("init_inputs", "tokenizer_object"),  # arguments that are objects
    )
)
"""Keys that ask for code, or for files from elsewhere."""


def may_be_in_base(name: str) -> bool:
    """Whether `name`, relative to `base/`, is of a file that an artifact may hold there."""
    encoder, _, own = name.partition("/")
    if encoder in FURTHER_ENCODERS:
        return own in _FURTHER or _SHARD.match(own) is not None
    return name in _NAMES or _SHARD.match(name) is not None


def of_encoder(names: frozenset[str], encoder: str) -> frozenset[str]:
    """Names in the folder of another encoder, relative to that."""
    return frozenset(name.removeprefix(f"{encoder}/") for name in names if name.startswith(f"{encoder}/"))


def is_foreign(key: str, value: Any) -> bool:
    """Whether this entry of a config or of a tokenizer's settings asks for code or for a file."""
    if value is None:
        return False
    return (
        key in FOREIGN or key.endswith(("_file", "_files")) or (key in ("vocab", "merges") and isinstance(value, str))
    )


def without_foreign(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The same without entries that ask for code or files, at any depth."""

    def kept(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: kept(item) for key, item in value.items() if not is_foreign(key, item)}
        return [kept(item) for item in value] if isinstance(value, list) else value

    return kept(dict(settings))


def check_settings(name: str, content: bytes, where: str, present: frozenset[str]) -> dict[str, Any]:
    """The object in one of the small JSON files.

    Args:
        name: Relative to `base/`.
        content: What is in it.
        where: What messages call it.
        present: Names of all files in `base/`.

    Raises:
        ArtifactError: It is hostile or damaged.
    """
    settings = parse_object(content, where)
    _refuse_foreign(settings, where)
    if name == CONFIG:
        _refuse_large(settings, where)
    if name == INDEX:
        shards = settings.get("weight_map")
        named = (
            set(shards.values())
            if isinstance(shards, dict) and all(isinstance(x, str) for x in shards.values())
            else set()
        )
        if not named or not all(_SHARD.match(shard) and shard in present for shard in named):
            raise ArtifactError(f"{where} has to name weight files beside it, and nothing else.")
    return settings


def is_settings(name: str) -> bool:
    """Whether this file of `base/` is one of the small JSON files."""
    return name in (*_SETTINGS, IMAGE_PROCESSOR)


def read_base_headers(base: Path, names: frozenset[str]) -> dict[str, TensorInfo]:
    """All tensors of the weights in `base/`; none if there are no weights.

    Raises:
        ArtifactError: Files that are no safetensors, or a tensor in two of them.
    """
    tensors: dict[str, TensorInfo] = {}
    for name in sorted(names):
        if name == WHOLE or _SHARD.match(name):
            header = read_header(base / name)
            if tensors.keys() & header.keys():
                raise ArtifactError(f"{base / name} holds tensors that another file of the artifact holds too.")
            tensors.update(header)
    return tensors


def _refuse_foreign(value: Any, where: str) -> None:
    if isinstance(value, list):
        for item in value:
            _refuse_foreign(item, where)
    if isinstance(value, dict):
        for key, item in value.items():
            if is_foreign(key, item):
                raise ArtifactError(
                    f"{where} has {key!r}, which asks for code or files from elsewhere. It is not loaded."
                )
            _refuse_foreign(item, where)


def _refuse_large(value: Any, where: str, key: str = "") -> None:
    if isinstance(value, dict):
        for name, item in value.items():
            _refuse_large(item, where, name)
    elif isinstance(value, list):
        for item in value:
            _refuse_large(item, where, key)
    elif isinstance(value, int | float) and key not in _UNBOUND:
        most = MOST_LABELS if key in _COUNTS_OF_LABELS else MOST_NUMBER
        if isinstance(value, int) and not -most <= value <= most:
            raise ArtifactError(
                f"{where} has {key}={str(value)[:40]}, which is more than any text model has ({most:,})."
            )
