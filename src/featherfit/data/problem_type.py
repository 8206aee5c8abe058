"""A label column and what the user asked for go in; the problem type, or everything wrong with it, comes out.

The rules are AutoGluon's (`infer_problem_type`), except that text which reads as numbers is a
regression target where it has many distinct values.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from featherfit.data.labels import Labels, as_numbers, missing_problem, read_labels
from featherfit.data.messages import count, some
from featherfit.errors import DataError, UnsupportedError, did_you_mean
from featherfit.types import NUMBERS, ProblemType

PROBLEM_TYPES: tuple[str, ...] = ("binary", "multiclass", "regression", "quantile", "multilabel", "classification")

UNSUPPORTED: dict[str, str] = {
    "object_detection": "there are no image models in this version",
    "semantic_segmentation": "there are no image models in this version",
    "zero_shot_image_classification": "there are no image models in this version",
    "image_similarity": "there are no image models in this version",
    "image_text_similarity": "there are no image models in this version",
    "ocr_text_detection": "there are no image models in this version",
    "ocr_text_recognition": "there are no image models in this version",
    "text_similarity": "matching pairs of texts is not offered yet",
    "ner": "labels for single words are not offered yet",
    "named_entity_recognition": "labels for single words are not offered yet",
    "feature_extraction": "embeddings come from a fitted predictor: fit it, then call extract_embedding",
    "few_shot_classification": "use problem_type='classification', which also works with few rows",
}

REGRESSION_METRICS = frozenset(
    (
        *("rmse", "root_mean_squared_error", "mse", "mean_squared_error", "r2", "pearsonr", "spearmanr"),
        *("mae", "mean_absolute_error", "median_ae", "median_absolute_error", "mape", "smape"),
        *("mean_absolute_percentage_error", "symmetric_mean_absolute_percentage_error"),
    )
)

MOST_CLASSES = 1000  # of a numeric label, AutoGluon's MULTICLASS_UPPER_LIMIT
LARGE = 1000  # rows above which CLASS_SHARE_LARGE holds
CLASS_SHARE = 0.1  # distinct labels per row up to which whole numbers are classes
CLASS_SHARE_LARGE = 0.05
MOST_TEXT_CLASSES = 20  # of numbers written as text


def check_problem_type(problem_type: str | None) -> str | None:
    """The lower-case name if it is one we have, None for None.

    Raises:
        UnsupportedError: AutoMM has it and this version does not.
        DataError: Nobody has it.
    """
    if problem_type is None:
        return None
    name = str(problem_type).lower()
    if name in UNSUPPORTED:
        raise UnsupportedError(
            f"problem_type={problem_type!r} is not supported: {UNSUPPORTED[name]}. Offered: {', '.join(PROBLEM_TYPES)}."
        )
    if name not in PROBLEM_TYPES:
        raise DataError(
            f"Unknown problem_type {problem_type!r}.{did_you_mean(name, PROBLEM_TYPES)} "
            f"Allowed: {', '.join(PROBLEM_TYPES)}, or None to infer it."
        )
    return name


def infer_problem_type(
    column: pd.Series, wanted: str | None, eval_metric: str | None = None
) -> tuple[ProblemType | None, str, list[str]]:
    """Problem type of a training label.

    Args:
        column: The label column.
        wanted: A name `check_problem_type` returned.
        eval_metric: Name of the metric, which settles regression where `wanted` is None.

    Returns:
        `(problem type, reason, problems)`; the type is None where the problems leave no answer.
    """
    try:
        labels = read_labels(column)
    except DataError as error:
        return None, "", [str(error)]
    problems = [missing_problem(str(column.name), labels)] if len(labels.missing) else []
    if not labels.values:
        return None, "", problems
    if wanted is None and eval_metric is not None and eval_metric.lower() in REGRESSION_METRICS:
        resolved, reason = "regression", f"eval_metric {eval_metric!r} is for regression"
    else:
        resolved, reason = _resolve(column, labels, wanted)
    problem = contradiction(str(column.name), labels, resolved, reason)
    if problem:
        problems.append(problem)
    return resolved, reason, problems  # type: ignore[return-value]


def _resolve(column: pd.Series, labels: Labels, wanted: str | None) -> tuple[str, str]:
    """`wanted`, or what the labels say."""
    distinct = len(set(labels.values))
    if wanted in ("binary", "multiclass", *NUMBERS):
        return wanted, f"problem_type is {wanted!r}"
    if distinct <= 2:
        return "binary", f"the label has {count(distinct, 'distinct value')}"
    inferred, reason = _infer(labels, distinct, isinstance(column.dtype, pd.CategoricalDtype))
    if wanted == "classification":
        return "multiclass", f"problem_type is 'classification' and the label has {distinct} distinct values"
    return inferred, reason


def _infer(labels: Labels, distinct: int, categories: bool) -> tuple[str, str]:
    """AutoGluon's rule for three distinct labels and more."""
    if categories:
        return "multiclass", "the label's dtype is category"
    numbers = as_numbers(labels)
    if np.isnan(numbers).any():
        return "multiclass", "the label is text"
    rows = len(numbers)
    facts = f"{distinct} distinct values in {rows} rows"
    many = distinct > MOST_CLASSES or distinct / rows > (CLASS_SHARE_LARGE if rows > LARGE else CLASS_SHARE)
    if labels.kind == "text":
        # Whoever wrote numbers as text meant classes, unless there are too many to be any.
        if many and distinct > MOST_TEXT_CLASSES:
            return "regression", f"the label is text that reads as numbers, with {facts}"
        return "multiclass", f"the label is text, with {facts}"
    if many:
        return "regression", f"the label is numeric with {facts}"
    if (numbers != np.floor(numbers)).any():
        return "regression", "the label has fractions"
    return "multiclass", f"the label has whole numbers, only {facts}"


def contradiction(name: str, labels: Labels, problem_type: str, reason: str) -> str | None:
    """Why `problem_type` cannot be learnt from these labels; None if it can."""
    distinct = list(dict.fromkeys(labels.values))
    where = f"Label column {name!r}"
    if labels.kind == "float" and np.isinf(labels.values).any():
        rows = labels.index[np.isinf(labels.values)]
        return f"{where} is infinite in {count(len(rows), 'row')} (index {some(rows)}). Drop or correct them."
    if len(distinct) == 1:
        return f"{where} has one value only ({distinct[0]!r} in every row), so there is nothing to learn from it."
    if problem_type == "binary" and len(distinct) != 2:
        classes = f"{len(distinct)} classes ({some(distinct)})"
        return f"{where} has {classes}, but {reason}. Use 'multiclass', or None to infer it."
    if problem_type == "multiclass" and len(distinct) == 2:
        return f"{where} has 2 classes ({some(distinct)}), but {reason}. Use 'binary', or None to infer it."
    if problem_type not in NUMBERS:
        return None
    numbers = as_numbers(labels)
    bad = ~np.isfinite(numbers)
    if bad.any():
        rows = labels.index[bad]
        values = dict.fromkeys(value for value, wrong in zip(labels.values, bad, strict=True) if wrong)
        return (
            f"{where} is not a number in {count(len(rows), 'row')} (index {some(rows)}; values {some(values)}), "
            f"but {reason}. Use 'classification', or correct the labels."
        )
    if numbers.min() == numbers.max():
        return f"{where} has the same number in every row, so there is nothing to learn from it."
    return None
