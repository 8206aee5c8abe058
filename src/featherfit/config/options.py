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
