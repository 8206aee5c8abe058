"""A `Fitted` goes to a folder and comes back from one. Nothing in an artifact is ever executed.

SHA256SUMS             checksums of all below but the card
config.json            settings, checkpoint name and fingerprint, metrics, library versions
schema.json            column types, classes, scaling; temperature and threshold
trainable.safetensors  the parameters that were trained: adapters, biases, head
metrics.json           what training came to
README.md              a model card
base/                  only where the artifact stands alone: encoder config, tokenizer and, under adapters, weights
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from featherfit.adapters.state import load_trainable_state, save_trainable_state
from featherfit.artifact import format as files
from featherfit.artifact.card import model_card
from featherfit.artifact.expected import check_tensors
from featherfit.artifact.fitted import Fitted, build_others, new_model, prepare
from featherfit.artifact.opening import Opened, open_artifact
from featherfit.artifact.standalone import FURTHER_ENCODERS, INDEX, WHOLE, without_foreign
from featherfit.checkpoints import Checkpoint, resolve_checkpoint
from featherfit.checkpoints.layout import (
    CONFIG,
    FAST_TOKENIZER,
    IMAGE_PROCESSOR,
    POOLING,
    TOKENIZER_SETTINGS,
    VOCABULARIES,
    read_json,
    weight_files,
    write_json,
)
from featherfit.checkpoints.resolve import read_checkpoint
from featherfit.config.dotted import build_config, to_flat
from featherfit.config.schema import Config
from featherfit.data.modalities import columns_by_encoder
from featherfit.data.parts import PartProcessor
from featherfit.data.processors.fitting import parts_from_json, text_processor
from featherfit.data.processors.several import target_from_json
from featherfit.data.schema import Schema
from featherfit.errors import ArtifactError, ConfigError, FeatherfitError, PathExistsError, TargetError
from featherfit.evaluation.decision import Decision
from featherfit.evaluation.metrics import metric_name
from featherfit.models.backbone import build_backbone, build_backbone_from_config
from featherfit.models.build import TEXT, MultiModalModel, assemble, model_size
from featherfit.models.text import TextEncoder
from featherfit.startup import collection_paused
from featherfit.storage import expanded, storing
from featherfit.training.device import Device, pick_device

LIBRARIES = ("torch", "transformers", "safetensors")

MOST_WORKERS = 256
"""Processes for prediction that an artifact may ask for."""


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
    target = expanded(path)
    if not files.is_free(target) and not files.is_artifact(target) and not files.is_of_fit(target):
        raise PathExistsError(f"{target} is not empty and not an artifact. Choose another path, or empty it.")
    whole_encoder = fitted.config.optim.peft is None
    # Without pretrained weights an artifact always has all it needs.
    standalone = whole_encoder or bool(standalone) or not fitted.checkpoints
    with storing("The artifact", target), files.written_whole(target) as folder:
        save_trainable_state(fitted.model, folder / files.WEIGHTS)
        if standalone and fitted.checkpoint is not None:
            _write_base(fitted, fitted.checkpoint, folder / files.BASE, weights=not whole_encoder)
        if standalone:
            for name, checkpoint in fitted.further.items():
                _write_further(fitted, name, checkpoint, folder / files.BASE / name)
        schema = {
            "schema": fitted.schema.to_json(),
            "label": fitted.label.to_json(),
            "decision": fitted.decision.to_json(),
            "constants": fitted.constants,
            "processors": {name: processor.to_json() for name, processor in fitted.parts.items()},
        }
        files.write_json(folder / files.SCHEMA, schema)
        files.write_json(folder / files.METRICS, fitted.summary)
        files.write_json(folder / files.CONFIG, _describe(fitted, standalone))
        files.write_checksums(folder)
        (folder / files.CARD).write_text(model_card(fitted, standalone), encoding="utf-8")
    return target


def _describe(fitted: Fitted, standalone: bool) -> dict[str, Any]:
    size = model_size(fitted.model)
    encoder = fitted.model.encoder
    return {
        "format_version": files.FORMAT_VERSION,
        "featherfit": version("featherfit"),
        "libraries": {name: version(name) for name in LIBRARIES},
        "standalone": standalone,
        "checkpoint": None if fitted.checkpoint is None else _recorded(fitted.checkpoint),
        "further": {name: _recorded(checkpoint) for name, checkpoint in fitted.further.items()},
        "pooling": None if encoder is None else encoder.pooling,
        "eval_metric": fitted.eval_metric,
        "validation_metric": fitted.validation_metric,
        "parameters": {"total": size.total, "trainable": size.trainable, "megabytes": size.megabytes},
        "settings": {**to_flat(fitted.config), **_pinned(fitted)},
    }


def _pinned(fitted: Fitted) -> dict[str, Any]:
    """Settings as they turned out where they were left to the model."""
    encoders = fitted.model.encoders()
    return {"model.timm_image.pooling_mode": encoders["timm_image"].pooling} if "timm_image" in encoders else {}


def _recorded(checkpoint: Checkpoint) -> dict[str, Any]:
    return {name: getattr(checkpoint, name) for name in ("name", "fingerprint", "source", "note")}


def _write_base(fitted: Fitted, checkpoint: Checkpoint, folder: Path, *, weights: bool) -> None:
    """The encoder as it was before training, or, where it was trained itself, only its config and tokenizer."""
    folder.mkdir()
    if weights:
        build_backbone(checkpoint).save_pretrained(folder)
    elif fitted.model.encoder is not None:
        fitted.model.encoder.backbone.config.save_pretrained(folder)
    for name in (FAST_TOKENIZER, *VOCABULARIES, *TOKENIZER_SETTINGS, POOLING):
        source = checkpoint.folder / name
        if source.is_file():
            (folder / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(source, folder / name)
    for name in (CONFIG, *TOKENIZER_SETTINGS):
        if (folder / name).is_file():
            write_json(folder / name, without_foreign(read_json(folder / name)))


def _write_further(fitted: Fitted, name: str, checkpoint: Checkpoint, folder: Path) -> None:
    """An image encoder as it was before training.

    Its weights are written even where all of them were trained: batch norms have statistics besides, which do not train.
    """
    folder.mkdir(parents=True)
    for file in weight_files(checkpoint.folder):
        if not file.endswith(".safetensors"):
            raise ArtifactError(f"{checkpoint.folder / file} is no safetensors file, and an artifact holds no others.")
        shutil.copyfile(checkpoint.folder / file, folder / file)
    if (checkpoint.folder / INDEX).is_file() and not (folder / WHOLE).is_file():
        shutil.copyfile(checkpoint.folder / INDEX, folder / INDEX)
    write_json(folder / CONFIG, without_foreign(checkpoint.config))
    write_json(folder / IMAGE_PROCESSOR, without_foreign(fitted.parts[name].to_json()["settings"]))


@collection_paused()
def load_artifact(path: str | Path) -> Fitted:
    """Reads an artifact.

    Raises:
        ArtifactError: Damaged, partial or hostile; trained weights that are missing, extra or of another shape.
        CheckpointError: The pretrained weights are not at hand, or not the ones it was trained on.
    """
    opened = open_artifact(path)
    opened.verify()
    record, schema_file = opened.documents.config, opened.documents.schema_file
    with _damage(opened.folder, FeatherfitError):
        config = _with_pooling(build_config(record.settings), record.pooling)
        parts = parts_from_json(schema_file.processors.states(), config)
        label = target_from_json(schema_file.label.model_dump())
        metrics = (
            metric_name(record.eval_metric, label.problem_type, "eval_metric"),
            metric_name(record.validation_metric, label.problem_type, "validation_metric"),
        )
    if config.env.num_workers_inference > MOST_WORKERS:
        raise ArtifactError(
            f"The artifact at {opened.folder} asks for more than {MOST_WORKERS} processes to predict with."
        )
    schema = Schema.from_json(schema_file.schema_.model_dump())
    # Of an artifact that stands alone third parties' code reads files; what it makes of damaged ones can be any exception.
    faults = (Exception,) if record.standalone else (ConfigError, TargetError)
    with _damage(opened.folder, *faults):
        columns = _columns_read(schema, config, parts, record.checkpoint is not None)
        checkpoint, further = _checkpoint(opened), _further(opened)
        outputs = label.outputs
        inside = {name: tensors for name, (_, tensors) in opened.further.items()}
        check_tensors(config, checkpoint, parts, further, outputs, opened.weights, opened.base, inside)
        device = pick_device(config.env, config.model.hf_text.base_precision)
        model = _model(config, checkpoint, parts, further, outputs, device)
        text = text_processor(checkpoint, columns.get(TEXT, []), schema, config)
    load_trainable_state(model, _read_weights(opened.folder))
    decision, constants = Decision.from_json(schema_file.decision.model_dump()), dict(schema_file.constants)
    summary = dict(opened.documents.summary)
    return Fitted(
        config, schema, label, text, checkpoint, model, device, *metrics, decision, constants, summary,
        parts=parts, further=further,
    )  # fmt: skip


def _columns_read(
    schema: Schema, config: Config, parts: Mapping[str, PartProcessor], has_text: bool
) -> dict[str, list[str]]:
    """The columns of every encoder, which have to be those that there are processors for."""
    columns = columns_by_encoder(schema, config)
    held = {
        **({TEXT: columns.get(TEXT, [])} if has_text else {}),
        **{name: part.columns for name, part in parts.items()},
    }
    if {name: sorted(own) for name, own in held.items()} != {name: sorted(own) for name, own in columns.items()}:
        raise ArtifactError("schema.json has other columns than the processors in it.")
    return columns


@contextlib.contextmanager
def _damage(folder: Path, *faults: type[Exception]) -> Iterator[None]:
    """Errors of these kinds in the block are the artifact's fault."""
    try:
        yield
    except ArtifactError:
        raise
    except faults as error:
        raise ArtifactError(f"The artifact at {folder} is damaged: {type(error).__name__}: {error}") from error


def _further(opened: Opened) -> dict[str, Checkpoint]:
    """The weights of the other encoders: inside, where the artifact stands alone."""
    documents = opened.documents
    wanted = {name for name in vars(documents.schema_file.processors) if name in FURTHER_ENCODERS
              and getattr(documents.schema_file.processors, name) is not None}  # fmt: skip
    if wanted != documents.config.further.keys():
        raise ArtifactError(f"{opened.folder} has other checkpoints than encoders that need one.")
    found = {}
    for name, record in documents.config.further.items():
        if documents.config.standalone:
            folder = opened.folder / files.BASE / name
            found[name] = replace(read_checkpoint(folder, name=record.name, source="artifact"), note=record.note)
        else:
            found[name] = resolve_checkpoint(record.name, fingerprint=record.fingerprint)
    return found


def _checkpoint(opened: Opened) -> Checkpoint | None:
    record, base = opened.documents.config.checkpoint, opened.folder / files.BASE
    if record is None:
        return None
    if not opened.documents.config.standalone:
        return resolve_checkpoint(record.name, fingerprint=record.fingerprint)
    if opened.base:
        return replace(read_checkpoint(base, name=record.name, source="artifact"), note=record.note)
    if opened.base_config is None:
        raise ArtifactError(f"{opened.folder} is not a complete artifact. It lacks: {files.BASE}/{CONFIG}.")
    return Checkpoint(record.name, base, "artifact", record.fingerprint, opened.base_config, record.note)


def _with_pooling(config: Config, pooling: str | None) -> Config:
    """Pins the pooling the model was trained with, whatever a checkpoint folder says today."""
    if pooling is None:
        return config
    hf_text = replace(config.model.hf_text, pooling_mode=pooling)
    return replace(config, model=replace(config.model, hf_text=hf_text))


def _model(
    config: Config,
    checkpoint: Checkpoint | None,
    parts: Mapping[str, PartProcessor],
    further: Mapping[str, Checkpoint],
    outputs: int,
    device: Device,
) -> MultiModalModel:
    """The model before its trained weights are put in; wholly trained encoders need no pretrained ones."""
    if config.optim.peft is not None:
        return new_model(config, checkpoint, parts, further, outputs, 0, device)
    encoder = None
    if checkpoint is not None:
        backbone = build_backbone_from_config(checkpoint.config)
        encoder = TextEncoder(backbone, pooling=config.model.hf_text.pooling_mode)
    others = build_others(config, parts, further, seed=0, device=device)
    return prepare(assemble(encoder, others, config, outputs=outputs, seed=0), config, 0, device)


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
    opened = open_artifact(path)
    documents = opened.documents
    schema, label = documents.schema_file.schema_, documents.schema_file.label
    return {
        **documents.config.model_dump(),
        "path": str(opened.folder),
        "label": schema.label,
        "problem_type": schema.problem_type,
        "classes": label.classes,
        "columns": schema.columns,
        "decision": documents.schema_file.decision.model_dump(),
        "metrics": documents.summary,
        "bytes": sum(opened.sizes.values()),
        "sizes": opened.sizes,
        "files": documents.checksums,
    }
