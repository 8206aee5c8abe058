"""AutoMM as its tutorial calls it. Runs in the environment of its own, so nothing here imports featherfit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from autogluon.multimodal import MultiModalPredictor

from contestants import TUTORIAL

DISTRIBUTIONS = ("autogluon.multimodal", "torch", "transformers", "lightning")


class AutoMM:
    """`examples/multilingual_ia3.py` in AutoMM.

    Two settings differ, both in AutoMM's favour or neutral: the checkpoint is a local folder, and text augmentation,
    which featherfit has not, is off; without NLTK's data it would try to download in every process.
    """

    def __init__(self, checkpoint: str, micro_batch: int | None):
        self._overrides: dict[str, Any] = {
            "model.hf_text.checkpoint_name": checkpoint,
            "model.hf_text.text_trivial_aug_maxscale": 0.0,
            "optim.peft": "ia3_bias",
            **TUTORIAL,
        }
        if micro_batch is not None:
            self._overrides["env.per_gpu_batch_size"] = micro_batch

    def fit(self, train: pd.DataFrame, seed: int, folder: Path) -> None:
        """Trains and saves; AutoMM holds out a fifth of the rows itself."""
        self._predictor = MultiModalPredictor(label="label", path=str(folder), verbosity=1, enable_progress_bar=False)
        self._predictor.fit(train, presets="multilingual", hyperparameters=self._overrides, seed=seed)

    def load(self, folder: Path) -> None:
        """Reads what `fit` saved."""
        self._predictor = MultiModalPredictor.load(str(folder), verbosity=1)

    def evaluate(self, frame: pd.DataFrame) -> float:
        """ROC-AUC."""
        return float(self._predictor.evaluate(frame, metrics=["roc_auc"])["roc_auc"])

    def predict(self, frame: pd.DataFrame) -> pd.Series:
        """The default way: a Lightning trainer and its worker processes for every call."""
        return self._predictor.predict(frame)

    def probabilities(self, frame: pd.DataFrame) -> pd.DataFrame:
        """A column for every class."""
        return self._predictor.predict_proba(frame)

    def predict_few(self, frame: pd.DataFrame) -> pd.Series:
        """AutoMM's way for small tables: one batch in this process."""
        return self._predictor.predict(frame, realtime=True)


def build(job: dict[str, Any]) -> AutoMM:
    """The contestant of a job."""
    return AutoMM(job["checkpoint"], job.get("micro_batch"))
