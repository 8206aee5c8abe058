"""A `Fitted` and a table go in; labels, probabilities or embeddings come out, in the table's order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from featherfit.artifact.fitted import Fitted
from featherfit.data.dataset import Dataset, make_dataset
from featherfit.errors import DataError, did_you_mean
from featherfit.evaluation.metrics import metric_name
from featherfit.evaluation.outputs import model_outputs, score_outputs

Progress = Callable[[int], None] | None


def outputs(fitted: Fitted, dataset: Dataset, *, embeddings: bool = False, progress: Progress = None) -> np.ndarray:
    """Logits (rows, C) or embeddings (rows, D) of a dataset."""
    return model_outputs(
        fitted.model,
        dataset,
        tokens=fitted.device.tokens_per_forward(
            fitted.config.rows_per_forward(training=False),
            dataset.longest(fitted.text.max_len),
            training=False,
        ),
        pad_id=fitted.text.pad_id,
        device=fitted.device,
        embeddings=embeddings,
        workers=fitted.config.env.num_workers_inference,
        progress=progress,
    )


def labels_of(fitted: Fitted, logits: np.ndarray) -> np.ndarray:
    """Predicted labels (rows,), in the type they had in training; for regression, values in the label's unit."""
    if fitted.label.problem_type == "regression":
        return fitted.label.inverse_scale(logits[:, 0])
    return fitted.label.decode(fitted.decision.ids(logits))


def evaluate(
    fitted: Fitted, frame: pd.DataFrame, metrics: Any, label: str | None, progress: Progress = None
) -> tuple[dict[str, float], np.ndarray]:
    """Scores of a table with labels, and the predictions they are of.

    Args:
        fitted: The predictor.
        frame: Rows with the label column.
        metrics: Name of a metric, a list of names, or None for the predictor's own.
        label: Column of the true labels if it is not called as in training.
        progress: Called with the number of rows done after each batch.

    Raises:
        ConfigError: Metrics that are unknown or do not fit.
        DataError: Missing columns, missing labels, or labels training has not seen.
    """
    names = metric_names(fitted, metrics)
    truth, logits = labelled_outputs(fitted, frame, label, progress)
    return score_outputs(names, logits, truth, fitted.label, fitted.decision), labels_of(fitted, logits)


def metric_names(fitted: Fitted, metrics: Any) -> list[str]:
    """Standard names of a metric, a list of them, or None for the predictor's own.

    Raises:
        ConfigError: Unknown, or for other problems.
    """
    wanted = [fitted.eval_metric] if metrics is None else metrics
    names = [
        metric_name(name, fitted.label.problem_type, "metrics")
        for name in (wanted if isinstance(wanted, list | tuple) else [wanted])
    ]
    return list(dict.fromkeys(names))


def labelled_outputs(
    fitted: Fitted, frame: pd.DataFrame, label: str | None, progress: Progress = None
) -> tuple[np.ndarray, np.ndarray]:
    """What the labels of a table encode to, (rows,), and the logits of its rows, (rows, C).

    Args:
        fitted: The predictor.
        frame: Rows with the label column.
        label: Column of the true labels if it is not called as in training.
        progress: Called with the number of rows done after each batch.

    Raises:
        DataError: Missing columns, missing labels, or labels training has not seen.
    """
    column = fitted.schema.label if label is None else label
    if column not in frame.columns:
        raise DataError(
            f"The table has no label column {column!r}, which evaluation needs.{did_you_mean(str(column), frame.columns)}"
            f" Columns: {', '.join(map(str, frame.columns))}."
        )
    if len(frame) == 0:
        raise DataError("The table has no rows, so there is nothing to score.")
    truth = fitted.label.encode(frame[column])
    return truth, outputs(fitted, table_rows(fitted, frame), progress=progress)


def table_rows(fitted: Fitted, frame: pd.DataFrame) -> Dataset:
    """The rows of a table without their labels."""
    return make_dataset(frame, fitted.schema, fitted.text, None, parts=fitted.parts)
