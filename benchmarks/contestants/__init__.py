"""One module for each contestant: importing it imports what the contestant needs, and `build(job)` returns it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import pandas as pd

TUTORIAL: dict[str, Any] = {
    "optim.lr_decay": 0.9,
    "optim.lr": 3e-3,
    "optim.end_lr": 3e-3,
    "optim.max_epochs": 2,
    "optim.warmup_steps": 0,
    "env.batch_size": 32,
}
"""AutoMM's tutorial on parameter-efficient fine-tuning, but for its method, ia3_bias."""


class Contestant(Protocol):
    """What is measured. Tables have the columns `text` and `label`; to predict, `text` alone."""

    def fit(self, train: pd.DataFrame, seed: int, folder: Path) -> None:
        """Trains, and saves into a folder that is not there yet."""

    def load(self, folder: Path) -> None:
        """Reads what `fit` saved."""

    def evaluate(self, frame: pd.DataFrame) -> float:
        """ROC-AUC."""

    def predict(self, frame: pd.DataFrame) -> Sequence[int]:
        """Labels in the table's order, by the library's default call."""

    def predict_few(self, frame: pd.DataFrame) -> Sequence[int]:
        """The same by the quickest way it offers for a row or twenty."""
