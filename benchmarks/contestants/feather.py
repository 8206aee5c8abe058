"""featherfit as `examples/multilingual_ia3.py` calls it, with another method or int8 inference where a job says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from contestants import TUTORIAL
from featherfit import MultiModalPredictor

DISTRIBUTIONS = ("featherfit", "torch", "transformers")


class Featherfit:
    """The preset `multilingual`, whose checkpoint on a CPU is the one the other contestants are given."""

    def __init__(self, method: str, int8: bool):
        self._int8 = int8
        self._overrides = TUTORIAL | {"optim.peft": method}

    def fit(self, train: pd.DataFrame, seed: int, folder: Path) -> None:
        """Trains and saves; featherfit holds out a fifth of the rows itself, by AutoMM's rule."""
        self._predictor = MultiModalPredictor(label="label", path=folder, verbosity=1)
        self._predictor.fit(train, presets="multilingual", hyperparameters=self._overrides, seed=seed)
        self._optimise()

    def load(self, folder: Path) -> None:
        """Reads what `fit` saved."""
        self._predictor = MultiModalPredictor.load(folder, verbosity=1)
        self._optimise()

    def evaluate(self, frame: pd.DataFrame) -> float:
        """ROC-AUC."""
        return float(self._predictor.evaluate(frame, metrics=["roc_auc"])["roc_auc"])

    def predict(self, frame: pd.DataFrame) -> pd.Series:
        """The one way to predict."""
        return self._predictor.predict(frame)

    def predict_few(self, frame: pd.DataFrame) -> pd.Series:
        """The same: it has no start-up to save."""
        return self._predictor.predict(frame)

    def _optimise(self) -> None:
        if self._int8:
            self._predictor.optimize_for_inference(precision="int8")


def build(job: dict[str, Any]) -> Featherfit:
    """The contestant of a job."""
    return Featherfit(job["method"], job["int8"])
