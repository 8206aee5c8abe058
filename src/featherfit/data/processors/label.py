"""The label column goes in; class ids or scaled targets come out, and the way back. Its state is JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from featherfit.data.labels import Labels, as_numbers, kind_of, missing_problem, read_labels, unknown_pos_label
from featherfit.data.messages import count, some
from featherfit.data.problem_type import contradiction
from featherfit.errors import ConfigError, DataError
from featherfit.types import NUMBERS, ProblemType


@dataclass(frozen=True, eq=False)
class LabelProcessor:
    """Turns labels into numbers to train on and predictions back into labels.

    Build it with `LabelProcessor.fit(...)`.

    Attributes:
        problem_type: What the label is.
        classes: The original labels in id order, (C,): sorted, but a `pos_label` has id 1. Empty for numbers.
        center, scale: A target y is trained on as (y - center) / scale.
        levels: Quantile levels, ascending; of other problems none.
        link: How outputs become scaled targets: `identity`, or `sigmoid` for targets that the loss takes for probabilities.
    """

    problem_type: ProblemType
    classes: np.ndarray = field(default_factory=lambda: np.array([], dtype=object))
    center: float = 0.0
    scale: float = 1.0
    levels: tuple[float, ...] = ()
    link: str = "identity"

    @classmethod
    def fit(
        cls,
        column: pd.Series,
        problem_type: ProblemType,
        pos_label: Any = None,
        numerical_preprocessing: str | None = "standardscaler",
        levels: tuple[float, ...] = (),
        link: str = "identity",
    ) -> LabelProcessor:
        """Learns classes or scale from a training label column.

        Args:
            column: The labels; none may be missing.
            problem_type: From the schema.
            pos_label: Class of a binary problem that gets id 1; default: the second in sorted order.
            numerical_preprocessing: Scaling of a regression target: `standardscaler` (mean 0, standard deviation 1),
                `minmaxscaler` (0 to 1) or None.
            levels: Quantile levels.
            link: As the loss has it.

        Raises:
            DataError: Missing, mixed, constant or infinite labels, or an unknown `pos_label`.
            ConfigError: `pos_label` for a problem that is not binary, an unknown scaling, or one that does not suit the link.
        """
        labels = _complete(column)
        problem = contradiction(str(column.name), labels, problem_type, f"problem_type is {problem_type!r}")
        if problem:
            raise DataError(problem)
        if pos_label is not None and problem_type != "binary":
            raise ConfigError(
                f"data.pos_label={pos_label!r} is for binary problems, and this one is {problem_type}. Leave it out."
            )
        if problem_type in NUMBERS:
            numbers = as_numbers(labels)
            center, scale = _scaling(numbers, numerical_preprocessing)
            if link == "sigmoid":
                _check_probabilities((numbers - center) / scale)
            return cls(problem_type, center=center, scale=scale, levels=levels, link=link)
        ordered = sorted(set(labels.values))
        if pos_label is not None:
            if pos_label not in ordered:
                raise DataError(unknown_pos_label(pos_label, ordered))
            ordered = sorted(ordered, key=lambda label: label == pos_label)
        try:
            classes = np.array(ordered, dtype=_class_dtype(column.dtype, labels.kind))
        except OverflowError as error:
            raise DataError(
                f"Label column {column.name!r} has integers beyond 64 bits. Make them text: .astype(str)."
            ) from error
        return cls(problem_type, classes)

    @property
    def numeric(self) -> bool:
        """Whether labels are numbers rather than classes."""
        return self.problem_type in NUMBERS

    @property
    def outputs(self) -> int:
        """Width of the head: one for each class or quantile level, or one for regression."""
        return max(1, len(self.levels)) if self.numeric else len(self.classes)

    @property
    def names(self) -> list[Any] | None:
        """What a row's predictions are called where it has several: the quantile levels; else None."""
        return list(self.levels) or None

    @property
    def positive_class(self) -> Any:
        """The label with id 1 of a binary problem, as Python writes it; None otherwise."""
        return self.classes.tolist()[1] if self.problem_type == "binary" else None

    @cached_property
    def _ids(self) -> dict[Any, int]:
        return {label: position for position, label in enumerate(self.classes.tolist())}

    def encode(self, column: pd.Series) -> np.ndarray:
        """Class ids (rows,) int64, or scaled targets (rows,) float32.

        Raises:
            DataError: Missing labels, labels training has not seen, or targets that are not finite numbers.
        """
        labels = _complete(column)
        if self.numeric:
            numbers = as_numbers(labels)
            bad = ~np.isfinite(numbers)
            if bad.any():
                values = list(dict.fromkeys(value for value, wrong in zip(labels.values, bad, strict=True) if wrong))
                raise DataError(
                    f"Label column {column.name!r} is not a finite number in {count(int(bad.sum()), 'row')} "
                    f"(index {some(labels.index[bad])}; values {some(values)})."
                )
            return ((numbers - self.center) / self.scale).astype(np.float32)
        ids = np.array([self._ids.get(value, -1) for value in labels.values], dtype=np.int64)
        if (ids < 0).any():
            raise DataError(self._unknown(str(column.name), labels, ids < 0))
        return ids

    def unusable(self, column: pd.Series) -> dict[int, str]:
        """What is wrong with the labels that `encode` refuses, by position."""
        kinds = Counter(_kind_or_number(value) for value in column[column.notna()].tolist())
        known = {_kind_or_number(label) for label in self.classes.tolist()} or {
            kind
            for kind, _ in kinds.most_common(1)  # numbers may be written as text, but all of them or none
        }
        found = {}
        for position, (value, absent) in enumerate(zip(column.tolist(), column.isna(), strict=True)):
            kind = kind_of(type(value))
            if absent:
                found[position] = "no label"
            elif kind is None:
                found[position] = f"{type(value).__name__} is no label"
            elif _kind_or_number(value) not in known:
                found[position] = f"{str(value)[:60]!r} is a label of another type"
            elif self.numeric:
                number = as_numbers(Labels([value], kind, column.index[:1], column.index[:0]))[0]
                if not np.isfinite(number):
                    found[position] = f"{str(value)[:60]!r} is not a finite number"
            elif value not in self._ids:
                found[position] = f"label {str(value)[:60]!r}, which training has not seen"
        return found

    def _unknown(self, name: str, labels: Labels, unknown: np.ndarray) -> str:
        counts = Counter(value for value, bad in zip(labels.values, unknown, strict=True) if bad)
        listed = ", ".join(f"{value!r} ({count(times, 'row')})" for value, times in counts.most_common())
        known = self.classes.tolist()
        hint = ""
        if all(str(value) in set(map(str, known)) for value in counts):
            hint = " They differ in type only: give the label the type it had in training."
        return (
            f"Label column {name!r} has {count(len(counts), 'label')} that training has not seen: {listed}; "
            f"index {some(labels.index[unknown])}. Known: {', '.join(map(repr, known))}.{hint}"
        )

    def decode(self, ids: np.ndarray) -> np.ndarray:
        """Original labels of class ids, any shape, in the dtype they had (text as objects)."""
        return self.classes[np.asarray(ids)]

    def inverse_scale(self, values: np.ndarray) -> np.ndarray:
        """Targets in the label's own unit, float64, of scaled predictions of any shape."""
        return np.asarray(values, dtype=np.float64) * self.scale + self.center

    def values(self, outputs: np.ndarray) -> np.ndarray:
        """Predicted numbers in the label's own unit, float64, of a model's outputs.

        Args:
            outputs: (rows, 1), or (rows, Q) for quantile levels.

        Returns:
            (rows,), or (rows, Q): ascending in each row, so that no quantile crosses another (Chernozhukov, Fernandez-Val
            and Galichon, Econometrica 78, 2010).
        """
        numbers = np.asarray(outputs, dtype=np.float64)
        if self.link == "sigmoid":
            from scipy.special import expit

            numbers = expit(numbers)
        return self.inverse_scale(np.sort(numbers, axis=1) if self.levels else numbers[:, 0])

    def outputs_for(self, scaled: np.ndarray) -> np.ndarray:
        """The outputs that stand for these scaled targets, of any shape; a sigmoid's ends are out of reach by a thousandth."""
        return logits_of(scaled, 1e-3) if self.link == "sigmoid" else scaled

    def to_json(self) -> dict[str, Any]:
        """The state as JSON values; floats survive exactly."""
        return {
            "problem_type": self.problem_type,
            "classes": self.classes.tolist(),
            "dtype": self.classes.dtype.name,
            "center": self.center,
            "scale": self.scale,
            "levels": list(self.levels),
            "link": self.link,
        }

    @classmethod
    def from_json(cls, state: Mapping[str, Any]) -> LabelProcessor:
        """What `to_json` gave."""
        classes = np.array(state["classes"], dtype=state["dtype"])
        scaling = state["center"], state["scale"]
        return cls(state["problem_type"], classes, *scaling, tuple(state["levels"]), state["link"])


def logits_of(shares: np.ndarray, least: float) -> np.ndarray:
    """What a sigmoid makes these probabilities of, none of them nearer to 0 or 1 than `least`."""
    from scipy.special import logit

    return logit(np.clip(np.asarray(shares, dtype=np.float64), least, 1 - least))


def _kind_or_number(value: Any) -> str | None:
    """What a label is, whole numbers and fractions alike."""
    kind = kind_of(type(value))
    return "number" if kind in ("integer", "float") else kind


def _complete(column: pd.Series) -> Labels:
    labels = read_labels(column)
    if len(labels.missing):
        raise DataError(missing_problem(str(column.name), labels))
    return labels


def _scaling(numbers: np.ndarray, method: str | None) -> tuple[float, float]:
    """`(center, scale)` of a target; the standard deviation is the population's, as in scikit-learn."""
    if method == "standardscaler":
        with np.errstate(over="ignore", invalid="ignore"):  # checked below
            center, scale = float(numbers.mean()), float(numbers.std())
    elif method == "minmaxscaler":
        with np.errstate(over="ignore"):
            center, scale = float(numbers.min()), float(np.ptp(numbers))
    elif method is None:
        center, scale = 0.0, 1.0
    else:
        raise ConfigError(
            f"data.label.numerical_preprocessing={method!r} is unknown. Allowed: standardscaler, minmaxscaler, null."
        )
    if not (np.isfinite(center) and np.isfinite(scale) and scale > 0):
        raise DataError(
            f"The label cannot be scaled: its numbers reach from {numbers.min()} to {numbers.max()}, beyond float64's "
            "precision. Give it in another unit."
        )
    return center, scale


def _check_probabilities(scaled: np.ndarray) -> None:
    if scaled.min() < 0 or scaled.max() > 1:
        raise ConfigError(
            f"optim.loss_func='bcewithlogitsloss' takes targets from 0 to 1, and they are trained on from {scaled.min():g} to "
            f"{scaled.max():g}. Set data.label.numerical_preprocessing=minmaxscaler."
        )


def _class_dtype(dtype: Any, kind: str) -> np.dtype:
    """NumPy dtype in which classes come back: the column's own where NumPy has it, else Python's."""
    if isinstance(dtype, pd.CategoricalDtype):
        dtype = dtype.categories.dtype
    own = getattr(dtype, "numpy_dtype", dtype)
    kinds = {"boolean": "b", "integer": "iu", "float": "f", "text": ""}[kind]
    if isinstance(own, np.dtype) and own.kind in kinds and kinds:
        return own
    return np.dtype({"boolean": np.bool_, "integer": np.int64, "float": np.float64, "text": object}[kind])
