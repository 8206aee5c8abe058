"""A training set goes in; what one epoch of training sees of it comes out: images and texts changed at random.

What is drawn depends on the seed, the epoch and the row, so a fit that is resumed sees what it would have seen.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from featherfit.config.schema import Config
from featherfit.data.dataset import Dataset
from featherfit.data.processors.cells import column_texts
from featherfit.data.processors.text import TextProcessor
from featherfit.data.text_edits import edited

_FOR_TEXT = 1  # keeps the numbers of texts apart from those of images


@dataclass(frozen=True, eq=False)
class Augmenting:
    """What the settings ask for.

    Attributes:
        words: `model.timm_image.train_transforms`; empty for none.
        most, least_words: Of the edits of texts; `most` is 0 for none.
        seed: Of the fit.
        text: What tokenizes the edited texts.
        texts: By column, the texts of the training rows that are edited.
        frame: The columns that the text encoder reads.
    """

    words: tuple[str, ...]
    most: float
    least_words: int
    seed: int
    text: Any
    texts: dict[str, list[str]]
    frame: pd.DataFrame

    def __call__(self, dataset: Dataset, epoch: int) -> Dataset:
        """The rows as they are in this epoch, from 0."""
        parts = dataset.parts
        if self.words:
            parts = {name: rows.augmented(self.words, self.seed, epoch) for name, rows in parts.items()}
        rows = self._tokens(epoch) if self.most > 0 else dataset.rows
        return replace(dataset, rows=rows, parts=parts, augment=None)

    def _tokens(self, epoch: int) -> Any:
        frame = self.frame.copy()
        for place, (column, texts) in enumerate(self.texts.items()):
            frame[column] = [
                edited(
                    text,
                    self.most,
                    self.least_words,
                    np.random.default_rng([self.seed, epoch, position, _FOR_TEXT + place]),
                )
                for position, text in enumerate(texts)
            ]
        tokens = self.text(frame, once=True)
        self.text.release_tokenizer()
        return tokens


def augmented(
    dataset: Dataset, frame: pd.DataFrame, text: Any, text_columns: list[str], config: Config, seed: int
) -> Dataset:
    """The training set, which changes from epoch to epoch if the settings ask for it.

    Args:
        dataset: Made of `frame`.
        frame: The training rows.
        text: The text processor.
        text_columns: Columns whose cells are texts; others that are written as text are not edited.
        config: `model.hf_text` and `model.timm_image` are read.
        seed: Of the fit.
    """
    has_images = any(rows.decodes for rows in dataset.parts.values())
    words = tuple(config.model.timm_image.train_transforms or ()) if has_images else ()
    own = config.model.hf_text
    most = own.text_trivial_aug_maxscale if isinstance(text, TextProcessor) else 0.0
    if not words and most == 0:
        return dataset
    read = [column for column in text.columns if column in frame.columns] if most > 0 else []
    texts = {column: column_texts(frame[column]) for column in read if column in text_columns}
    return replace(
        dataset,
        augment=Augmenting(words, most, own.text_aug_detect_length, seed, text, texts, frame[read]),
    )
