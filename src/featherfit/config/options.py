"""A default, its meaning and its range go in; a dataclass field that carries them comes out."""

from __future__ import annotations

from dataclasses import field
from typing import Any


def option(
    default: Any,
    meaning: str,
    *,
    choices: tuple[Any, ...] | None = None,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    allowed: str | None = None,
) -> Any:
    """A dataclass field that carries its own documentation and range.

    Args:
        default: The default; a list is copied for each instance.
        meaning: One sentence with the unit.
        choices: The allowed values, if they are few.
        low: Smallest allowed number, included.
        high: Largest allowed number, included.
        above: Bound every number has to exceed.
        allowed: What messages say is allowed, where type, choices and range do not say it.
    """
    metadata = {
        "meaning": meaning,
        "choices": choices,
        "low": low,
        "high": high,
        "above": above,
        "allowed": allowed,
    }
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def section(cls: type) -> Any:
    """A nested block of settings."""
    return field(default_factory=cls, metadata={"section": True})


# What every pretrained encoder can be told, whatever it reads.


def base_precision_option() -> Any:
    """`base_precision` of a pretrained encoder."""
    return option(
        "auto",
        "How frozen matrices are kept: auto is the type of the products; int8 and int4 keep codes of 8.125 and 4.5 bits.",
        choices=("auto", "float32", "bfloat16", "float16", "int8", "int4"),
    )


def gradient_checkpointing_option() -> Any:
    """`gradient_checkpointing` of a pretrained encoder."""
    return option(False, "Recompute activations in the backward pass: less memory, more time.")


def activation_offload_option() -> Any:
    """`activation_offload` of a pretrained encoder."""
    return option(
        False,
        "Keep what gradient checkpointing keeps, the input of every layer, in the host's memory instead of the GPU's.",
    )


def dropout_option() -> Any:
    """`dropout` of a pretrained encoder."""
    return option(
        "auto",
        "The checkpoint's own dropout while training: auto is off when adapters train and on when the encoder does.",
        choices=("auto", "on", "off"),
    )
