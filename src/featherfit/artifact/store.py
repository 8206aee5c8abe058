"""A `Fitted` goes to a folder and comes back from one. Nothing in an artifact is ever executed.

config.json            settings, checkpoint name and fingerprint, metrics, library versions
schema.json            column types, classes, scaling
trainable.safetensors  the parameters that were trained: adapters, biases, head
metrics.json           what training came to
README.md              a model card
base/                  only where the artifact stands alone: encoder config, tokenizer and, under adapters, weights
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from featherfit.adapters.state import load_trainable_state, save_trainable_state
from featherfit.artifact import format as files
from featherfit.artifact.card import model_card
from featherfit.artifact.fitted import Fitted, new_model, outputs_of, prepare
from featherfit.checkpoints import Checkpoint, resolve_checkpoint
from featherfit.checkpoints.layout import FAST_TOKENIZER, POOLING, TOKENIZER_SETTINGS, VOCABULARIES
from featherfit.checkpoints.resolve import read_checkpoint
from featherfit.config.dotted import build_config, to_flat
from featherfit.config.schema import Config
from featherfit.data.processors.label import LabelProcessor
from featherfit.data.processors.text import TextProcessor
from featherfit.data.schema import Schema
from featherfit.errors import ArtifactError, FeatherfitError, PathExistsError
from featherfit.models.backbone import build_backbone, build_backbone_from_config
from featherfit.models.build import MultiModalModel, model_size
from featherfit.models.heads import Head
from featherfit.models.text import TextEncoder
from featherfit.startup import collection_paused
from featherfit.storage import storing
from featherfit.training.device import Device, pick_device

LIBRARIES = ("torch", "transformers", "safetensors")


def save_artifact(fitted: Fitted, path: str | Path, *, standalone: bool | None = None) -> Path:
    """Writes an artifact; an earlier artifact at `path` is replaced, whole or not at all.

    Args:
        fitted: What to write.
        path: A folder; anything in it that is not an artifact is refused.
        standalone: Put the encoder in too. None: only if the encoder itself was trained, and then always.

    Raises:
        PathExistsError: `path` holds something else.
        StorageError: It cannot be written.
    """
    target = Path(path).expanduser()
    if not files.is_free(target) and not files.is_artifact(target) and not files.is_of_fit(target):
        raise PathExistsError(f"{target} is not empty and not an artifact. Choose another path, or empty it.")
    whole_encoder = fitted.config.optim.peft is None
    standalone = whole_encoder or bool(standalone)
    with storing("The artifact", target), files.written_whole(target) as folder:
        save_trainable_state(fitted.model, folder / files.WEIGHTS)
        if standalone:
            _write_base(fitted, folder / files.BASE, weights=not whole_encoder)
        schema = {"schema": fitted.schema.to_json(), "label": fitted.label.to_json()}
        files.write_json(folder / files.SCHEMA, schema)
        files.write_json(folder / files.METRICS, fitted.summary)
        config = _describe(fitted, standalone)
        config["files"] = files.digests(folder)
        files.write_json(folder / files.CONFIG, config)
        (folder / files.CARD).write_text(model_card(fitted, standalone), encoding="utf-8")
    return target


def _describe(fitted: Fitted, standalone: bool) -> dict[str, Any]:
    size = model_size(fitted.model)
    checkpoint = fitted.checkpoint
    return {
        "format_version": files.FORMAT_VERSION,
        "featherfit": version("featherfit"),
        "libraries": {name: version(name) for name in LIBRARIES},
        "standalone": standalone,
        "checkpoint": {
            "name": checkpoint.name,
            "fingerprint": checkpoint.fingerprint,
            "source": checkpoint.source,
            "note": checkpoint.note,
        },
        "pooling": fitted.model.encoder.pooling,
        "eval_metric": fitted.eval_metric,
        "validation_metric": fitted.validation_metric,
        "parameters": {"total": size.total, "trainable": size.trainable, "megabytes": size.megabytes},
        "settings": to_flat(fitted.config),
    }


def _write_base(fitted: Fitted, folder: Path, *, weights: bool) -> None:
    """The encoder as it was before training, or, where it was trained itself, only its config and tokenizer."""
    folder.mkdir()
    if weights:
        build_backbone(fitted.checkpoint).save_pretrained(folder)
    else:
        fitted.model.encoder.backbone.config.save_pretrained(folder)
    for name in (FAST_TOKENIZER, *VOCABULARIES, *TOKENIZER_SETTINGS, POOLING):
        source = fitted.checkpoint.folder / name
        if source.is_file():
            (folder / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(source, folder / name)


@collection_paused()
def load_artifact(path: str | Path) -> Fitted:
    """Reads an artifact.

    Raises:
        ArtifactError: Damaged or partial; trained weights that are missing, extra or of another shape.
        CheckpointError: The pretrained weights are not at hand, or not the ones it was trained on.
    """
    folder = Path(path).expanduser()
    stored = files.read_config(folder)
    _check_digests(folder, stored)
    try:
        config = build_config(stored["settings"])
        state = files.read_json(folder / files.SCHEMA)
        schema, label = Schema.from_json(state["schema"]), LabelProcessor.from_json(state["label"])
        recorded = {key: stored["checkpoint"][key] for key in ("name", "fingerprint", "note")}
        metrics = str(stored["eval_metric"]), str(stored["validation_metric"])
        pooling = str(stored["pooling"])
    except (KeyError, TypeError, AttributeError, FeatherfitError) as error:
        raise ArtifactError(f"The artifact at {folder} is damaged: {type(error).__name__}: {error}.") from None
    summary = files.read_json(folder / files.METRICS) if (folder / files.METRICS).is_file() else {}
    checkpoint = _checkpoint(folder, stored, recorded)
    config = _with_pooling(config, pooling)
    device = pick_device(config.env, config.model.hf_text.base_precision)
    model = _model(config, checkpoint, outputs_of(label), device)
    load_trainable_state(model, _read_weights(folder))
    text = TextProcessor.from_checkpoint(checkpoint, schema.text_columns, config.model.hf_text)
    return Fitted(config, schema, label, text, checkpoint, model, device, *metrics, summary)


def _check_digests(folder: Path, stored: dict[str, Any]) -> None:
    """Compares with what is there; a recorded name is never opened, so it cannot lead out of the artifact."""
    found = files.digests(folder)
    for name, digest in dict(stored.get("files") or {}).items():
        if name not in found:
            raise ArtifactError(f"{folder} is not a complete artifact. It lacks: {name}.")
        if found[name] != digest:
            raise ArtifactError(f"{folder / name} was changed or damaged: its checksum is not the recorded one.")


def _checkpoint(folder: Path, stored: dict[str, Any], recorded: dict[str, Any]) -> Checkpoint:
    base = folder / files.BASE
    if not stored.get("standalone"):
        return resolve_checkpoint(recorded["name"], fingerprint=recorded["fingerprint"])
    if (base / "model.safetensors").is_file() or (base / "model.safetensors.index.json").is_file():
        return replace(read_checkpoint(base, name=recorded["name"], source="artifact"), note=recorded["note"])
    model_config = files.read_json(base / "config.json")
    return Checkpoint(recorded["name"], base, "artifact", recorded["fingerprint"], model_config, recorded["note"])


def _with_pooling(config: Config, pooling: str) -> Config:
    """Pins the pooling the model was trained with, whatever a checkpoint folder says today."""
    hf_text = replace(config.model.hf_text, pooling_mode=pooling)
    return replace(config, model=replace(config.model, hf_text=hf_text))


def _model(config: Config, checkpoint: Checkpoint, outputs: int, device: Device) -> MultiModalModel:
    """The model before its trained weights are put in; a wholly trained encoder needs no pretrained ones."""
    if config.optim.peft is not None:
        return new_model(config, checkpoint, outputs, 0, device)
    encoder = TextEncoder(build_backbone_from_config(checkpoint.config), pooling=config.model.hf_text.pooling_mode)
    return prepare(MultiModalModel(encoder, Head(encoder.out_dim, outputs, seed=0)), config, 0, device)


def _read_weights(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(folder / files.WEIGHTS)
    except (SafetensorError, OSError) as error:
        raise ArtifactError(f"{folder / files.WEIGHTS} cannot be read: {error}.") from None


def inspect_artifact(path: str | Path) -> dict[str, Any]:
    """What is in an artifact, as JSON values; loads no weights.

    Raises:
        ArtifactError: No artifact there, or damaged.
    """
    folder = Path(path).expanduser()
    stored = files.read_config(folder)
    state = files.read_json(folder / files.SCHEMA)
    parts = [
        file
        for file in sorted(folder.rglob("*"))
        if file.is_file() and files.WORK not in file.relative_to(folder).parts
    ]
    sizes = {str(file.relative_to(folder)): file.stat().st_size for file in parts}
    return {
        **stored,
        "path": str(folder),
        "label": state["schema"]["label"],
        "problem_type": state["schema"]["problem_type"],
        "classes": state["label"]["classes"],
        "columns": state["schema"]["columns"],
        "metrics": files.read_json(folder / files.METRICS),
        "bytes": sum(sizes.values()),
        "sizes": sizes,
    }
