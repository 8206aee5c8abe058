"""Stands where a text processor would, for a table without text columns: every row has no tokens."""

from __future__ import annotations

import numpy as np
import pandas as pd

from featherfit.data.processors.text import TokenizedRows
from featherfit.data.processors.tokens import TokenLists


class NoText:
    """What is asked of a `TextProcessor`, for no columns.

    Attributes:
        columns: None.
        pad_id, max_len: Of no tokens.
    """

    columns: tuple[str, ...] = ()
    pad_id = 0
    max_len = 0

    def __call__(self, frame: pd.DataFrame) -> TokenizedRows:
        """Rows of no tokens."""
        none = np.zeros(len(frame), dtype=np.int64)
        return TokenizedRows(TokenLists(np.empty(0, dtype=np.int32), none, none), None, none, 0)

    def release_tokenizer(self) -> None:
        """There is none."""
