"""A text goes in; the text with some of its words, or characters, left out or swapped comes out.

Nothing is known of any language: words are what stands between spaces, and where a script has no spaces, characters are taken.
One of three operations and its strength are drawn evenly, as TrivialAugment does for images (arXiv 2103.10158); leaving out and
swapping are those of EDA (Wei and Zou, arXiv 1901.11196).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from featherfit.data.column_types import count_words

Edit = Callable[[list[str], float, np.random.Generator], list[str]]


def edited(text: str, most: float, least_words: int, random: np.random.Generator) -> str:
    """The text after one operation.

    Args:
        text: Any text.
        most: Largest share of its words that is changed.
        least_words: Words that a text needs to be changed at all, counted by script.
        random: What is drawn comes from here.
    """
    if count_words(text) < least_words:
        return text
    words = text.split()
    spaced = 2 * len(words) >= count_words(text)
    units = words if spaced else list(text)
    edit = EDITS[int(random.integers(len(EDITS)))]
    changed = edit(units, most * random.random(), random)
    if changed is units:
        return text
    return (" " if spaced else "").join(changed)


def left_alone(units: list[str], share: float, random: np.random.Generator) -> list[str]:
    """The same."""
    return units


def left_out(units: list[str], share: float, random: np.random.Generator) -> list[str]:
    """Without each unit with the probability `share`; one stays."""
    kept = [unit for unit, drawn in zip(units, random.random(len(units)), strict=True) if drawn >= share]
    return kept or [units[int(random.integers(len(units)))]]


def swapped(units: list[str], share: float, random: np.random.Generator) -> list[str]:
    """With pairs of units exchanged, so many that about `share` of all stand elsewhere."""
    moved = list(units)
    for _ in range(round(share * len(units) / 2)):
        first, second = random.integers(len(units), size=2)
        moved[first], moved[second] = moved[second], moved[first]
    return moved


EDITS: tuple[Edit, ...] = (left_alone, left_out, swapped)
