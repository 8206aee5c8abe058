"""A training DataFrame goes in; a `Schema` (what each column is and why, the label, the problem type) comes out.

Everything wrong with the table is reported in one DataError.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from featherfit.data.column_types import COLUMN_TYPES, IMAGE_TYPES, describe, infer_column_type
from featherfit.data.image_columns import paths_not_there
from featherfit.data.images import folder_of
from featherfit.data.label_columns import infer_lists, infer_several, label_columns, lacking_labels
from featherfit.data.labels import read_labels, unknown_pos_label
from featherfit.data.messages import raise_all, some
from featherfit.data.problem_type import check_problem_type, infer_problem_type
from featherfit.data.weights import weight_problem
from featherfit.errors import DataError, UnsupportedError, did_you_mean
from featherfit.types import NUMBERS, ColumnType, ProblemType

UNSUPPORTED_COLUMN_TYPES: dict[str, str] = {
    "document": "there are no document models in this version",
    "document_pdf": "there are no document models in this version",
    "text_ner": "labels for single words are not offered yet",
    "ner_annotation": "labels for single words are not offered yet",
    "rois": "there are no detection models in this version",
    "semantic_segmentation_gt": "there are no segmentation models in this version",
    "semantic_segmentation_img": "there are no segmentation models in this version",
}


DROPPED: tuple[ColumnType, ...] = ("identifier", "null")
"""Types of columns that no encoder reads."""


@dataclass(frozen=True)
class Schema:
    """What a table means.

    Attributes:
        columns: Type of every feature column, in the order of the table; the label is not among them.
        reasons: One plain sentence for each of them.
        label: Name of the label column, or a list of several; None where nothing is to be predicted.
        problem_type: Type of the problem; None without a label.
        problem_reason: One plain sentence for the problem type.
        sample_weight: Column of the weights of rows, if there is one; not a feature.
        weight_evaluation: Whether it counts when rows are scored too.
    """

    columns: dict[str, ColumnType]
    reasons: dict[str, str]
    label: str | list[str] | None
    problem_type: ProblemType | None
    problem_reason: str = ""
    sample_weight: str | None = None
    weight_evaluation: bool = False

    @property
    def label_columns(self) -> list[str]:
        """The label's columns."""
        return label_columns(self.label)

    @property
    def scoring_weight(self) -> str | None:
        """The column that rows are weighed by when they are scored."""
        return self.sample_weight if self.weight_evaluation else None

    @property
    def text_columns(self) -> list[str]:
        """The columns of text, sorted by name as AutoMM joins them."""
        return sorted(name for name, column_type in self.columns.items() if column_type == "text")

    @property
    def dropped(self) -> list[str]:
        """Feature columns that say nothing of a row: constant ones, identifiers, and objects no encoder reads."""
        return [name for name, column_type in self.columns.items() if column_type in DROPPED]

    def to_frame(self) -> pd.DataFrame:
        """A row for every feature column: `column`, `type` and `because`, a plain sentence."""
        lines = [(name, kind, self.reasons[name]) for name, kind in self.columns.items()]
        return pd.DataFrame(lines, columns=["column", "type", "because"])

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, state: Mapping[str, Any]) -> Schema:
        """What `to_json` gave."""
        return cls(
            dict(state["columns"]),
            dict(state["reasons"]),
            state["label"],
            state["problem_type"],
            state["problem_reason"],
            state["sample_weight"],
            state["weight_evaluation"],
        )


def infer_schema(
    frame: pd.DataFrame,
    label: str | list[str] | None,
    *,
    column_types: Mapping[str, str] | None = None,
    problem_type: str | None = None,
    pos_label: Any = None,
    eval_metric: str | None = None,
    sample_weight: str | None = None,
    weight_evaluation: bool = False,
) -> Schema:
    """Reads a training table.

    Args:
        frame: The rows to learn from; only these decide, never validation rows.
        label: Column to predict, a list of several, or None.
        column_types: Types that are known better, by column; they win over inference. For the label, `numerical` asks
            for regression and `categorical` for classification.
        problem_type: `binary`, `multiclass`, `regression`, `quantile`, `multilabel`, `classification` (one of the first two),
            or None to infer.
        pos_label: The positive class; has to occur in the label.
        eval_metric: Name of a metric; one for regression settles a problem type of None.
        sample_weight: Column of the weights of rows.
        weight_evaluation: Whether it is to count when rows are scored too.

    Raises:
        UnsupportedError: A problem or column type that AutoMM has and this version does not.
        DataError: Everything else that is wrong, all at once.
    """
    given = dict(column_types or {})
    problems = _check_table(frame, label) + _check_column_types(frame, given)
    try:
        wanted = check_problem_type(problem_type)
    except DataError as error:
        problems.append(str(error))
    raise_all(DataError, problems, "the training data")

    resolved, problem_reason, problems = None, "", []
    names = label_columns(label)
    if label is not None:
        resolved, why, problems = _problem(frame, label, given, wanted, eval_metric, pos_label)
        problem_reason = f"The problem is {resolved} because {why}."
    elif wanted is not None or pos_label is not None:
        problems.append("problem_type and data.pos_label need a label; name the column to predict.")

    columns: dict[str, ColumnType] = {}
    reasons: dict[str, str] = {}
    if sample_weight is not None:
        problems += filter(None, [_check_weight(frame, sample_weight, names)])
    for name in frame.columns:
        if name in names or name == sample_weight:
            continue
        if name in given:
            columns[name], why = given[name], "column_types says so"  # type: ignore[assignment]
        else:
            columns[name], why = infer_column_type(frame[name], folder_of(frame))
            _warn_of_lost_images(frame, name, columns[name])
        reasons[name] = describe(name, columns[name], why)
        if columns[name] == "text" and frame[name].isna().all():
            problems.append(f"Column {name!r} is to be text, but all its values are missing.")
    schema = Schema(columns, reasons, label, resolved, problem_reason, sample_weight, weight_evaluation)
    problems += _check_features(schema)
    raise_all(DataError, problems, "the training data")
    return schema


def _warn_of_lost_images(frame: pd.DataFrame, name: str, column_type: str) -> None:
    """Says so where a column holds the names of image files that cannot be opened."""
    if column_type in ("null", *IMAGE_TYPES) or not pd.api.types.is_string_dtype(frame[name].dropna().dtype):
        return
    why = paths_not_there(frame[name].dropna().tolist(), folder_of(frame))
    if why is not None:
        where = folder_of(frame) or "the working folder"
        warnings.warn(
            f"Column {name!r} holds names of image files and is not read as images: {why}. Paths are relative to {where}. It "
            f"is taken for {column_type}; column_types={{{name!r}: 'image_path'}} makes what is missing an error, "
            f"{{{name!r}: 'null'}} leaves the column out.",
            stacklevel=5,
        )


def _problem(
    frame: pd.DataFrame,
    label: str | list[str],
    given: dict[str, str],
    wanted: str | None,
    eval_metric: str | None,
    pos_label: Any,
) -> tuple[ProblemType | None, str, list[str]]:
    """`(problem type, reason, problems)`; what `given` says of the label is taken out of it."""
    problems: list[str] = []
    for name in label_columns(label):
        wanted, more = _check_label_type(name, given.pop(name, None), wanted)
        problems += more
    if isinstance(label, list):
        wanted = "multilabel" if wanted == "classification" else wanted
        resolved, why, more = infer_several(frame, label, wanted)
    elif wanted == "multilabel":
        resolved, why, more = infer_lists(frame[label])
    else:
        resolved, why, more = infer_problem_type(frame[label], wanted, eval_metric)
    if not more and pos_label is not None:
        more = _check_pos_label(frame, label, resolved, pos_label)
    return resolved, why, problems + more


def _check_weight(frame: pd.DataFrame, column: str, labels: list[str]) -> str | None:
    if column in labels:
        return f"sample_weight={column!r} is the label. Name the column of weights."
    return weight_problem(frame, column)


def _check_label_type(label: str, label_type: str | None, wanted: str | None) -> tuple[str | None, list[str]]:
    """The problem type that `column_types` asks for by the label's type, and what is wrong with that."""
    if label_type is None:
        return wanted, []
    asked = {"numerical": "regression", "categorical": "classification"}.get(label_type)
    if asked is None:
        return wanted, [f"column_types[{label!r}]={label_type!r}: a label is numerical or categorical."]
    if wanted is not None and (wanted in NUMBERS) != (asked == "regression"):
        return wanted, [
            f"column_types[{label!r}]={label_type!r} contradicts problem_type={wanted!r}. Drop one of them."
        ]
    return wanted or asked, []


def _check_table(frame: pd.DataFrame, label: str | list[str] | None) -> list[str]:
    """Rows there, names usable, label among the columns."""
    names = list(frame.columns)
    if any(not isinstance(name, str) for name in names):
        odd = [name for name in names if not isinstance(name, str)]
        return [
            f"Column names have to be text, but some are not: {some(odd)}. Set frame.columns = frame.columns.map(str)."
        ]
    problems = []
    if frame.columns.has_duplicates:
        problems.append(f"More than one column is named {some(frame.columns[frame.columns.duplicated()].unique())}.")
    if len(frame) == 0:
        problems.append("The table has no rows.")
    lacking, labels = lacking_labels(frame, label), label_columns(label)
    if lacking:
        problems.append(lacking)
    elif labels and len(names) == len(labels):
        what = f"column {label!r}" if isinstance(label, str) else f"columns {some(labels)}"
        problems.append(f"The table has only the label {what}; add a column of text.")
    return problems


def _check_column_types(frame: pd.DataFrame, given: dict[str, str]) -> list[str]:
    """Known columns with known types.

    Raises:
        UnsupportedError: A type only AutoMM has.
    """
    refused = [
        f"column_types[{name!r}]={column_type!r} is not supported: {UNSUPPORTED_COLUMN_TYPES[str(column_type)]}."
        for name, column_type in given.items()
        if str(column_type) in UNSUPPORTED_COLUMN_TYPES
    ]
    raise_all(UnsupportedError, refused, "column_types")
    problems = []
    for name, column_type in given.items():
        if name not in frame.columns:
            problems.append(
                f"column_types names {name!r}, which is not a column.{did_you_mean(name, frame.columns)} "
                f"Columns: {', '.join(map(str, frame.columns))}."
            )
        if column_type not in COLUMN_TYPES:
            problems.append(
                f"column_types[{name!r}]={column_type!r} is no column type.{did_you_mean(column_type, COLUMN_TYPES)} "
                f"Allowed: {', '.join(COLUMN_TYPES)}."
            )
    return problems


def _check_pos_label(
    frame: pd.DataFrame, label: str | list[str], problem_type: str | None, pos_label: Any
) -> list[str]:
    if problem_type != "binary" or isinstance(label, list):
        return [f"data.pos_label={pos_label!r} is for binary problems, and this one is {problem_type}. Leave it out."]
    classes = sorted(set(read_labels(frame[label]).values))
    if pos_label not in classes:
        return [unknown_pos_label(pos_label, classes)]
    return []


def _check_features(schema: Schema) -> list[str]:
    if not schema.columns or len(schema.dropped) < len(schema.columns):
        return []  # a table without features has been refused before
    first = next(iter(schema.columns))
    lines = "\n".join(f"    {schema.reasons[name]}" for name in schema.columns)
    message = f"No column says anything of a row.\n{lines}\n"
    return [f"{message}    If one of them does, say what it is: column_types={{{first!r}: 'text'}}."]
