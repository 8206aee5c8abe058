"""True classes and probabilities of a binary problem go in; the threshold that is best for a metric comes out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from featherfit.data.messages import some
from featherfit.errors import ConfigError, DataError, did_you_mean
from featherfit.evaluation.confusion import OF_COUNTS
from featherfit.evaluation.metrics import ALIASES, OF_ONE_LABEL


@dataclass(frozen=True)
class TunedThreshold:
    """What came of tuning a threshold; all on the rows it was tuned on, so other rows will do a little worse.

    Attributes:
        threshold: The positive class is predicted where its probability is greater.
        metric: What it is best for.
        before, after: The metric under the threshold there was, and under this one.
        rows: Rows it was tuned on.
    """

    threshold: float
    metric: str
    before: float
    after: float
    rows: int

    def __str__(self) -> str:
        return (
            f"Threshold {self.threshold:.4f}: {self.metric} {self.before:.4f} before, {self.after:.4f} after, on the "
            f"{self.rows} rows it was tuned on."
        )


@dataclass(frozen=True)
class TunedThresholds:
    """What came of tuning a threshold for each of several labels, on the rows they were tuned on.

    Attributes:
        threshold: By label: a row has it where its probability is greater.
        metric: What each is best for, as if its label were the only one.
        before, after: The metric's mean over labels under the thresholds there were, and under these.
        rows: Rows they were tuned on.
        kept: Labels that all rows have, or none, so that their thresholds stay.
    """

    threshold: dict[Any, float]
    metric: str
    before: float
    after: float
    rows: int
    kept: tuple[Any, ...]

    def __str__(self) -> str:
        listed = ", ".join(f"{name} {threshold:.4f}" for name, threshold in self.threshold.items())
        kept = f" Left as they were, for want of rows with and without them: {some(self.kept, 8)}." if self.kept else ""
        return (
            f"Thresholds {listed}: mean {self.metric} {self.before:.4f} before, {self.after:.4f} after, on the {self.rows} rows "
            f"they were tuned on.{kept}"
        )


def tune_thresholds(
    true: np.ndarray, proba: np.ndarray, metric: str, current: Sequence[float], names: Sequence[Any]
) -> TunedThresholds:
    """Tunes each of several labels by itself, see `tune_threshold`.

    Args:
        true: Which labels rows have, (rows, K).
        proba: Their probabilities, (rows, K).
        metric: One of `OF_COUNTS`, or an alias; `f1_macro` means `f1` of each.
        current: The thresholds to compare with, K of them.
        names: Of the labels.

    Raises:
        ConfigError: See `check_metric`.
        DataError: No label is there in some rows and absent in others.
    """
    own = check_metric(OF_ONE_LABEL.get(metric, metric))
    there = [place for place in range(len(names)) if len(np.unique(true[:, place])) == 2]
    if not there:
        raise DataError("Every label is in all of the rows or in none, so there is nothing to tune. Give other rows.")
    found = {at: tune_threshold(true[:, at].astype(int), proba[:, at], own, current[at]) for at in there}
    threshold = {name: found[at].threshold if at in found else current[at] for at, name in enumerate(names)}
    before, after = (float(np.mean([getattr(one, side) for one in found.values()])) for side in ("before", "after"))
    return TunedThresholds(
        threshold, own, before, after, len(true), tuple(n for at, n in enumerate(names) if at not in found)
    )


def tune_threshold(true: np.ndarray, positive: np.ndarray, metric: str, current: float) -> TunedThreshold:
    """Tries every threshold that makes a difference, and 0.5; of equally good ones the nearest to 0.5 is taken.

    Args:
        true: 1 for the positive class, else 0, (rows,).
        positive: Its probability, (rows,).
        metric: One of `OF_COUNTS`, or an alias.
        current: The threshold to compare with.

    Raises:
        ConfigError: See `check_metric`.
        DataError: The rows are of one class.
    """
    metric = check_metric(metric)
    if len(np.unique(true)) < 2:
        raise DataError("The rows are all of one class, so no threshold is better than another. Give rows of both.")
    positive = positive.astype(np.float64)
    levels = np.unique(positive)
    candidates = np.unique(np.concatenate([(levels[1:] + levels[:-1]) / 2, [0.5, levels[0] / 2, (1 + levels[-1]) / 2]]))
    scores = OF_COUNTS[metric](_counts(true, positive, candidates))
    best = candidates[scores >= scores.max() - 1e-12]
    threshold = float(best[np.abs(best - 0.5).argmin()])
    before, after = OF_COUNTS[metric](_counts(true, positive, np.array([current, threshold])))
    return TunedThreshold(threshold, metric, float(before), float(after), len(true))


def check_metric(metric: str) -> str:
    """The standard name of a metric that a threshold decides.

    Raises:
        ConfigError: One that no threshold changes, or an unknown one.
    """
    name = ALIASES.get(metric, metric)
    if name not in OF_COUNTS:
        raise ConfigError(
            f"metric={metric!r} does not depend on a threshold, or is unknown.{did_you_mean(name, OF_COUNTS)} Allowed: "
            f"{', '.join(OF_COUNTS)}."
        )
    return name


def _counts(true: np.ndarray, positive: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Confusion matrices (thresholds, 2, 2)."""
    rejected = [np.searchsorted(np.sort(positive[true == side]), thresholds, "right") for side in (0, 1)]
    sizes = [int((true == side).sum()) for side in (0, 1)]
    rows = [np.stack([below, size - below], axis=-1) for below, size in zip(rejected, sizes, strict=True)]
    return np.stack(rows, axis=-2).astype(np.float64)
