"""A `Fitted` and held-out rows go in; the same, with another reading of its logits, comes out."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd

from featherfit.artifact.fitted import Fitted
from featherfit.data.dataset import Dataset
from featherfit.errors import ConfigError
from featherfit.evaluation.calibration import calibrate, expected_calibration_error
from featherfit.evaluation.decision import UNCALIBRATED, Decision
from featherfit.evaluation.threshold import TunedThreshold, check_metric, tune_threshold
from featherfit.inference.predict import Progress, labelled_outputs, outputs


def calibrated(fitted: Fitted, held_out: Dataset, logits: np.ndarray | None, tell: Callable[[str], None]) -> Fitted:
    """The predictor with a temperature as `optim.calibration` wants it, and without an earlier threshold.

    Args:
        fitted: With its final weights; its summary gets `temperature` and `calibration`, why it is what it is.
        held_out: Rows with labels that were not trained on.
        logits: Of these rows and weights, (rows, C), where they are known.
        tell: Hears what came of it.
    """
    if fitted.decision.threshold != 0.5:
        warnings.warn(
            f"The threshold {fitted.decision.threshold:g} was tuned for the earlier weights, and is 0.5 again. Call "
            "tune_threshold for the new ones.",
            stacklevel=2,
        )
    wanted = fitted.config.optim.calibration
    if fitted.label.problem_type == "regression" or wanted is None:
        return replace(fitted, decision=UNCALIBRATED)
    assert held_out.labels is not None
    logits = outputs(fitted, held_out) if logits is None else logits
    found = fitted.device.ranks.agreed(calibrate(logits, held_out.labels, transfer=wanted == "transfer"))
    decision, reason = Decision(found.temperature), found.reason
    if found.temperature != 1:
        before, after = (
            expected_calibration_error(held_out.labels, reading.probabilities(logits))
            for reading in (UNCALIBRATED, decision)
        )
        reason += f"; expected calibration error {before:.4f} before, {after:.4f} after"
    tell(f"Temperature {found.temperature:.4f}: {reason}.")
    summary = {**fitted.summary, "temperature": found.temperature, "calibration": reason}
    return replace(fitted, decision=decision, summary=summary)


def with_threshold(fitted: Fitted, threshold: float, argument: str = "threshold") -> Fitted:
    """The predictor under another threshold.

    Args:
        fitted: Of a binary problem.
        threshold: 0 to 1; the positive class is predicted where its probability is greater.
        argument: What the user called it, for messages.

    Raises:
        ConfigError: Another problem, or not a number from 0 to 1.
    """
    if fitted.label.problem_type != "binary":
        raise ConfigError(
            f"{argument} is for binary problems, and this one is {fitted.label.problem_type}. Leave it out."
        )
    if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not 0 <= threshold <= 1:
        raise ConfigError(f"{argument}={threshold!r} has to be a number from 0 to 1.")
    return replace(fitted, decision=replace(fitted.decision, threshold=float(threshold)))


def tuned(fitted: Fitted, frame: pd.DataFrame, metric: str, label: str | None, progress: Progress) -> TunedThreshold:
    """The threshold that is best for `metric` on a table with labels, and what it gains there.

    Raises:
        ConfigError: Another problem than a binary one, or another metric than one of labels.
        DataError: A table that cannot be used, or is of one class.
    """
    with_threshold(fitted, fitted.decision.threshold, "tune_threshold")
    check_metric(metric)
    truth, logits = labelled_outputs(fitted, frame, label, progress)
    proba = fitted.decision.probabilities(logits)
    return tune_threshold(truth, proba[:, 1], metric, fitted.decision.threshold)
