"""Training rows and the columns of each encoder go in; fitted processors come out, and later the same ones from their JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd

from featherfit.checkpoints import Checkpoint
from featherfit.config.schema import Config
from featherfit.data.modalities import as_text
from featherfit.data.parts import PartProcessor
from featherfit.data.processors.image import ImageProcessor
from featherfit.data.processors.notext import NoText
from featherfit.data.processors.table import TableProcessor
from featherfit.data.processors.text import TextProcessor, TokenizerSource
from featherfit.data.schema import Schema


def _fit_table(
    frame: pd.DataFrame, columns: Sequence[str], schema: Schema, config: Config, checkpoint: Checkpoint | None
) -> PartProcessor:
    return TableProcessor.fit(frame, columns, schema, config)


def _fit_images(
    frame: pd.DataFrame, columns: Sequence[str], schema: Schema, config: Config, checkpoint: Checkpoint | None
) -> PartProcessor:
    assert checkpoint is not None
    types = {name: schema.columns[name] for name in columns}
    return ImageProcessor.from_checkpoint(checkpoint, types, config.model.timm_image)


def _read_table(state: Mapping[str, Any], config: Config) -> PartProcessor:
    return TableProcessor.from_json(state)


def _read_images(state: Mapping[str, Any], config: Config) -> PartProcessor:
    return ImageProcessor.from_json(state, config.model.timm_image)


FITTED_BY: dict[str, Callable[[pd.DataFrame, Sequence[str], Schema, Config, Checkpoint | None], PartProcessor]] = {
    "ft_transformer": _fit_table,
    "timm_image": _fit_images,
}
"""How the processor of an encoder beside `hf_text` is fitted."""

READ_BY: dict[str, Callable[[Mapping[str, Any], Config], PartProcessor]] = {
    "ft_transformer": _read_table,
    "timm_image": _read_images,
}
"""How it is made of its JSON."""


def text_processor(
    checkpoint: TokenizerSource | None, columns: Sequence[str], schema: Schema, config: Config
) -> TextProcessor | NoText:
    """What reads the columns of the text encoder; nothing where there is none.

    Args:
        checkpoint: Its pretrained weights.
        columns: From `columns_by_encoder`.
        schema: Says which of them are no text and have to be written as such.
        config: All settings.

    Raises:
        CheckpointError: There is no tokenizer that can be read.
        ConfigError: Settings of the text encoder that do not fit the checkpoint.
    """
    if checkpoint is None:
        return NoText()
    return TextProcessor.from_checkpoint(checkpoint, columns, config.model.hf_text, as_text(schema, config))


def fit_parts(
    frame: pd.DataFrame,
    columns: Mapping[str, Sequence[str]],
    schema: Schema,
    config: Config,
    checkpoints: Mapping[str, Checkpoint],
) -> dict[str, PartProcessor]:
    """The processors of all encoders but the text encoder, by their name.

    Args:
        frame: Training rows.
        columns: From `columns_by_encoder`.
        schema: Says what each column is.
        config: All settings.
        checkpoints: Pretrained weights of the encoders that have some, by their name.

    Raises:
        DataError: A cell that is not of its column's type.
        CheckpointError: A checkpoint that does not say how it wants its data.
    """
    return {
        name: FITTED_BY[name](frame, own, schema, config, checkpoints.get(name))
        for name, own in columns.items()
        if name in FITTED_BY
    }


def parts_from_json(state: Mapping[str, Mapping[str, Any]], config: Config) -> dict[str, PartProcessor]:
    """The processors whose `to_json` gave `state`, by their encoder's name, under the same settings."""
    return {name: READ_BY[name](own, config) for name, own in state.items()}
