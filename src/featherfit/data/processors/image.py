"""Image columns of a table go in; the rows' pixels, decoded when they are asked for, come out.

No row's images are ever another's: a missing one is no image, and one that cannot be read is an error with its row and column.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd

from featherfit.data.images import AT_ONCE, THREADS, BadImageError, Source, folder_of, glance, open_image, sources
from featherfit.data.messages import count, lacking_columns, some
from featherfit.data.processors.pixels import Pixels
from featherfit.errors import DataError

if TYPE_CHECKING:
    import torch

    from featherfit.config.schema import TimmImageConfig

DEFAULT_PATCH = 16
"""Pixels of a side that cost as much as a token of text, where a model has no patches of its own."""


@dataclass(frozen=True)
class Augmentation:
    """What changes from epoch to epoch: what is drawn for a row depends on `seed`, `epoch` and the row alone."""

    words: tuple[str, ...]
    seed: int
    epoch: int


@dataclass(frozen=True, eq=False)
class ImageRows:
    """Images of a table's rows, not yet decoded.

    Attributes:
        cells: By column, the cells of every row.
        types: By column, its type.
        index: The table's index, for messages.
        pixels: What turns an image into numbers.
        words: What is done to every image first.
        average: Whether a row's images are averaged into one, `mix_choice='all_images'`.
        most: Images of a cell that are read, at most.
        lengths: Cost of each row, in tokens of text, (rows,) int64; 0 without images.
        folder: What relative paths are relative to.
        augmentation: Random changes, in training.
    """

    cells: dict[str, list[Any]]
    types: dict[str, str]
    index: pd.Index
    pixels: Pixels
    words: tuple[str, ...]
    average: bool
    most: int
    lengths: np.ndarray
    folder: Path | None = None
    augmentation: Augmentation | None = None

    decodes: ClassVar[bool] = True

    def __len__(self) -> int:
        return len(self.lengths)

    def augmented(self, words: Sequence[str], seed: int, epoch: int) -> ImageRows:
        """The same rows as `words` have them in one epoch of training."""
        return replace(self, augmentation=Augmentation(tuple(words), seed, epoch))

    def content(self, position: int) -> bytes:
        """Equal where rows have equal images."""
        return b"\n".join(f"{column}|".encode() + source.identity() for column, source in self._sources(position))

    def tensors(self, positions: np.ndarray) -> dict[str, torch.Tensor]:
        """Images of the rows at `positions`, decoded in threads.

        Returns:
            `pixels`, (N, 3, H, W) float32, and `image_rows`, (N,) int64, which of the rows each is of.

        Raises:
            DataError: An image cannot be read; the message names its row and column.
        """
        import torch

        found = [(line, *named) for line, position in enumerate(positions) for named in self._sources(int(position))]
        numbers: dict[int, int] = {}
        jobs = []
        for line, column, source in found:
            number = numbers[line] = numbers.get(line, -1) + 1
            jobs.append((int(positions[line]), number, column, source))
        if len(jobs) > 1 and THREADS > 1:
            with ThreadPoolExecutor(THREADS) as threads:
                arrays = list(threads.map(self._decoded, jobs))
        else:
            arrays = list(map(self._decoded, jobs))
        lines = np.array([line for line, _, _ in found], dtype=np.int64)
        if self.average and arrays:
            lines, places = np.unique(lines, return_inverse=True)
            arrays = [
                np.mean([arrays[i] for i in np.flatnonzero(places == place)], axis=0) for place in range(len(lines))
            ]
        stacked = np.stack(arrays) if arrays else np.zeros((0, *self.pixels.shape), dtype=np.float32)
        return {"pixels": torch.from_numpy(stacked), "image_rows": torch.from_numpy(lines)}

    def _sources(self, position: int) -> list[tuple[str, Source]]:
        """Column and source of each of a row's images."""
        found = []
        for column, cells in self.cells.items():
            try:
                own = sources(cells[position], self.types[column], self.folder)[: self.most]
            except BadImageError as error:
                raise self._error(position, column, error) from None
            found += [(column, source) for source in own]
        return found

    def _decoded(self, job: tuple[int, int, str, Source]) -> np.ndarray:
        position, number, column, source = job
        random, words = None, self.words
        if self.augmentation is not None:
            words = self.augmentation.words
            random = np.random.default_rng([self.augmentation.seed, self.augmentation.epoch, position, number])
        try:
            return self.pixels(open_image(source), words, random)
        except BadImageError as error:
            raise self._error(position, column, error) from None

    def _error(self, position: int, column: str, error: BadImageError) -> DataError:
        return DataError(f"Row {some([self.index[position]])}, column {column!r}: {error}.")


class ImageProcessor:
    """Reads the image columns of tables.

    Attributes:
        columns: The columns read, sorted by name.
        types: By column, its type.
        pixels: What turns an image into numbers.
        config: `model.timm_image`.
        patch: Pixels of a side that cost a token.
    """

    def __init__(
        self, types: Mapping[str, str], pixels: Pixels, config: TimmImageConfig, *, patch: int = DEFAULT_PATCH
    ):
        self.types = dict(sorted(types.items()))
        self.columns = list(self.types)
        self.pixels, self.config, self.patch = pixels, config, patch

    @classmethod
    def from_checkpoint(cls, checkpoint: Any, types: Mapping[str, str], config: TimmImageConfig) -> ImageProcessor:
        """The processor for a checkpoint's own settings.

        Raises:
            CheckpointError: The folder holds no settings for images that can be used.
            ConfigError: `config` asks for a size that cannot be had.
        """
        pixels = Pixels.from_checkpoint(checkpoint.folder, image_size=config.image_size, image_norm=config.image_norm)
        return cls(types, pixels, config, patch=_patch(checkpoint.config))

    @property
    def cost(self) -> int:
        """Tokens of text that an image costs as much as."""
        _, height, width = self.pixels.shape
        return math.ceil(height / self.patch) * math.ceil(width / self.patch) + 1

    def __call__(self, frame: pd.DataFrame) -> ImageRows:
        """The rows' images; looked at, and decoded later.

        Raises:
            DataError: A column is missing, or a cell holds what is no image; the message names row and column.
        """
        lacking = lacking_columns(self.columns, frame.columns, "image columns")
        if lacking is not None:
            raise DataError(lacking)
        found = self._looked_at(frame, deep=False)
        if found.bad:
            position, column, why = found.bad[0]
            more = f" {count(len(found.bad) - 1, 'more cell')} cannot be read either." if len(found.bad) > 1 else ""
            raise DataError(f"Row {some([frame.index[position]])}, column {column!r}: {why}.{more}")
        self._tell_unread(found)
        images = found.images.sum(axis=0)
        if self.config.mix_choice == "all_images":
            images = np.minimum(images, 1)
        return ImageRows(
            cells={column: frame[column].tolist() for column in self.columns},
            types=self.types,
            index=frame.index,
            pixels=self.pixels,
            words=tuple(self.config.val_transforms or ()),
            average=self.config.mix_choice == "all_images",
            most=self.config.max_image_num_per_column,
            lengths=(images * self.cost).astype(np.int64),
            folder=folder_of(frame),
        )

    def unreadable(self, frame: pd.DataFrame) -> list[tuple[int, str, str]]:
        """Position, column and what is wrong, of every cell whose images cannot be decoded."""
        return self._looked_at(frame, deep=True).bad

    def to_json(self) -> dict[str, Any]:
        """What another process needs to read images in the same way, as JSON values."""
        return {"types": self.types, "settings": self.pixels.settings, "patch": self.patch}

    @classmethod
    def from_json(cls, state: Mapping[str, Any], config: TimmImageConfig) -> ImageProcessor:
        """What `to_json` gave, under the same `model.timm_image`."""
        return cls(state["types"], Pixels(state["settings"]), config, patch=state["patch"])

    def _looked_at(self, frame: pd.DataFrame, *, deep: bool) -> _Found:
        """Every cell of the columns, opened; or decoded to the end, which takes a good deal longer."""
        folder, look = folder_of(frame), open_image if deep else glance
        cells = [
            (position, line, cell)
            for line, column in enumerate(self.columns)
            if column in frame.columns
            for position, cell in enumerate(frame[column].tolist())
        ]
        images = np.zeros((len(self.columns), len(frame)), dtype=np.int64)
        unread = np.zeros(len(self.columns), dtype=np.int64)

        def check(item: tuple[int, int, Any]) -> tuple[int, str | None]:
            _, line, cell = item
            try:
                found = sources(cell, self.types[self.columns[line]], folder)
                for source in found[: self.config.max_image_num_per_column]:
                    look(source)
            except BadImageError as error:
                return 0, str(error)
            return len(found), None

        bad = []
        most = self.config.max_image_num_per_column
        with ThreadPoolExecutor(THREADS) as threads:
            for start in range(0, len(cells), AT_ONCE):
                some_cells = cells[start : start + AT_ONCE]
                for (position, line, _), (number, why) in zip(some_cells, threads.map(check, some_cells), strict=True):
                    if why is not None:
                        bad.append((position, self.columns[line], why))
                    images[line, position] = min(number, most)
                    unread[line] += max(0, number - most)
        return _Found(images, unread, sorted(bad))

    def _tell_unread(self, found: _Found) -> None:
        for column, unread in zip(self.columns, found.unread.tolist(), strict=True):
            if unread:
                most = self.config.max_image_num_per_column
                warnings.warn(
                    f"Column {column!r} holds {count(unread, 'image')} beyond the first {most} of a cell, which "
                    f"{'is' if unread == 1 else 'are'} not read (model.timm_image.max_image_num_per_column={most}).",
                    stacklevel=4,
                )


@dataclass(frozen=True, eq=False)
class _Found:
    """Images by column and row, (columns, rows); by column, images that are not read; cells that cannot be read."""

    images: np.ndarray
    unread: np.ndarray
    bad: list[tuple[int, str, str]]


def _patch(config: Mapping[str, Any]) -> int:
    """Pixels of a patch, where every layer sees the same patches."""
    own = {**config, **(config.get("vision_config") or {})}
    patch = own.get("patch_size")
    if "num_hidden_layers" in own and isinstance(patch, int) and 8 <= patch <= 64:
        return patch
    return DEFAULT_PATCH
