"""Several label columns, or one of lists of labels, go in; an array with a column for each label comes out, and the way back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from featherfit.data.labels import kind_of
from featherfit.data.messages import count, some
from featherfit.data.processors.label import LabelProcessor, logits_of
from featherfit.errors import DataError, did_you_mean
from featherfit.types import ProblemType

MOST_LABELS = 10_000
"""Different labels that a column of lists may hold."""


@dataclass(frozen=True, eq=False)
class SeveralLabels:
    """Turns the labels of rows that have several into numbers, and back; K labels or targets.

    Build it with `SeveralLabels.fit(...)`.

    Attributes:
        problem_type: `multilabel`, or `regression` of several targets.
        names: Of the label columns, or the different labels of a column of lists, in the order of the outputs.
        parts: What each of them is by itself: a binary problem, or a target.
        listed: Whether they come as one column of lists.
    """

    problem_type: ProblemType
    names: list[Any]
    parts: tuple[LabelProcessor, ...]
    listed: bool = False
    levels: tuple[float, ...] = ()

    @classmethod
    def fit(
        cls,
        labels: pd.DataFrame | pd.Series,
        problem_type: ProblemType,
        numerical_preprocessing: str | None = "standardscaler",
        link: str = "identity",
    ) -> SeveralLabels:
        """Learns the labels there are, or each target's scale.

        Args:
            labels: The label columns, (rows, K), or a column of lists.
            problem_type: From the schema.
            numerical_preprocessing: Scaling of targets, as for `LabelProcessor.fit`.
            link: As the loss has it.

        Raises:
            DataError: Values that are missing or cannot be labels.
            ConfigError: An unknown scaling, or one that does not suit the link.
        """
        if isinstance(labels, pd.Series):
            names = listed_labels(labels)
            return cls(problem_type, names, (LabelProcessor("binary", np.array([False, True])),) * len(names), True)
        columns = [labels[name] for name in labels.columns]
        if problem_type == "multilabel":
            parts = [LabelProcessor("binary", _flag_classes(column)) for column in columns]
        else:
            parts = [
                LabelProcessor.fit(column, problem_type, None, numerical_preprocessing, link=link) for column in columns
            ]
        return cls(problem_type, list(labels.columns), tuple(parts))

    @property
    def link(self) -> str:
        """How outputs become scaled targets."""
        return self.parts[0].link

    @property
    def numeric(self) -> bool:
        """Whether these are numbers rather than labels that a row has or has not."""
        return self.problem_type == "regression"

    @property
    def outputs(self) -> int:
        """Width of the head: one for each."""
        return len(self.names)

    @property
    def classes(self) -> np.ndarray:
        """Names of the labels, (K,); of targets none."""
        return np.array([] if self.numeric else self.names, dtype=object)

    @property
    def positive_class(self) -> None:
        """There is none."""
        return None

    def encode(self, labels: pd.DataFrame | pd.Series) -> np.ndarray:
        """Which labels rows have, as 0 and 1, or scaled targets, (rows, K) float32.

        Raises:
            DataError: Missing labels, labels training has not seen, or targets that are not finite numbers.
        """
        if self.listed:
            return self._encode_lists(labels)
        columns = [part.encode(labels[name]) for name, part in self._columns(labels)]
        return np.stack(columns, axis=1).astype(np.float32)

    def _columns(self, labels: pd.DataFrame) -> list[tuple[str, LabelProcessor]]:
        """Columns stand for the labels by their order, whatever they are called."""
        return list(zip(labels.columns, self.parts, strict=True))

    def _encode_lists(self, column: pd.Series) -> np.ndarray:
        places = {name: place for place, name in enumerate(self.names)}
        flags = np.zeros((len(column), len(places)), dtype=np.float32)
        unknown: Counter[Any] = Counter()
        for row, value in enumerate(read_lists(column)):
            for label in value:
                if label in places:
                    flags[row, places[label]] = 1
                else:
                    unknown[label] += 1
        if unknown:
            listed = ", ".join(f"{label!r} ({count(times, 'row')})" for label, times in unknown.most_common(8))
            raise DataError(
                f"Label column {column.name!r} has {count(len(unknown), 'label')} that training has not seen: {listed}."
                f"{did_you_mean(str(next(iter(unknown))), map(str, self.names))} Known: {some(self.names, 20)}."
            )
        return flags

    def unusable(self, labels: pd.DataFrame | pd.Series) -> dict[int, str]:
        """What is wrong with the labels that `encode` refuses, by position; the first fault of each row."""
        if self.listed:
            return self._unusable_lists(labels)
        found: dict[int, str] = {}
        for name, part in self._columns(labels):
            for place, why in part.unusable(labels[name]).items():
                found.setdefault(place, f"{name}: {why}")
        return found

    def _unusable_lists(self, column: pd.Series) -> dict[int, str]:
        known, found = set(self.names), {}
        for place, value in enumerate(column.tolist()):
            if not _is_list(value):
                found[place] = "no list of labels"
                continue
            odd = [item for item in value if kind_of(type(item)) is None or item not in known]
            if odd:
                found[place] = f"label {str(odd[0])[:60]!r}, which training has not seen"
        return found

    def decode(self, flags: np.ndarray) -> np.ndarray:
        """Labels as the columns had them of 0 and 1 (rows, K): in their common dtype, or as objects."""
        columns = [part.decode(flags[:, place]) for place, part in enumerate(self.parts)]
        dtypes = {column.dtype for column in columns}
        return np.stack(columns, axis=1) if len(dtypes) == 1 else np.stack([c.astype(object) for c in columns], axis=1)

    def values(self, outputs: np.ndarray) -> np.ndarray:
        """Predicted numbers in each target's own unit, (rows, K) float64, of a model's outputs (rows, K)."""
        return np.stack([part.values(outputs[:, [place]]) for place, part in enumerate(self.parts)], axis=1)

    def inverse_scale(self, values: np.ndarray) -> np.ndarray:
        """Targets in their own units, (rows, K) float64, of scaled ones."""
        return np.stack([part.inverse_scale(values[:, place]) for place, part in enumerate(self.parts)], axis=1)

    def outputs_for(self, scaled: np.ndarray) -> np.ndarray:
        """The outputs that stand for these scaled targets or shares of labels, (..., K)."""
        return self.parts[0].outputs_for(scaled) if self.numeric else logits_of(scaled, 1e-7)

    def to_json(self) -> dict[str, Any]:
        """The state as JSON values; floats survive exactly."""
        return {
            "problem_type": self.problem_type,
            "names": self.names,
            "listed": self.listed,
            "parts": [part.to_json() for part in self.parts],
        }

    @classmethod
    def from_json(cls, state: Mapping[str, Any]) -> SeveralLabels:
        """What `to_json` gave."""
        parts = tuple(LabelProcessor.from_json(part) for part in state["parts"])
        return cls(state["problem_type"], list(state["names"]), parts, state["listed"])


Target: TypeAlias = LabelProcessor | SeveralLabels
"""What turns labels into numbers and back."""


def target_from_json(state: Mapping[str, Any]) -> Target:
    """What `to_json` of either gave."""
    return SeveralLabels.from_json(state) if "parts" in state else LabelProcessor.from_json(state)


def listed_labels(column: pd.Series) -> list[Any]:
    """The different labels of a column of lists, sorted.

    Raises:
        DataError: Cells that are no lists, labels of several kinds, or none.
    """
    found = {label for value in read_lists(column) for label in value}
    kinds = {kind_of(type(label)) for label in found}
    if not found:
        raise DataError(f"Label column {column.name!r} has no label in any row, so there is nothing to learn from it.")
    if len(kinds) > 1 or not kinds <= {"text", "integer"}:
        raise DataError(
            f"Label column {column.name!r} has lists of {', '.join(sorted({type(label).__name__ for label in found}))}. "
            "Labels in lists have to be text, or whole numbers, and all of one type."
        )
    if len(found) > MOST_LABELS:
        raise DataError(
            f"Label column {column.name!r} has {len(found)} different labels, and at most {MOST_LABELS} are offered."
        )
    return sorted(label.item() if hasattr(label, "item") else label for label in found)


def read_lists(column: pd.Series) -> list[list[Any]]:
    """The labels of every row of a column of lists, tuples, sets or arrays; a row may have none, `[]`.

    Raises:
        DataError: Other cells, missing ones too.
    """
    values = column.tolist()
    odd = [place for place, value in enumerate(values) if not _is_list(value)]
    if odd:
        example = values[odd[0]]
        hint = " A row without labels has an empty list." if example is None or example != example else ""
        raise DataError(
            f"Label column {column.name!r} is to hold lists of labels, and does not in {count(len(odd), 'row')} (index "
            f"{some(column.index[odd])}; {str(example)[:60]!r}).{hint} For a column of 0 and 1 for each label give "
            "label=['one', 'other']."
        )
    bad = [place for place, value in enumerate(values) for label in value if kind_of(type(label)) is None]
    if bad:
        raise DataError(
            f"Label column {column.name!r} has lists with values that are no labels in {count(len(set(bad)), 'row')} (index "
            f"{some(column.index[list(dict.fromkeys(bad))])})."
        )
    return [list(value) for value in values]


def unlearnable_lists(column: pd.Series) -> dict[int, str]:
    """What is wrong with cells that are no lists of labels, by position."""
    found = {}
    for place, value in enumerate(column.tolist()):
        if not _is_list(value):
            found[place] = "no list of labels"
        elif any(kind_of(type(label)) is None for label in value):
            found[place] = "a list with values that are no labels"
    return found


def unlearnable_flags(column: pd.Series) -> dict[int, str]:
    """What is wrong with cells that are not 0 or 1, by position."""
    missing = column.isna().tolist()
    return {
        place: "no label" if gone else f"{str(value)[:60]!r} is neither 0 nor 1"
        for place, (value, gone) in enumerate(zip(column.tolist(), missing, strict=True))
        if not _is_flag(value)
    }


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple | set | frozenset) or (isinstance(value, np.ndarray) and value.ndim == 1)


def _flag_classes(column: pd.Series) -> np.ndarray:
    """The two classes of a column of 0 and 1, in its own type."""
    problem = flag_problem(column)
    if problem:
        raise DataError(problem)
    own = getattr(column.dtype, "numpy_dtype", column.dtype)
    if isinstance(own, np.dtype) and own.kind in "biuf":
        return np.array([0, 1], dtype=own)
    kinds = {type(value) for value in column.tolist()}
    return np.array([False, True]) if all(issubclass(kind, bool | np.bool_) for kind in kinds) else np.array([0, 1])


def flag_problem(column: pd.Series) -> str | None:
    """Why a column is not one of 0 and 1, or of true and false; None if it is. A missing value is neither."""
    values = column.tolist()
    odd = [place for place, value in enumerate(values) if not _is_flag(value)]
    if not odd:
        return None
    missing = column.isna().to_numpy()
    what = "no value" if missing[odd].all() else f"other values ({some(dict.fromkeys(str(values[at]) for at in odd))})"
    return (
        f"Label column {column.name!r} has to hold 0 and 1, or true and false, and has {what} in {count(len(odd), 'row')} "
        f"(index {some(column.index[odd])})."
    )


def _is_flag(value: Any) -> bool:
    return kind_of(type(value)) in ("boolean", "integer", "float") and value in (0, 1)
