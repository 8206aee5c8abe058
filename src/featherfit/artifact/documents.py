"""The JSON of an artifact goes in; records with checked types and ranges come out, or one `ArtifactError` with every mistake."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, JsonValue, ValidationError, model_validator

from featherfit.data.column_types import IMAGE_TYPES
from featherfit.data.dates import FORMATS
from featherfit.data.label_columns import label_columns
from featherfit.data.processors.several import MOST_LABELS
from featherfit.data.schema import DROPPED
from featherfit.errors import ArtifactError
from featherfit.types import ColumnType, PoolingMode, ProblemType

_STRICT = ConfigDict(strict=True, extra="forbid", frozen=True, hide_input_in_errors=True)
_DTYPES = (
    "object",
    "bool",
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
    "float16",
    "float32",
    "float64",
)
MOST_SHOWN = 8
"""Mistakes that a message lists."""

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0)]
Share = Annotated[FiniteFloat, Field(ge=0, le=1)]
_CLASSES = {"binary": (2, 2), "multiclass": (2, math.inf)}
"""How many classes a problem has at least and at most; others have none."""


class CheckpointRecord(BaseModel):
    """The pretrained weights an artifact stands on."""

    model_config = _STRICT
    name: str
    fingerprint: Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
    source: str
    note: str | None


class ParametersRecord(BaseModel):
    """How large the model is."""

    model_config = _STRICT
    total: Count
    trainable: Count
    megabytes: FiniteFloat


class ConfigRecord(BaseModel):
    """`config.json`; `settings` are checked by `build_config`."""

    model_config = _STRICT
    format_version: int
    featherfit: str
    libraries: dict[str, str]
    standalone: bool
    checkpoint: CheckpointRecord | None
    further: dict[str, CheckpointRecord]
    pooling: PoolingMode | None
    eval_metric: str
    validation_metric: str
    parameters: ParametersRecord
    settings: dict[str, JsonValue]

    @model_validator(mode="after")
    def _makes_sense(self) -> ConfigRecord:
        if (self.checkpoint is None) != (self.pooling is None):
            raise ValueError("a text encoder has both a checkpoint and a pooling, or there is none")
        return self


class SchemaRecord(BaseModel):
    """The `schema` of `schema.json`, as `Schema.to_json` gives it."""

    model_config = _STRICT
    columns: dict[str, ColumnType]
    reasons: dict[str, str]
    label: str | Annotated[list[str], Field(min_length=1)]
    problem_type: ProblemType
    problem_reason: str
    sample_weight: str | None
    weight_evaluation: bool

    @model_validator(mode="after")
    def _makes_sense(self) -> SchemaRecord:
        if all(kind in DROPPED for kind in self.columns.values()):
            raise ValueError("no column says anything of a row")
        for name in label_columns(self.label):
            if name in self.columns:
                raise ValueError(f"the label {name!r} is among the features")
        if self.sample_weight in self.columns:
            raise ValueError(f"the weight {self.sample_weight!r} is among the features")
        return self


class LabelRecord(BaseModel):
    """The `label` of `schema.json`, as `LabelProcessor.to_json` gives it."""

    model_config = _STRICT
    problem_type: ProblemType
    classes: list[bool | int | FiniteFloat | str]
    dtype: str
    center: FiniteFloat
    scale: Annotated[FiniteFloat, Field(gt=0)]
    levels: list[Annotated[FiniteFloat, Field(gt=0, lt=1)]]
    link: Literal["identity", "sigmoid"]

    @model_validator(mode="after")
    def _makes_sense(self) -> LabelRecord:
        number = len(self.classes)
        fewest, most = _CLASSES.get(self.problem_type, (0, 0))
        if not fewest <= number <= most or self.problem_type == "multilabel":
            raise ValueError(f"{number} classes are not those of a {self.problem_type} problem")
        if self.levels != sorted(set(self.levels)) or bool(self.levels) != (self.problem_type == "quantile"):
            raise ValueError(f"{len(self.levels)} quantile levels are not those of a {self.problem_type} problem")
        if self.link != "identity" and self.problem_type != "regression":
            raise ValueError(f"the link {self.link!r} is not one of a {self.problem_type} problem")
        if len({(type(label), label) for label in self.classes}) < number or len({type(x) for x in self.classes}) > 1:
            raise ValueError("classes have to be of one type and each there once")
        if self.dtype not in _DTYPES or not _survives(self.classes, self.dtype):
            raise ValueError(f"classes do not have the dtype {self.dtype!r}")
        return self


class SeveralRecord(BaseModel):
    """The `label` of `schema.json` where a row has several, as `SeveralLabels.to_json` gives it."""

    model_config = _STRICT
    problem_type: Literal["multilabel", "regression"]
    names: Annotated[list[int | str], Field(min_length=1, max_length=MOST_LABELS)]
    listed: bool
    parts: list[LabelRecord]

    @property
    def classes(self) -> list[int | str]:
        """Names of the labels; of targets none."""
        return self.names if self.problem_type == "multilabel" else []

    @model_validator(mode="after")
    def _makes_sense(self) -> SeveralRecord:
        if len(self.parts) != len(self.names) or len(set(self.names)) < len(self.names):
            raise ValueError("names have to be there once, and parts as many")
        wanted = "binary" if self.problem_type == "multilabel" else "regression"
        if any(part.problem_type != wanted for part in self.parts):
            raise ValueError(f"the parts of a {self.problem_type} problem have to be {wanted}")
        if wanted == "binary" and any(part.classes != [0, 1] for part in self.parts):
            raise ValueError("the labels of several are not 0 and 1")
        if self.listed and wanted != "binary":
            raise ValueError("targets do not come as lists")
        return self


class DecisionRecord(BaseModel):
    """The `decision` of `schema.json`, as `Decision.to_json` gives it."""

    model_config = _STRICT
    temperature: Annotated[FiniteFloat, Field(gt=0)]
    threshold: Share | list[Share]


class CategoriesRecord(BaseModel):
    """A column of categories, as `Categories`."""

    model_config = _STRICT
    column: str
    boolean: bool
    categories: list[str]

    @model_validator(mode="after")
    def _makes_sense(self) -> CategoriesRecord:
        if len(set(self.categories)) < len(self.categories):
            raise ValueError("a category stands there twice")
        return self


class NumbersRecord(BaseModel):
    """A column of numbers, as `Numbers`."""

    model_config = _STRICT
    column: str
    quantiles: Annotated[list[FiniteFloat], Field(min_length=1)]
    transform: Literal["quantile", "standard"]
    center: FiniteFloat
    scale: Annotated[FiniteFloat, Field(gt=0)]
    indicator: bool
    edges: Annotated[list[FiniteFloat], Field(min_length=2)]

    @model_validator(mode="after")
    def _makes_sense(self) -> NumbersRecord:
        if sorted(self.quantiles) != self.quantiles:
            raise ValueError("quantiles have to rise")
        if any(after <= edge for edge, after in pairwise(self.edges)):
            raise ValueError("edges have to rise")
        return self


class TimesRecord(BaseModel):
    """A column of points in time, as `Times`."""

    model_config = _STRICT
    column: str
    format: Literal[FORMATS] | None  # type: ignore[valid-type]
    linear: NumbersRecord
    cycles: list[Literal["year", "week", "day"]]


class TableRecord(BaseModel):
    """What reads the columns of `ft_transformer`, as `TableProcessor.to_json` gives it."""

    model_config = _STRICT
    categories: list[CategoriesRecord]
    numbers: list[NumbersRecord]
    times: list[TimesRecord]


class ImagesRecord(BaseModel):
    """What reads the columns of `timm_image`, as `ImageProcessor.to_json` gives it."""

    model_config = _STRICT
    types: Annotated[dict[str, Literal[IMAGE_TYPES]], Field(min_length=1)]  # type: ignore[valid-type]
    settings: dict[str, JsonValue]
    patch: Annotated[int, Field(ge=8, le=64)]


class ProcessorsRecord(BaseModel):
    """Fitted processors by the name of their encoder; what a model does not have is left out."""

    model_config = _STRICT
    ft_transformer: TableRecord | None = None
    timm_image: ImagesRecord | None = None

    def states(self) -> dict[str, dict[str, Any]]:
        """What `parts_from_json` takes."""
        records = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: record.model_dump() for name, record in records.items() if record is not None}


class SchemaFile(BaseModel):
    """`schema.json`."""

    model_config = _STRICT
    schema_: Annotated[SchemaRecord, Field(alias="schema")]
    label: LabelRecord | SeveralRecord
    decision: DecisionRecord
    constants: dict[str, str]
    processors: ProcessorsRecord

    @model_validator(mode="after")
    def _agree(self) -> SchemaFile:
        if self.schema_.problem_type != self.label.problem_type:
            raise ValueError("schema and label are of different problem types")
        label, threshold = self.label, self.decision.threshold
        names = label.names if isinstance(label, SeveralRecord) and not label.listed else self.schema_.label
        if names != self.schema_.label or isinstance(self.schema_.label, list) != isinstance(names, list):
            raise ValueError("schema and label name different columns")
        if isinstance(threshold, list) and (label.problem_type != "multilabel" or len(threshold) != len(label.classes)):
            raise ValueError("there are not as many thresholds as labels")
        return self


class Documents(BaseModel):
    """All JSON of an artifact at the present format.

    Attributes:
        config: Settings, checkpoint, metrics.
        schema_file: Columns and label.
        summary: What training came to.
        checksums: sha256 of every file that predictions depend on, by its path in the artifact.
    """

    model_config = _STRICT
    config: ConfigRecord
    schema_file: SchemaFile
    summary: dict[str, JsonValue]
    checksums: dict[str, Digest]


def read_documents(state: dict[str, Any], folder: Path) -> Documents:
    """The records of an artifact's JSON.

    Args:
        state: By attribute of `Documents`, at the present format.
        folder: Where it is from, for messages.

    Raises:
        ArtifactError: Anything missing, unknown, of another type or out of range.
    """
    try:
        return Documents.model_validate(state)
    except ValidationError as error:
        problems = [_told(problem) for problem in error.errors(include_url=False, include_input=False)]
    more = f" and {len(problems) - MOST_SHOWN} more" if len(problems) > MOST_SHOWN else ""
    raise ArtifactError(f"The artifact at {folder} is damaged: {'; '.join(problems[:MOST_SHOWN])}{more}.")


def _told(problem: Any) -> str:
    place = ".".join(str(part)[:80] for part in problem["loc"])
    return f"{place}: {problem['msg']}"


def _survives(classes: list[Any], dtype: str) -> bool:
    """Whether the classes are the same after a way through an array of this type."""
    try:
        array = np.array(classes, dtype=dtype)
    except (ValueError, OverflowError, TypeError):
        return False
    back = array.tolist()
    return array.ndim == 1 and back == classes and list(map(type, back)) == list(map(type, classes))
