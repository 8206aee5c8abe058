"""Everything a fitted predictor consists of, in one record that is never half-filled; and how its model is built."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch

from featherfit.adapters.apply import apply_adapters
from featherfit.checkpoints import Checkpoint
from featherfit.config.schema import Config
from featherfit.data.findings import DataReport
from featherfit.data.processors.label import LabelProcessor
from featherfit.data.processors.text import TextProcessor
from featherfit.data.schema import Schema
from featherfit.evaluation.decision import UNCALIBRATED, Decision
from featherfit.models.build import MultiModalModel, build_model
from featherfit.models.linear import freeze_linears, lower_precision
from featherfit.training.device import Device
from featherfit.training.ranks import ALONE
from featherfit.training.sharding import shard

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Fitted:
    """A fitted predictor.

    Attributes:
        config: All settings, the checkpoint's resolved name included.
        schema: Column types, label and problem type.
        label: Labels to numbers and back.
        text: Text columns to token ids.
        checkpoint: The pretrained weights the model stands on.
        model: Encoder, adapters and head.
        device: Where it runs.
        eval_metric: Metric `evaluate` computes by default.
        validation_metric: Metric that chose the weights.
        decision: How a classifier's logits become probabilities and labels.
        constants: Columns that were not used and had the same value in every training row, with it.
        summary: What training came to, as JSON values.
        data_report: What was found in the rows it was trained on; not saved.
        rejected: Rows that were left out of the last fit, if that was asked for; not saved.
    """

    config: Config
    schema: Schema
    label: LabelProcessor
    text: TextProcessor
    checkpoint: Checkpoint
    model: MultiModalModel
    device: Device
    eval_metric: str
    validation_metric: str
    decision: Decision = UNCALIBRATED
    constants: dict[str, str] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    data_report: DataReport | None = None
    rejected: pd.DataFrame | None = None

    def alone(self) -> Fitted:
        """The same, to be used without the ranks it was trained with; not if they have parts of its weights."""
        if self.device.ranks.sharded:
            return self
        return replace(self, device=replace(self.device, ranks=ALONE))


def outputs_of(label: LabelProcessor) -> int:
    """Width of the head: one per class, or one for regression."""
    return 1 if label.problem_type == "regression" else len(label.classes)


def new_model(config: Config, checkpoint: Checkpoint, outputs: int, seed: int, device: Device) -> MultiModalModel:
    """The model of a run before any training: pretrained encoder, adapters in place, fresh head.

    Raises:
        CheckpointError: The weights cannot be read.
        TargetError: The adapters' targets do not fit the encoder.
        ConfigError: A base precision that the encoder cannot have.
    """
    form = form_of_weights(config, device)
    pooling = config.model.hf_text.pooling_mode
    return prepare(build_model(checkpoint, outputs=outputs, pooling=pooling, seed=seed, **form), config, seed, device)


def form_of_weights(config: Config, device: Device) -> dict[str, Any]:
    """`dtype`, `mapped` and `form` of `build_backbone`: how this run keeps the encoder's weights."""
    # A parameter of the encoder's own that is to train has to be read as it is; all else is frozen and may be low.
    low = config.optim.peft is not None and not config.optim.extra_trainable_params
    return {
        "dtype": device.frozen_dtype if low else torch.float32,
        "mapped": low and device.place.type == "cpu",
        "form": None if config.optim.peft is None else device.base_form,
    }


def prepare(model: MultiModalModel, config: Config, seed: int, device: Device) -> MultiModalModel:
    """Gives a plain model what settings and device ask for: dropout, adapters, checkpointing, precision. In place.

    Raises:
        TargetError: The adapters' targets do not fit the encoder.
    """
    settings = config.model.hf_text
    if settings.dropout == "off" or (settings.dropout == "auto" and config.optim.peft is not None):
        model.encoder.disable_dropout()
    if config.optim.peft is not None:
        freeze_linears(model.encoder.backbone, copies=not device.ranks.sharded)
    apply_adapters(model, config.optim, seed=seed)
    if config.optim.peft is not None:
        lower_precision(model.encoder.backbone, device.frozen_dtype)
    if settings.gradient_checkpointing:
        model.encoder.enable_gradient_checkpointing(offload=settings.activation_offload)
    if device.ranks.sharded:
        shard(model.encoder, device.place)
    return model.to(device.place).eval()
