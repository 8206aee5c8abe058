"""Everything a fitted predictor consists of, in one record that is never half-filled; and how its model is built."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from featherfit.adapters.apply import apply_adapters
from featherfit.checkpoints import Checkpoint
from featherfit.config.schema import Config
from featherfit.data.findings import DataReport
from featherfit.data.parts import PartProcessor
from featherfit.data.processors.image import ImageProcessor
from featherfit.data.processors.notext import NoText
from featherfit.data.processors.several import Target
from featherfit.data.processors.table import TableProcessor
from featherfit.data.processors.text import TextProcessor
from featherfit.data.schema import Schema
from featherfit.errors import ConfigError
from featherfit.evaluation.decision import UNCALIBRATED, Decision
from featherfit.evaluation.reading import Reading
from featherfit.models.backbone import build_backbone, build_backbone_from_config
from featherfit.models.build import TEXT, MultiModalModel, assemble, build_text_encoder
from featherfit.models.linear import freeze_linears, lower_precision
from featherfit.models.tabular import TableEncoder
from featherfit.models.vision import VisionEncoder
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
        checkpoint: The pretrained weights the text encoder stands on; None where no text is read.
        model: Encoders, adapters and head.
        device: Where it runs.
        eval_metric: Metric `evaluate` computes by default.
        validation_metric: Metric that chose the weights.
        decision: How a classifier's logits become probabilities and labels.
        constants: Columns that were not used and had the same value in every training row, with it.
        summary: What training came to, as JSON values.
        data_report: What was found in the rows it was trained on; not saved.
        rejected: Rows that were left out of the last fit, if that was asked for; not saved.
        parts: Columns of the encoders beside `hf_text` to what they read, by their name.
        further: The pretrained weights those encoders stand on, of those that do, by their name.
    """

    config: Config
    schema: Schema
    label: Target
    text: TextProcessor | NoText
    checkpoint: Checkpoint | None
    model: MultiModalModel
    device: Device
    eval_metric: str
    validation_metric: str
    decision: Decision = UNCALIBRATED
    constants: dict[str, str] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    data_report: DataReport | None = None
    rejected: pd.DataFrame | None = None
    parts: dict[str, PartProcessor] = field(default_factory=dict)
    further: dict[str, Checkpoint] = field(default_factory=dict)

    @property
    def checkpoints(self) -> dict[str, Checkpoint]:
        """All pretrained weights the model stands on, by the name of their encoder."""
        return {**({} if self.checkpoint is None else {TEXT: self.checkpoint}), **self.further}

    @property
    def reading(self) -> Reading:
        """How the model's logits are read."""
        return Reading(self.label, self.decision)

    def alone(self) -> Fitted:
        """The same, to be used without the ranks it was trained with; not if they have parts of its weights."""
        if self.device.ranks.sharded:
            return self
        return replace(self, device=replace(self.device, ranks=ALONE))


def new_model(
    config: Config,
    checkpoint: Checkpoint | None,
    parts: Mapping[str, PartProcessor],
    further: Mapping[str, Checkpoint],
    outputs: int,
    seed: int,
    device: Device,
) -> MultiModalModel:
    """The model of a run before any training: pretrained encoders, adapters in place, fresh head.

    Args:
        config: All settings.
        checkpoint: Pretrained weights of the text encoder; None where no text is read.
        parts: Processors of the other encoders, by their name.
        further: Their pretrained weights, of those that have some.
        outputs: Width of the head.
        seed: Seed of all new weights.
        device: Where it is to run.

    Raises:
        CheckpointError: The weights cannot be read.
        TargetError: The adapters' targets do not fit the encoders.
        ConfigError: A base precision that the encoder cannot have.
    """
    encoder = None
    if checkpoint is not None:
        pooling = config.model.hf_text.pooling_mode
        encoder = build_text_encoder(checkpoint, pooling=pooling, **form_of_weights(config, device))
    others = build_others(config, parts, further, seed=seed, device=device)
    return prepare(assemble(encoder, others, config, outputs=outputs, seed=seed), config, seed, device)


def build_others(
    config: Config,
    parts: Mapping[str, PartProcessor],
    further: Mapping[str, Checkpoint],
    *,
    seed: int,
    device: Device | None,
    pretrained: bool = True,
) -> dict[str, nn.Module]:
    """The encoders beside `hf_text`, by their name.

    Args:
        config: All settings.
        parts: Their processors.
        further: Pretrained weights of those that have some.
        seed: Seed of new weights.
        device: Decides how frozen weights are kept; None on the meta device, where nothing is.
        pretrained: False builds them of their config alone, with whatever numbers.
    """
    made: dict[str, nn.Module] = {}
    for name, processor in parts.items():
        if isinstance(processor, TableProcessor):
            made[name] = TableEncoder(processor.spec, config.model.ft_transformer, seed=seed)
        if isinstance(processor, ImageProcessor):
            made[name] = _image_encoder(config, further[name], device if pretrained else None)
    return made


def _image_encoder(config: Config, checkpoint: Checkpoint, device: Device | None) -> VisionEncoder:
    """With pretrained weights, kept as the device has them; of its config alone where there is no device."""
    own = config.model.timm_image
    if device is None:
        with torch.random.fork_rng(devices=[]):  # random weights that are nobody's
            place = torch.get_default_device()
            backbone = build_backbone_from_config(checkpoint.config, images=True, device=place)
    else:
        if own.base_precision == "float16" and device.place.type == "cpu":
            raise ConfigError(
                "model.timm_image.base_precision='float16' is not possible on a CPU, where float16 takes a scalar path. Use "
                "'auto', 'bfloat16', 'int8' or 'int4'."
            )
        form = form_of_weights(config, replace(device, base_precision=own.base_precision))
        backbone = build_backbone(checkpoint, images=True, **form)
    return VisionEncoder(backbone, pooling=own.pooling_mode, learnable_missing=own.use_learnable_image)


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
    peft = config.optim.peft
    for name, encoder in model.pretrained().items():
        settings = getattr(config.model, name)
        if settings.dropout == "off" or (settings.dropout == "auto" and peft is not None):
            encoder.disable_dropout()
        if peft is not None:
            freeze_linears(encoder.backbone, copies=not device.ranks.sharded)
    apply_adapters(model, config.optim, seed=seed)
    for name, encoder in model.pretrained().items():
        settings = getattr(config.model, name)
        if peft is not None:
            lower_precision(encoder.backbone, device.frozen_dtype)
        if settings.gradient_checkpointing:
            encoder.enable_gradient_checkpointing(offload=settings.activation_offload)
        if device.ranks.sharded:
            shard(encoder, device.place)
    return model.to(device.place).eval()
