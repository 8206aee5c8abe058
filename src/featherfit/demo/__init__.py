"""Reviews in seven languages, and a run that trains on the English ones."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from featherfit.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    import pandas as pd

DATA = Path(__file__).parent / "data"
LANGUAGES = ("en", "de", "ja", "fr", "zh", "es", "ko")
TRAIN_ROWS = 400


def demo_table(language: str, part: str = "test") -> pd.DataFrame:
    """Reviews that come with featherfit: `text`, `label` (1 positive, 0 negative), `stars`, `category`, `price` (euros).

    Args:
        language: One of `LANGUAGES`.
        part: `test`, or `train`, which only English has.

    Raises:
        ConfigError: No such table.
    """
    from featherfit.data.load import load_table

    if language not in LANGUAGES:
        raise ConfigError(
            f"There are no demo reviews in {language!r}.{did_you_mean(language, LANGUAGES)} "
            f"Languages: {', '.join(LANGUAGES)}."
        )
    if part not in ("train", "test") or (part == "train" and language != "en"):
        raise ConfigError(f"There is no part {part!r} in {language!r}. Parts: test, and train in 'en'.")
    table = load_table(DATA / f"{language}.csv")
    if language != "en":
        return table
    return table[:TRAIN_ROWS] if part == "train" else table[TRAIN_ROWS:].reset_index(drop=True)
