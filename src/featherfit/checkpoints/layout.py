"""The files of a checkpoint folder: a folder, or a repository's list of files, goes in; what is read of it comes out.

A checkpoint folder has a `config.json`, weights, what turns data into numbers (the vocabulary of a text model's tokenizer, an
image model's `preprocessor_config.json`) and, where it was trained with sentence-transformers, `1_Pooling/config.json`.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from featherfit.errors import CheckpointError
from featherfit.types import PoolingMode

CONFIG = "config.json"
POOLING = "1_Pooling/config.json"
# In the order `transformers` looks for them: one file, or the index of several.
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
FAST_TOKENIZER = "tokenizer.json"
VOCABULARIES = (
    "added_tokens.json",
    "merges.txt",
    "sentencepiece.bpe.model",
    "spiece.model",
    "spm.model",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
)
TOKENIZER_SETTINGS = ("tokenizer_config.json", "special_tokens_map.json")
IMAGE_PROCESSOR = "preprocessor_config.json"
PROCESSOR = "processor_config.json"
TIMM = "timm"
"""What stands for `model_type` where a config is timm's."""

_POOLING_FLAGS: dict[str, PoolingMode] = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_lasttoken": "last",
}
_POOLING_NAMES: dict[str, PoolingMode] = {"cls": "cls", "mean": "mean", "lasttoken": "last"}


def weight_files(folder: Path) -> list[str]:
    """Names of the weight files that `transformers` would load, shards by way of their index; maybe none."""
    for name in WEIGHTS:
        if (folder / name).is_file():
            return _shards(folder / name) if name.endswith(".index.json") else [name]
    return []


def vocabulary_files(folder: Path) -> list[str]:
    """Names of the files that decide token ids: `tokenizer.json`, or else whatever it would be built from."""
    if (folder / FAST_TOKENIZER).is_file():
        return [FAST_TOKENIZER]
    return [name for name in VOCABULARIES if (folder / name).is_file()]


def missing_parts(folder: Path) -> list[str]:
    """What `folder` lacks of a complete checkpoint, in words; empty if it is complete."""
    missing = []
    if not (folder / CONFIG).is_file():
        missing.append(CONFIG)
    weights = weight_files(folder)
    if not weights:
        missing.append(f"weights ({WEIGHTS[0]} or {WEIGHTS[2]})")
    missing += [name for name in weights if not (folder / name).is_file()]
    # A byte-level tokenizer has settings and no vocabulary, and timm's settings for images are in the config.
    settings = (TOKENIZER_SETTINGS[0], IMAGE_PROCESSOR, PROCESSOR)
    prepared = bool(vocabulary_files(folder)) or any((folder / name).is_file() for name in settings)
    if not prepared and not _is_of_timm(folder / CONFIG):
        missing.append(
            f"tokenizer files ({FAST_TOKENIZER}, or the vocabulary it is made from), or an image model's {IMAGE_PROCESSOR}"
        )
    return missing


def is_timm(config: Mapping[str, Any]) -> bool:
    """Whether this is the `config.json` of a timm model, which has an architecture of timm's and no `model_type`."""
    return "model_type" not in config and isinstance(config.get("architecture"), str)


def _is_of_timm(config: Path) -> bool:
    try:
        return config.is_file() and is_timm(read_json(config))
    except CheckpointError:
        return False


def files_to_download(names: Iterable[str]) -> list[str]:
    """Of a repository's files, those a checkpoint consists of.

    Args:
        names: Paths inside the repository.

    Returns:
        Config, tokenizer, settings for images, pooling and weights: safetensors, or `pytorch_model*.bin` where there are no safetensors.
    """
    names = set(names)
    wanted = names & {CONFIG, POOLING, IMAGE_PROCESSOR, PROCESSOR, FAST_TOKENIZER, *VOCABULARIES, *TOKENIZER_SETTINGS}
    for stem, suffix in (("model", ".safetensors"), ("pytorch_model", ".bin")):
        whole, index = f"{stem}{suffix}", f"{stem}{suffix}.index.json"
        if whole in names:
            return sorted(wanted | {whole})
        if index in names:
            shards = {name for name in names if name.startswith(f"{stem}-") and name.endswith(suffix)}
            return sorted(wanted | shards | {index})
    return sorted(wanted)


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        CheckpointError: The file cannot be read, is not JSON, or holds something else than an object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}.") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} has to hold one JSON object, not {type(content).__name__}.")
    return content


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes an object as readable JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def read_pooling(folder: Path) -> PoolingMode | None:
    """The pooling that sentence-transformers recorded in `folder`, or None.

    Both forms are read: one flag for each mode, as ever, and the mode's name, as its newer versions write. A mode we
    do not have is a warning and None.
    """
    path = folder / POOLING
    if not path.is_file():
        return None
    recorded = read_json(path)
    if isinstance(recorded.get("pooling_mode"), str):
        names = [recorded["pooling_mode"]]
        modes = [_POOLING_NAMES[name] for name in names if name in _POOLING_NAMES]
    else:
        names = [key for key, value in recorded.items() if key.startswith("pooling_mode_") and value is True]
        modes = [_POOLING_FLAGS[name] for name in names if name in _POOLING_FLAGS]
    if len(names) == len(modes) == 1:
        return modes[0]
    warnings.warn(
        f"{path} asks for the pooling {' + '.join(names) or 'none'}, which is not offered (cls, mean, last are); "
        "the default of the model's family is used. Set model.hf_text.pooling_mode to choose.",
        stacklevel=2,
    )
    return None


def write_mean_pooling(folder: Path, width: int) -> None:
    """Records mean pooling in `folder`, as sentence-transformers does.

    Args:
        folder: The checkpoint folder.
        width: Length of a token's state, D.
    """
    write_json(folder / POOLING, {"word_embedding_dimension": width, "pooling_mode_mean_tokens": True})


def _shards(index: Path) -> list[str]:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{index} names no weight files.")
    return sorted(set(weight_map.values()))
