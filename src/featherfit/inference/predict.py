"""A `Fitted` and a table go in; labels, probabilities or embeddings come out, in the table's order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from featherfit.artifact.fitted import Fitted
from featherfit.config.arguments import checked_names
from featherfit.data.dataset import Dataset, make_dataset
from featherfit.data.label_columns import label_columns, lacking_labels
from featherfit.data.weights import row_weights
from featherfit.errors import ConfigError, DataError
from featherfit.evaluation.metrics import metric_name
from featherfit.evaluation.outputs import model_outputs, score_outputs

Progress = Callable[[int], None] | None
Label = str | list[str] | None


def outputs(fitted: Fitted, dataset: Dataset, *, embeddings: bool = False, progress: Progress = None) -> np.ndarray:
    """Logits (rows, C) or embeddings (rows, D) of a dataset."""
    return model_outputs(
        fitted.model,
        dataset,
        tokens=fitted.device.tokens_per_forward(fitted.config, dataset.longest(fitted.text.max_len), training=False),
        pad_id=fitted.text.pad_id,
        device=fitted.device,
        embeddings=embeddings,
        workers=fitted.config.env.num_workers_inference,
        progress=progress,
    )


@dataclass(frozen=True)
class Labelled:
    """Rows with labels, and the model's outputs for them.

    Attributes:
        labels: What `label.encode` gave.
        logits: (rows, outputs).
        weights: Of rows, (rows,), where scores are to be weighted.
    """

    labels: np.ndarray
    logits: np.ndarray
    weights: np.ndarray | None


def evaluate(
    fitted: Fitted, frame: pd.DataFrame, metrics: Any, label: Label, progress: Progress = None
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
    rows = labelled_outputs(fitted, frame, label, progress)
    scores = score_outputs(names, rows.logits, rows.labels, fitted.reading, rows.weights)
    return scores, fitted.reading.predictions(rows.logits)


def metric_names(fitted: Fitted, metrics: Any) -> list[str]:
    """Standard names of a metric, a list of them, or None for the predictor's own.

    Raises:
        ConfigError: Unknown, or for other problems.
    """
    wanted = [fitted.eval_metric] if metrics is None else metrics
    weighted = fitted.schema.scoring_weight is not None
    names = [
        metric_name(name, fitted.label.problem_type, "metrics", weighted=weighted)
        for name in (wanted if isinstance(wanted, list | tuple) else [wanted])
    ]
    return list(dict.fromkeys(names))


def labelled_outputs(fitted: Fitted, frame: pd.DataFrame, label: Label, progress: Progress = None) -> Labelled:
    """The encoded labels of a table, and the outputs for its rows.

    Args:
        fitted: The predictor.
        frame: Rows with the label column.
        label: Column of the true labels if it is not called as in training.
        progress: Called with the number of rows done after each batch.

    Raises:
        DataError: Missing columns, missing labels, or labels training has not seen.
    """
    column = label_named(fitted, label)
    lacking = lacking_labels(frame, column, ", which evaluation needs")
    if lacking:
        raise DataError(lacking)
    if len(frame) == 0:
        raise DataError("The table has no rows, so there is nothing to score.")
    truth, weight = fitted.label.encode(frame[column]), fitted.schema.scoring_weight
    weights = None if weight is None else row_weights(frame, weight)
    return Labelled(truth, outputs(fitted, table_rows(fitted, frame), progress=progress), weights)


def label_named(fitted: Fitted, label: Label) -> str | list[str]:
    """The columns of the true labels: those of training, unless `label` names others for them.

    Raises:
        ConfigError: Not as many as there are.
    """
    own = fitted.schema.label
    assert own is not None
    given = checked_names(label, "label")
    if given is None:
        return own
    if isinstance(own, str) != isinstance(given, str) or len(label_columns(given)) != len(label_columns(own)):
        raise ConfigError(f"label={label!r} has to name what {own!r} is called in this table, in this order.")
    return given


def table_rows(fitted: Fitted, frame: pd.DataFrame) -> Dataset:
    """The rows of a table without their labels."""
    return make_dataset(frame, fitted.schema, fitted.text, None, parts=fitted.parts)
