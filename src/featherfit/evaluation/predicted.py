"""What was predicted for rows, beside what is true of them, in the forms metrics want."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np


@dataclass(frozen=True)
class Predicted:
    """Rows, and what was predicted for them; n rows, K labels or targets of a row that has several.

    Attributes:
        true: Class ids, or numbers in the label's unit, (n,); of several (n, K).
        ids: Predicted class ids, (n,), or whether a row has each label, (n, K); None for numbers.
        proba: Probabilities, (n, C) of classes or (n, K) of labels; None for numbers.
        values: Predicted numbers, (n,), (n, K), or (n, Q) of quantile levels; None for classes.
        weights: Weight of each row, (n,); None where all weigh the same.
        levels: Quantile levels, Q of them.
    """

    true: np.ndarray
    ids: np.ndarray | None = None
    proba: np.ndarray | None = None
    values: np.ndarray | None = None
    weights: np.ndarray | None = None
    levels: tuple[float, ...] = ()

    def __len__(self) -> int:
        return len(self.true)

    @property
    def several(self) -> bool:
        """Whether rows have several labels or targets."""
        return self.true.ndim == 2

    def given(self, form: str) -> np.ndarray:
        """`ids`, `proba` or `values`, which has to be there."""
        found = getattr(self, form)
        assert found is not None
        return found

    def at(self, rows: np.ndarray) -> Predicted:
        """Some of the rows, by positions or a mask."""
        held = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: part[rows] for name, part in held.items() if isinstance(part, np.ndarray)})

    def parts(self) -> list[Predicted]:
        """Each label of several as a binary problem, each target of several as regression."""
        return [self._part(place) for place in range(self.true.shape[1])]

    def _part(self, place: int) -> Predicted:
        true = self.true[:, place]
        if self.values is not None:
            return Predicted(true, values=self.values[:, place], weights=self.weights)
        return Predicted(true, self.given("ids")[:, place], _both(self.given("proba")[:, place]), weights=self.weights)

    def cells(self) -> Predicted:
        """All labels of all rows as one binary problem of n * K rows, a row's next to each other."""
        weights = None if self.weights is None else np.repeat(self.weights, self.true.shape[1])
        proba = _both(self.given("proba").ravel())
        return Predicted(self.true.ravel(), self.given("ids").ravel(), proba, weights=weights)


def _both(proba: np.ndarray) -> np.ndarray:
    """Probabilities of the absence and the presence of a label, (n, 2)."""
    return np.stack([1 - proba, proba], axis=1)
