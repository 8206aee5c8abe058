"""Logits go in; probabilities and class ids come out, by a temperature and a threshold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch


def probabilities(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Softmax of logits / temperature over the classes, (rows, C) float32; each row sums to 1 up to rounding."""
    return torch.softmax(torch.from_numpy(logits).double() / temperature, dim=1).float().numpy()


@dataclass(frozen=True)
class Decision:
    """How a classifier's logits are read.

    Attributes:
        temperature: Logits are divided by it before the softmax, above 0: more than 1 makes probabilities less sure. It
            never changes which class is the likeliest (Guo et al., arXiv 1706.04599).
        threshold: Of a binary problem: the positive class is predicted where its probability is greater, 0 to 1. Of several
            labels: a row has those whose probability is greater; one number for all, or one for each.
    """

    temperature: float = 1.0
    threshold: float | tuple[float, ...] = 0.5

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Probabilities of every class, (rows, C) float32."""
        return probabilities(logits, self.temperature)

    def ids(self, logits: np.ndarray) -> np.ndarray:
        """Predicted class ids of logits (rows, C), (rows,) int64."""
        if self.threshold == 0.5:
            return logits.argmax(1)
        return self.ids_of(self.probabilities(logits))

    def ids_of(self, proba: np.ndarray) -> np.ndarray:
        """The same, of probabilities (rows, C)."""
        if self.threshold == 0.5:
            return proba.argmax(1)
        return (proba[:, 1] > self.threshold).astype(np.int64)

    def each(self, logits: np.ndarray) -> np.ndarray:
        """Probabilities of each of several labels, (rows, K) float32: sigmoid of logits / temperature."""
        return torch.sigmoid(torch.from_numpy(logits).double() / self.temperature).float().numpy()

    @staticmethod
    def as_classes(logits: np.ndarray) -> np.ndarray:
        """Logits (rows, K) of several labels as those of K binary problems a row, (rows * K, 2): softmax is the sigmoid."""
        flat = logits.ravel()
        return np.stack([np.zeros_like(flat), flat], axis=1)

    def flags(self, proba: np.ndarray) -> np.ndarray:
        """Which of several labels a row has, (rows, K) int64, of their probabilities."""
        return (proba > np.array(self.threshold)).astype(np.int64)

    def to_json(self) -> dict[str, Any]:
        """The state as JSON values."""
        threshold = self.threshold
        return {**asdict(self), "threshold": list(threshold) if isinstance(threshold, tuple) else threshold}

    @classmethod
    def from_json(cls, state: Mapping[str, Any]) -> Decision:
        """What `to_json` gave.

        Raises:
            ValueError: A temperature or threshold out of its range.
        """
        threshold = state["threshold"]
        given = tuple(map(float, threshold)) if isinstance(threshold, list | tuple) else float(threshold)
        decision = cls(float(state["temperature"]), given)
        levels = given if isinstance(given, tuple) else (given,)
        if not (0 < decision.temperature < float("inf") and all(0 <= level <= 1 for level in levels)):
            raise ValueError(f"{decision} is out of range")
        return decision


UNCALIBRATED = Decision()
"""Logits as they come, and the likeliest class."""
