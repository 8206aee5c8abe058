"""Nothing goes in; a list of the checkpoints that are on this computer or one command away comes out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from featherfit.checkpoints import hub
from featherfit.checkpoints.families import family_of
from featherfit.checkpoints.layout import CONFIG, missing_parts, read_json, vocabulary_files, weight_files
from featherfit.checkpoints.vision import vision_family_of
from featherfit.checkpoints.wheels import WHEELS, wheel_for
from featherfit.errors import CheckpointError


@dataclass(frozen=True)
class AvailableCheckpoint:
    """A row of the list.

    Attributes:
        name: Hub name.
        aliases: Other names it can be asked for by.
        source: `hub cache`, or `wheel <distribution>`.
        size_mb: Size of the folder, in megabytes (1e6 bytes).
        at_hand: True if it is on this computer.
        how_to_get: Command that gets it; empty if it is at hand.
        note: Languages, licence and precision, or what is unusual about it.
    """

    name: str
    aliases: tuple[str, ...]
    source: str
    size_mb: float
    at_hand: bool
    how_to_get: str
    note: str


def available_checkpoints() -> list[AvailableCheckpoint]:
    """Checkpoints in wheels, installed or not, and complete text and image models in the hub cache. Never asks the network."""
    return [*_in_wheels(), *_in_hub_cache()]


def known_names() -> list[str]:
    """Every name of every checkpoint that `available_checkpoints` lists."""
    return [name for entry in available_checkpoints() for name in (entry.name, *entry.aliases)]


def _in_wheels() -> Iterator[AvailableCheckpoint]:
    for distribution in WHEELS:
        wheel = WHEELS[distribution]
        installed = wheel.installed_version() is not None
        yield AvailableCheckpoint(
            name=wheel.names[0],
            aliases=wheel.names[1:],
            source=f"wheel {distribution}",
            size_mb=float(wheel.size_mb),
            at_hand=installed,
            how_to_get="" if installed else wheel.install,
            note=f"{wheel.languages}; {wheel.content}; licence {wheel.licence}",
        )


def _in_hub_cache() -> Iterator[AvailableCheckpoint]:
    for name in hub.cached_names():
        for snapshot in hub.cached_snapshots(name):
            kind = _model_type(snapshot.folder)
            if kind is None:
                continue
            wheel = wheel_for(name)
            files = [*weight_files(snapshot.folder), *vocabulary_files(snapshot.folder)]
            listed = family_of(kind) or vision_family_of(kind)
            known = "" if listed else "; adapter targets have to be named by regular expression"
            yield AvailableCheckpoint(
                name=name,
                aliases=wheel.names[1:] if wheel else (),
                source="hub cache",
                size_mb=sum((snapshot.folder / file).stat().st_size for file in files) / 1e6,
                at_hand=True,
                how_to_get="",
                note=f"{kind}{known}" + (f"; {snapshot.note}" if snapshot.note else ""),
            )
            break


def _model_type(folder: Path) -> str | None:
    """The `model_type` of a complete checkpoint of text or images, or None for anything else in the cache."""
    try:
        model_type = read_json(folder / CONFIG).get("model_type") if not missing_parts(folder) else None
    except CheckpointError:
        return None
    return model_type if isinstance(model_type, str) else None
