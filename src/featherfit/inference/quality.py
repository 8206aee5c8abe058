"""Outputs of a trained model and of a faster form of it go in; what the faster one costs and gains comes out."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from torch import nn

from featherfit.artifact.fitted import Fitted
from featherfit.data.label_columns import lacking_labels
from featherfit.data.weights import row_weights
from featherfit.errors import QualityError
from featherfit.evaluation.metrics import METRICS
from featherfit.evaluation.outputs import score_outputs
from featherfit.inference.int8 import Int8Down, Int8Linear, Int8Up

AGREEMENT_FACTOR = 20
"""Without a metric, labels may differ in `max_loss` times as many rows."""


@dataclass(frozen=True)
class Optimized:
    """What became of a model, measured on `rows` rows.

    Attributes:
        precision: Type of the products, `int8`.
        rows: Rows measured.
        layers: Linear layers that compute in `precision`.
        kept: Linear layers of the encoder that do not.
        metric: The metric both models were scored with; None where rows had no labels or it is not defined.
        before, after: Its values for the trained model and the faster one; NaN without a metric.
        agreement: Share of rows (of several labels: of rows and labels) both give the same label, 0 to 1; for numbers the
            share of the trained model's variance that the faster one reproduces (R^2), the least of several columns.
        largest_difference: Of probabilities, over rows and classes; for numbers in the label's unit.
        rows_per_second_before, rows_per_second_after: Speed on these rows.
    """

    precision: str
    rows: int
    layers: int
    kept: int
    metric: str | None
    before: float
    after: float
    agreement: float
    largest_difference: float
    rows_per_second_before: float
    rows_per_second_after: float

    def __str__(self) -> str:
        quality = f"same label for {self.agreement:.2%} of {self.rows} rows"
        if self.metric is not None:
            quality = f"{self.metric} {self.before:.4f} before, {self.after:.4f} after; {quality}"
        return (
            f"{self.precision} in {self.layers} of {self.layers + self.kept} linear layers: {quality}, largest difference "
            f"{self.largest_difference:.4f}; {self.rows_per_second_before:.0f} rows/s before, "
            f"{self.rows_per_second_after:.0f} after."
        )


def compare(
    fitted: Fitted,
    faster: Fitted,
    frame: pd.DataFrame,
    logits: tuple[np.ndarray, np.ndarray],
    speeds: tuple[float, float],
) -> Optimized:
    """Scores the outputs `logits` of both models for the rows of `frame`; `speeds` are their rows per second."""
    label, metric, scores = fitted.label, fitted.eval_metric, [math.nan, math.nan]
    if lacking_labels(frame, fitted.schema.label) is None:
        truth, weight = label.encode(frame[fitted.schema.label]), fitted.schema.scoring_weight
        weights = row_weights(frame, weight) if weight is not None and weight in frame.columns else None
        scores = [score_outputs([metric], of, truth, fitted.reading, weights)[metric] for of in logits]
    if label.numeric:
        one, other = map(label.values, logits)
        agreement = min(map(_reproduced, _columns(one), _columns(other)))
    else:
        one, other = map(fitted.reading.probabilities, logits)
        agreement = float(np.equal(*map(fitted.reading.ids, logits)).mean())
    linears = _count(fitted.model.text.modules(), nn.Linear)
    layers = _count(faster.model.text.modules(), Int8Linear | Int8Up | Int8Down)
    return Optimized(
        precision="int8",
        rows=len(frame),
        layers=layers,
        kept=linears - layers,
        metric=None if math.isnan(scores[0]) else metric,
        before=scores[0],
        after=scores[1],
        agreement=agreement,
        largest_difference=float(np.abs(one - other).max()),
        rows_per_second_before=speeds[0],
        rows_per_second_after=speeds[1],
    )


def _columns(values: np.ndarray) -> np.ndarray:
    return values.reshape(len(values), -1).T


def _reproduced(one: np.ndarray, other: np.ndarray) -> float:
    """The share of the variance of some numbers that others have too (R^2); 1 for equal ones."""
    spread = max(float(np.square(one - one.mean()).mean()), 1e-12 * float(np.square(one).mean()), 1e-300)
    return 1 - float(np.square(one - other).mean()) / spread


def _count(modules: Iterable[nn.Module], kind: Any) -> int:
    return sum(isinstance(module, kind) for module in modules)


def refuse_worse(report: Optimized, max_loss: float) -> None:
    """Raises QualityError for a model that loses more than it may, see `optimize`."""
    advice = (
        "Nothing was changed. Give data like the rows to predict, raise max_loss, or predict with the trained model."
    )
    if report.metric is not None:
        entry = METRICS[report.metric]
        loss = report.before - report.after if entry.greater_is_better else report.after / max(report.before, 1e-12) - 1
        if not loss <= max_loss:
            raise QualityError(
                f"{report.precision} loses {loss:.4f} of {report.metric}, more than max_loss={max_loss:g}. {report} {advice}"
            )
    elif not report.agreement >= 1 - AGREEMENT_FACTOR * max_loss:
        raise QualityError(
            f"{report.precision} agrees with the trained model in {report.agreement:.2%}, less than "
            f"{1 - AGREEMENT_FACTOR * max_loss:.2%} (1 - {AGREEMENT_FACTOR} * max_loss). {report} {advice}"
        )
