"""Several label columns, or one of lists, and what the user asked for go in; the problem type, or all that is wrong, comes out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from featherfit.data.labels import missing_problem, read_labels
from featherfit.data.messages import some
from featherfit.data.problem_type import contradiction
from featherfit.data.processors.several import flag_problem, listed_labels
from featherfit.errors import DataError, did_you_mean
from featherfit.types import ProblemType

_ONE = "is for one label column. Fit a predictor for each, or"


def label_columns(label: str | list[str] | None) -> list[str]:
    """The columns of a label that is one or several."""
    if label is None:
        return []
    return [label] if isinstance(label, str) else label


def lacking_labels(frame: pd.DataFrame, label: str | list[str] | None, why: str = "") -> str | None:
    """What to say about label columns that are not there, `why` they have to be included; None if they are."""
    lacking = [name for name in label_columns(label) if name not in frame.columns]
    if not lacking:
        return None
    return (
        f"There is no label column {some(lacking)}{why}.{did_you_mean(lacking[0], frame.columns)} "
        f"Columns: {', '.join(map(str, frame.columns))}."
    )


def infer_lists(column: pd.Series) -> tuple[ProblemType | None, str, list[str]]:
    """Problem type of a column of lists, as `infer_several` gives it."""
    try:
        number = len(listed_labels(column))
    except DataError as error:
        return None, "", [str(error)]
    return "multilabel", f"problem_type is 'multilabel'; there are {number} labels", []


def infer_several(frame: pd.DataFrame, names: Sequence[str], wanted: str | None) -> tuple[Any, str, list[str]]:
    """Problem type of several label columns of one kind.

    Args:
        frame: The training table.
        names: Its label columns.
        wanted: A name `check_problem_type` returned.

    Returns:
        `(problem type, reason, problems)`: `multilabel` for columns of 0 and 1, `regression` for numbers.
    """
    if wanted not in (None, "multilabel", "regression"):
        also = "give problem_type='multilabel' (columns of 0 and 1) or 'regression'."
        return None, "", [f"label={list(names)!r} names several columns, and problem_type={wanted!r} {_ONE} {also}"]
    flags = {name: flag_problem(frame[name]) for name in names}
    if wanted == "multilabel":
        problems = [problem for problem in flags.values() if problem]
        problems += [
            f"Label column {name!r} has the same value in every row, so there is nothing to learn from it. Leave it out."
            for name in names
            if not flags[name] and frame[name].nunique() < 2
        ]
        return "multilabel", "problem_type is 'multilabel'", problems
    if wanted is None and not any(flags.values()):
        return "multilabel", f"the {len(names)} label columns hold 0 and 1", []
    reason = "problem_type is 'regression'" if wanted else f"the {len(names)} label columns are numbers"
    problems = [problem for name in names if (problem := _number_problem(frame[name], reason))]
    if problems and wanted is None:
        problems.append(
            "Several label columns have to hold 0 and 1 (multilabel), or numbers (regression), all of them."
        )
    return "regression", reason, problems


def _number_problem(column: pd.Series, reason: str) -> str | None:
    try:
        labels = read_labels(column)
    except DataError as error:
        return str(error)
    if len(labels.missing):
        return missing_problem(str(column.name), labels)
    return contradiction(str(column.name), labels, "regression", reason)
