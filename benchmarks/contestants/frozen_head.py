"""A frozen encoder and a logistic regression on its vectors, as SetFit's second stage and many notebooks do it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from transformers import AutoModel, AutoTokenizer

DISTRIBUTIONS = ("scikit-learn", "transformers", "torch")
BATCH = 32


class FrozenHead:
    """Mean pooling, batches in order of length. It needs no holdout, so it learns from every row."""

    def __init__(self, checkpoint: str, bf16: bool):
        self._bf16 = bf16
        self._tokenizer = AutoTokenizer.from_pretrained(checkpoint)
        self._encoder = AutoModel.from_pretrained(checkpoint).eval()
        self._head = LogisticRegression(max_iter=1000)

    def fit(self, train: pd.DataFrame, seed: int, folder: Path) -> None:
        """Fits the head and saves it; nothing here is random, so the seed has no effect."""
        self._head.fit(self._vectors(train), train["label"])
        folder.mkdir(parents=True)
        head = {"coef": self._head.coef_, "intercept": self._head.intercept_, "classes": self._head.classes_}
        np.savez(folder / "head.npz", **head)

    def load(self, folder: Path) -> None:
        """Reads the head."""
        with np.load(folder / "head.npz") as head:
            self._head.coef_, self._head.intercept_, self._head.classes_ = (
                head["coef"],
                head["intercept"],
                head["classes"],
            )

    def evaluate(self, frame: pd.DataFrame) -> float:
        """ROC-AUC."""
        return float(roc_auc_score(frame["label"], self._head.decision_function(self._vectors(frame))))

    def predict(self, frame: pd.DataFrame) -> np.ndarray:
        """Labels."""
        return self._head.predict(self._vectors(frame))

    predict_few = predict

    @torch.inference_mode()
    def _vectors(self, frame: pd.DataFrame) -> np.ndarray:
        """Vectors (rows, D) in the table's order."""
        texts = frame["text"].tolist()
        ids = self._tokenizer(texts, truncation=True)["input_ids"]
        order = np.argsort([len(row) for row in ids], kind="stable")
        vectors = np.empty((len(ids), self._encoder.config.hidden_size), dtype=np.float32)
        for start in range(0, len(order), BATCH):
            rows = order[start : start + BATCH]
            inputs = self._tokenizer.pad({"input_ids": [ids[row] for row in rows]}, return_tensors="pt")
            with torch.autocast("cpu", torch.bfloat16, enabled=self._bf16):
                states = self._encoder(**inputs).last_hidden_state.float()
            mask = inputs["attention_mask"].unsqueeze(-1)
            vectors[rows] = ((states * mask).sum(1) / mask.sum(1)).numpy()
        return vectors


def build(job: dict[str, Any]) -> FrozenHead:
    """The contestant of a job."""
    return FrozenHead(job["checkpoint"], job["bf16"])
