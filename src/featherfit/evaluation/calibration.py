"""Logits and true classes go in; how far probabilities are off, and the temperature that mends them, come out.

A model trained on one language is often less sure on its holdout than it is right, for training is short and stops early.
Probabilities sharpened to match that holdout are too sure in the languages it serves worse. A temperature for `transfer`
therefore sharpens only as far as it would pay if `DOUBT` of the labels were otherwise; it softens as the holdout says.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

BINS = 15
"""Bins of equal width of the confidence, as in Guo et al. (arXiv 1706.04599)."""

DOUBT = 0.15
"""Share of labels that are taken to be otherwise before probabilities are sharpened for rows from elsewhere."""

LEAST_ROWS = 30
"""With fewer rows nothing is calibrated."""

FOLDS = 5
_BOUNDS = (math.log(0.05), math.log(20))


@dataclass(frozen=True)
class Calibration:
    """What came of a calibration.

    Attributes:
        temperature: 1 where the probabilities stay as they are.
        reason: Why it is what it is, a plain sentence.
    """

    temperature: float
    reason: str


def expected_calibration_error(true: np.ndarray, proba: np.ndarray) -> float:
    """How far the probability of the predicted class is from being right that often, 0 to 1.

    The mean over rows of |accuracy - mean probability| of the row's bin, in `BINS` bins of equal width (Naeini et al.,
    AAAI 2015). It is above 0 by chance alone, the more so the fewer rows there are.

    Args:
        true: Class ids, (rows,).
        proba: Probabilities, (rows, C).
    """
    if len(true) == 0:
        return math.nan
    sure = proba.max(axis=1).astype(np.float64)
    place = np.minimum((sure * BINS).astype(int), BINS - 1)
    excess = np.bincount(place, weights=(proba.argmax(1) == true) - sure, minlength=BINS)
    return float(np.abs(excess).sum() / len(true))


def calibrate(logits: np.ndarray, true: np.ndarray, *, transfer: bool, of_row: int = 1) -> Calibration:
    """A temperature, where it lowers the log-loss of rows it was not fitted to.

    Each of `FOLDS` parts of the rows is scored by the temperature fitted to the others; the mean gain has to exceed its
    standard error. The temperature returned is fitted to all rows.

    Args:
        logits: Of held-out rows, (rows, C).
        true: Their class ids, (rows,).
        transfer: Whether rows may come from elsewhere later, such as other languages; see above.
        of_row: How many of these, next to each other, are one row's: each of its several labels as a binary problem. They
            stay together, and count as one in the standard error.
    """
    rows = len(true) // of_row
    if rows < LEAST_ROWS:
        return Calibration(1.0, f"not calibrated: {rows} held-out rows are fewer than {LEAST_ROWS}")
    if len(np.unique(true)) < 2:
        return Calibration(1.0, "not calibrated: the held-out rows are of one class")
    parts = np.repeat(np.random.default_rng(0).permutation(rows) % FOLDS, of_row)
    gains = np.empty(len(true))
    for part in range(FOLDS):
        own, others = parts == part, parts != part
        temperature = fit_temperature(logits[others], true[others], transfer=transfer)
        gains[own] = log_losses(logits[own], true[own]) - log_losses(logits[own], true[own], temperature)
    gains = gains.reshape(rows, of_row).mean(axis=1)
    if not gains.mean() > gains.std(ddof=1) / math.sqrt(rows):
        return Calibration(1.0, "not calibrated: no temperature lowers the held-out log-loss beyond chance")
    temperature = fit_temperature(logits, true, transfer=transfer)
    before, after = (float(log_losses(logits, true, value).mean()) for value in (1.0, temperature))
    return Calibration(temperature, f"held-out log-loss {before:.4f} before, {after:.4f} after")


def fit_temperature(logits: np.ndarray, true: np.ndarray, *, transfer: bool) -> float:
    """The temperature of least log-loss, 0.05 to 20; for `transfer` see the module.

    Args:
        logits: (rows, C).
        true: Class ids, (rows,).
        transfer: Whether sharpening is held back.
    """
    best = _least(logits, true, 0.0)
    if not transfer or best >= 1:
        return best
    return min(1.0, _least(logits, true, DOUBT))


def log_losses(logits: np.ndarray, true: np.ndarray, temperature: float = 1.0, doubt: float = 0.0) -> np.ndarray:
    """-log of each row's probability of its class, (rows,) float64.

    Args:
        logits: (rows, C).
        true: Class ids, (rows,).
        temperature: What logits are divided by.
        doubt: Probability that the label is another class, each as likely.
    """
    from scipy.special import log_softmax

    losses = -log_softmax(logits.astype(np.float64) / temperature, axis=1)
    own = losses[np.arange(len(true)), true]
    return (1 - doubt) * own + doubt * (losses.sum(axis=1) - own) / max(logits.shape[1] - 1, 1)


def _least(logits: np.ndarray, true: np.ndarray, doubt: float) -> float:
    from scipy.optimize import minimize_scalar

    found = minimize_scalar(
        lambda log: log_losses(logits, true, math.exp(log), doubt).mean(), bounds=_BOUNDS, method="bounded"
    )
    return math.exp(found.x)
