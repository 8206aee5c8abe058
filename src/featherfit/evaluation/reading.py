"""Logits go in; probabilities, predicted labels and numbers come out, as the label and a `Decision` have it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from featherfit.data.processors.several import Target
from featherfit.evaluation.decision import UNCALIBRATED, Decision
from featherfit.evaluation.predicted import Predicted


@dataclass(frozen=True)
class Reading:
    """How a model's logits (rows, outputs) are read.

    Attributes:
        label: What is predicted.
        decision: Temperature and threshold, where that is classes.
    """

    label: Target
    decision: Decision = UNCALIBRATED

    @property
    def several(self) -> bool:
        """Whether it is any number of labels of each row."""
        return self.label.problem_type == "multilabel"

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Of every class, (rows, C) float32, or of each of several labels, (rows, K) float32."""
        return self.decision.each(logits) if self.several else self.decision.probabilities(logits)

    def ids(self, logits: np.ndarray) -> np.ndarray:
        """Predicted class ids, (rows,) int64, or which labels a row has, (rows, K) int64."""
        return self.decision.flags(self.decision.each(logits)) if self.several else self.decision.ids(logits)

    def predictions(self, logits: np.ndarray) -> np.ndarray:
        """Labels in the type they had in training, or numbers in the label's unit: (rows,), or (rows, K), or (rows, Q)."""
        return self.label.values(logits) if self.label.numeric else self.label.decode(self.ids(logits))

    def predicted(self, logits: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None) -> Predicted:
        """The same in the forms metrics want.

        Args:
            logits: (rows, outputs).
            labels: What `label.encode` gave.
            weights: Of rows, (rows,).
        """
        if self.label.numeric:
            true, values = self.label.inverse_scale(labels), self.label.values(logits)
            return Predicted(true, values=values, weights=weights, levels=self.label.levels)
        ids = labels.astype(np.int64)
        return Predicted(ids, self.ids(logits), self.probabilities(logits), weights=weights)
