"""A `Fitted` and held-out rows go in; the same, with another reading of its logits, comes out."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from featherfit.artifact.fitted import Fitted
from featherfit.data.dataset import Dataset
from featherfit.data.messages import some
from featherfit.errors import ConfigError, did_you_mean
from featherfit.evaluation.calibration import calibrate, expected_calibration_error
from featherfit.evaluation.decision import UNCALIBRATED, Decision
from featherfit.evaluation.metrics import OF_ONE_LABEL
from featherfit.evaluation.threshold import (
    TunedThreshold,
    TunedThresholds,
    check_metric,
    tune_threshold,
    tune_thresholds,
)
from featherfit.inference.predict import Label, Progress, labelled_outputs, outputs


def calibrated(fitted: Fitted, held_out: Dataset, logits: np.ndarray | None, tell: Callable[[str], None]) -> Fitted:
    """The predictor with a temperature as `optim.calibration` wants it, and without an earlier threshold.

    Args:
        fitted: With its final weights; its summary gets `temperature` and `calibration`, why it is what it is.
        held_out: Rows with labels that were not trained on.
        logits: Of these rows and weights, (rows, C), where they are known.
        tell: Hears what came of it.
    """
    if fitted.decision.threshold != UNCALIBRATED.threshold:
        warnings.warn(
            f"The threshold {fitted.decision.threshold} was tuned for the earlier weights, and is 0.5 again. Call "
            "tune_threshold for the new ones.",
            stacklevel=2,
        )
    wanted = fitted.config.optim.calibration
    if fitted.label.numeric or wanted is None:
        return replace(fitted, decision=UNCALIBRATED)
    assert held_out.labels is not None
    logits = outputs(fitted, held_out) if logits is None else logits
    true, of_row = held_out.labels, 1
    if fitted.reading.several:
        true, of_row = held_out.labels.astype(np.int64).ravel(), logits.shape[1]
        logits = UNCALIBRATED.as_classes(logits)
    found = fitted.device.ranks.agreed(calibrate(logits, true, transfer=wanted == "transfer", of_row=of_row))
    decision, reason = Decision(found.temperature), found.reason
    if found.temperature != 1:
        before, after = (
            expected_calibration_error(true, reading.probabilities(logits)) for reading in (UNCALIBRATED, decision)
        )
        reason += f"; expected calibration error {before:.4f} before, {after:.4f} after"
    tell(f"Temperature {found.temperature:.4f}: {reason}.")
    summary = {**fitted.summary, "temperature": found.temperature, "calibration": reason}
    return replace(fitted, decision=decision, summary=summary)


def with_threshold(fitted: Fitted, threshold: Any, argument: str = "threshold") -> Fitted:
    """The predictor under another threshold.

    Args:
        fitted: Of a binary problem, or of several labels.
        threshold: 0 to 1; the positive class is predicted where its probability is greater. Of several labels one number
            for all, or a mapping from label to number; labels that it does not name keep theirs.
        argument: What the user called it, for messages.

    Raises:
        ConfigError: Another problem, not a number from 0 to 1, or an unknown label.
    """
    if not isinstance(threshold, Mapping) or not fitted.reading.several:
        _refuse_others(fitted, argument)
        _check_share(threshold, argument)
        return replace(fitted, decision=replace(fitted.decision, threshold=float(threshold)))
    names = fitted.label.classes.tolist()
    unknown = [name for name in threshold if name not in names]
    if unknown:
        raise ConfigError(
            f"{argument} names {unknown[0]!r}, which is not a label.{did_you_mean(str(unknown[0]), map(str, names))} Labels: "
            f"{some(names, 20)}."
        )
    for name, number in threshold.items():
        _check_share(number, f"{argument}[{name!r}]")
    now = {**dict(zip(names, thresholds_of(fitted), strict=True)), **threshold}
    return replace(fitted, decision=replace(fitted.decision, threshold=tuple(float(now[name]) for name in names)))


def thresholds_of(fitted: Fitted) -> tuple[float, ...]:
    """The threshold of each of several labels."""
    threshold = fitted.decision.threshold
    return threshold if isinstance(threshold, tuple) else (threshold,) * fitted.label.outputs


def _refuse_others(fitted: Fitted, argument: str) -> None:
    if fitted.label.problem_type not in ("binary", "multilabel"):
        raise ConfigError(
            f"{argument} is for binary and multilabel problems, and this one is {fitted.label.problem_type}. Leave it out."
        )


def _check_share(number: Any, argument: str) -> None:
    if isinstance(number, bool) or not isinstance(number, int | float) or not 0 <= number <= 1:
        raise ConfigError(f"{argument}={number!r} has to be a number from 0 to 1.")


def tuned(
    fitted: Fitted, frame: pd.DataFrame, metric: str, label: Label, progress: Progress
) -> TunedThreshold | TunedThresholds:
    """The threshold, or that of each label, that is best for `metric` on a table with labels, and what it gains there.

    Raises:
        ConfigError: Another problem than a binary one or one of several labels, or another metric than one of labels.
        DataError: A table that cannot be used, or is of one class.
    """
    _refuse_others(fitted, "tune_threshold")
    several = fitted.reading.several
    check_metric(OF_ONE_LABEL.get(metric, metric) if several else metric)
    rows = labelled_outputs(fitted, frame, label, progress)
    proba = fitted.reading.probabilities(rows.logits)
    if several:
        return tune_thresholds(rows.labels, proba, metric, thresholds_of(fitted), fitted.label.classes.tolist())
    return tune_threshold(rows.labels, proba[:, 1], metric, thresholds_of(fitted)[0])
