"""A schema and `model.names` go in; which encoder reads which columns comes out."""

from __future__ import annotations

from collections.abc import Sequence

from featherfit.config.schema import ENCODERS, Config
from featherfit.data.column_types import IMAGE_TYPES
from featherfit.data.schema import Schema
from featherfit.errors import ConfigError
from featherfit.types import ColumnType

READERS: dict[str, tuple[ColumnType, ...]] = {
    "hf_text": ("text",),
    "ft_transformer": ("categorical", "numerical", "boolean", "datetime"),
    "timm_image": IMAGE_TYPES,
}
"""Column types each encoder reads."""


def columns_by_encoder(schema: Schema, config: Config) -> dict[str, list[str]]:
    """The columns of every encoder that finds any, by its name, in the order of `model.names`.

    Text columns stand in the order of their names, as AutoMM joins them, others in that of the table. Categories and numbers
    go to the text encoder where `data.categorical.convert_to_text` and `data.numerical.convert_to_text` say so.

    Raises:
        ConfigError: No encoder of `model.names` finds a column, or several do and nothing joins them.
    """
    found = {name: _columns(schema, config, name) for name in config.model.names if name in ENCODERS}
    found = {name: columns for name, columns in found.items() if columns}
    if not found:
        raise ConfigError(_nothing_to_read(schema, config))
    if len(found) > 1 and fusion_of(config) is None:
        raise ConfigError(
            f"model.names={config.model.names!r}: {' and '.join(found)} find columns in this table, and nothing joins them. "
            "Add fusion_mlp, fusion_transformer or fusion_logits, or leave an encoder out."
        )
    return found


def fusion_of(config: Config) -> str | None:
    """The name of what joins encoders, if `model.names` has one."""
    return next((name for name in config.model.names if name not in ENCODERS), None)


def unread(schema: Schema, config: Config) -> list[str]:
    """Feature columns that no encoder reads, in the order of the table."""
    read = {name for columns in columns_by_encoder(schema, config).values() for name in columns}
    return [name for name in schema.columns if name not in read]


def as_text(schema: Schema, config: Config) -> dict[str, str]:
    """Columns of categories and numbers that the text encoder reads, with the template each is written by."""
    return {name: _template(schema.columns[name], config) for name in _converted(schema, config)}


def _columns(schema: Schema, config: Config, encoder: str) -> list[str]:
    converted = set(_converted(schema, config))
    own = [name for name, kind in schema.columns.items() if kind in READERS[encoder] and name not in converted]
    return sorted([*own, *converted]) if encoder == "hf_text" else own


def _converted(schema: Schema, config: Config) -> list[str]:
    kinds: Sequence[str] = (
        *(("categorical", "boolean") if config.data.categorical.convert_to_text else ()),
        *(("numerical",) if config.data.numerical.convert_to_text else ()),
    )
    return [name for name, kind in schema.columns.items() if kind in kinds]


def _template(kind: str, config: Config) -> str:
    return "direct" if kind == "numerical" else config.data.categorical.convert_to_text_template


def _nothing_to_read(schema: Schema, config: Config) -> str:
    lines = "\n".join(f"    {reason}" for reason in schema.reasons.values())
    first = next(iter(schema.columns))
    return (
        f"No column that model.names={config.model.names!r} reads.\n{lines}\n"
        f"    If one of them is taken for something else, say so, for example column_types={{{first!r}: 'text'}}."
    )
