"""A `Fitted` and validation rows go in; what scores its weights while it trains comes out."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping

import numpy as np

from featherfit.artifact.fitted import Fitted
from featherfit.data.dataset import Dataset
from featherfit.evaluation.metrics import METRICS
from featherfit.evaluation.outputs import score_outputs
from featherfit.evaluation.reading import Reading
from featherfit.inference.predict import outputs


class Validation:
    """Scores the model as it is now, by the validation metric; greater or smaller is better as the metric says.

    Where the rows have slices, the score is the mean of theirs or the worst of them, as `optim.validation_average` says.

    Attributes:
        slices: The latest score of every slice, NaN where it is not defined; empty without slices.
        logits: Of the rows when they were last scored, (rows, C).
        best_logits: The same at the latest `remember`; None before.
    """

    def __init__(self, fitted: Fitted, rows: Dataset, tell: Callable[[str], None]):
        """Args are the predictor under training, labelled rows, and what hears of the slices' scores."""
        self._fitted, self._rows, self._tell = fitted, rows, tell
        self.slices: dict[str, float] = {}
        self.logits: np.ndarray | None = None
        self.best_logits: np.ndarray | None = None
        names = np.array(rows.slices or [], dtype=object)
        self._places = {name: np.flatnonzero(names == name) for name in dict.fromkeys(rows.slices or [])}

    def __call__(self) -> float:
        """The score; all ranks get that of the first."""
        metric, agreed = self._fitted.validation_metric, self._fitted.device.ranks.agreed
        logits, labels = outputs(self._fitted, self._rows), self._rows.labels
        self.logits = logits
        reading, weights = Reading(self._fitted.label), self._rows.weights
        assert labels is not None
        if not self._places:
            return agreed(score_outputs([metric], logits, labels, reading, weights)[metric])
        first = not self.slices
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # scikit-learn's, of classes that a slice lacks
            self.slices = agreed(
                {
                    name: score_outputs([metric], logits[at], labels[at], reading, _at(weights, at))[metric]
                    for name, at in self._places.items()
                }
            )
        optim = self._fitted.config.optim
        undefined = [name for name, score in self.slices.items() if math.isnan(score)]
        if first and undefined:
            warnings.warn(
                f"{metric} is not defined on the validation rows of {', '.join(map(repr, undefined))}, so they do not count. "
                "Give tuning_data with every class in them, or another validation_metric.",
                stacklevel=2,
            )
        score = averaged(self.slices, optim.validation_average, greater_is_better=METRICS[metric].greater_is_better)
        shown = ", ".join(f"{name} {value:.4f}" for name, value in self.slices.items())
        self._tell(f"Validation {metric} by {optim.validation_by}: {shown}; {optim.validation_average} {score:.4f}.")
        return score

    def remember(self) -> None:
        """Keeps the logits there are: the weights that were just scored are the best so far."""
        self.best_logits = self.logits


def _at(weights: np.ndarray | None, rows: np.ndarray) -> np.ndarray | None:
    return None if weights is None else weights[rows]


def averaged(scores: Mapping[str, float], average: str, *, greater_is_better: bool) -> float:
    """The mean (`macro`) or the worst (`worst`) of the scores that are defined; NaN if none is."""
    defined = [score for score in scores.values() if not math.isnan(score)]
    if not defined:
        return math.nan
    if average == "macro":
        return float(np.mean(defined))
    return min(defined) if greater_is_better else max(defined)
