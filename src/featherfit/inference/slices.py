"""A `Fitted` and a table with labels go in; its scores slice by slice come out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from featherfit.artifact.fitted import Fitted
from featherfit.data.slicing import row_slices
from featherfit.errors import ConfigError, did_you_mean
from featherfit.evaluation.slices import SlicedScores, score_slices
from featherfit.inference.predict import Label, Progress, labelled_outputs, metric_names


def evaluate_by(
    fitted: Fitted,
    frame: pd.DataFrame,
    by: Any,
    metrics: Any,
    label: Label,
    *,
    reference: str | None,
    resamples: int,
    seed: int,
    progress: Progress = None,
) -> tuple[SlicedScores, np.ndarray]:
    """Scores of every slice of a table, and the predictions they are of.

    Args:
        fitted: The predictor.
        frame: Rows with the label column.
        by, metrics, label, reference, resamples, seed: As for `MultiModalPredictor.evaluate`.
        progress: Called with the number of rows done after each batch.

    Raises:
        ConfigError: Arguments that are wrong or do not fit.
        DataError: Missing columns, missing labels, or labels training has not seen.
        MissingDependencyError: `by="auto"`, and no detector of languages is installed.
    """
    names = metric_names(fitted, metrics)
    if isinstance(resamples, bool) or not isinstance(resamples, int) or resamples < 100:
        raise ConfigError(f"resamples={resamples!r} has to be a whole number of at least 100.")
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise ConfigError(f"seed={seed!r} has to be a whole number of at least 0.")
    columns, values = row_slices(frame, by, fitted.text.columns)
    chosen = _reference(fitted, columns, values, reference)
    rows = labelled_outputs(fitted, frame, label, progress)
    scores = score_slices(
        fitted.reading.predicted(rows.logits, rows.labels, rows.weights),
        values,
        columns,
        names,
        reference=chosen,
        resamples=resamples,
        seed=seed,
    )
    return scores, fitted.reading.predictions(rows.logits)


def _reference(
    fitted: Fitted, columns: list[str], values: list[tuple[str, ...]], given: str | None
) -> tuple[str, str] | None:
    """The slice to measure gaps to, and why it is; None where nothing says which."""
    names = list(dict.fromkeys(" / ".join(value) for value in values))
    if given is not None:
        if str(given) not in names:
            raise ConfigError(
                f"reference={given!r} is no slice.{did_you_mean(given, names)} Slices: {', '.join(names)}."
            )
        return str(given), "as reference says"
    learned = " / ".join(fitted.constants.get(name, "") for name in columns)
    if learned in names:
        return learned, "which all training rows were"
    return None
