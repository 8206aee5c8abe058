"""Tables with columns of every type, small enough to be fitted in a blink."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
from PIL import Image
from tiny_checkpoints import reviews

ROWS = 48
TABULAR = {"colour": "categorical", "member": "boolean", "price": "numerical", "when": "datetime"}


def table(rows: int = ROWS, seed: int = 0) -> pd.DataFrame:
    """Reviews with columns of every type, of which price and colour say something of the label."""
    draw = np.random.default_rng(seed)
    frame = reviews(rows, seed=seed)
    label = frame["label"].to_numpy()
    return frame.assign(
        colour=np.where(draw.random(rows) < 0.8, np.where(label == 1, "red", "blue"), "green"),
        member=draw.random(rows) < 0.5,
        price=np.exp(draw.normal(size=rows) + 2 * label),
        when=pd.date_range("2024-01-01", periods=rows, freq="31h"),
    )


def with_gaps(frame: pd.DataFrame) -> pd.DataFrame:
    """One column after another is missing in a few rows."""
    gaps = frame.astype({"member": object})
    names = [name for name in gaps.columns if name != "label"]
    for place, name in enumerate(names):
        gaps.iloc[place::9, gaps.columns.get_loc(name)] = None
    return gaps


def picture(red: int, blue: int, width: int = 40, height: int = 32) -> bytes:
    """A PNG that goes from one colour on its left to another on its right."""
    shares = np.linspace(0, 1, width)[None, :, None]
    colours = (1 - shares) * np.array([red, 30, 10]) + shares * np.array([10, 30, blue])
    written = io.BytesIO()
    Image.fromarray(np.repeat(colours, height, axis=0).astype(np.uint8)).save(written, "PNG")
    return written.getvalue()


def with_photos(frame: pd.DataFrame) -> pd.DataFrame:
    """The same with a column of images, `photo`, redder where the label is 1."""
    photos = [picture(60 + 100 * label + row, 200 - row) for row, label in enumerate(frame["label"])]
    return frame.assign(photo=pd.Series(photos, index=frame.index, dtype=object))
