"""A `Fitted` goes in; what its owner can say about it comes out, as read-only properties."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featherfit.errors import NotFittedError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from featherfit.artifact.fitted import Fitted
    from featherfit.data.findings import DataReport
    from featherfit.types import ModelSize


class FittedFacts:
    """The properties of a predictor: those its `Fitted` decides, and what its constructor was told.

    Raises:
        NotFittedError: By each of them that needs one, while there is none.
    """

    _fitted: Fitted | None = None
    _faster: Fitted | None = None
    _label: str | list[str] | None = None
    _path: Path | None = None
    _verbosity: int = 2
    _problem_type: str | None = None
    _rejected: pd.DataFrame | None = None
    _eval_metric: Any = None
    _quantile_levels: list[float] | None = None
    _sample_weight: str | None = None
    _weight_evaluation: bool = False
    _validation_metric: Any = None

    def set_verbosity(self, verbosity: int) -> None:
        """Sets how much is told: 0 silent, 1 warnings, 2 progress, 3 more, 4 everything."""
        self._verbosity = verbosity

    @property
    def path(self) -> str | None:
        """Folder of the artifact."""
        return None if self._path is None else str(self._path)

    @property
    def label(self) -> str | list[str] | None:
        """Column that is predicted, or a list of several."""
        return self._label

    @property
    def verbosity(self) -> int:
        """How much is told."""
        return self._verbosity

    @property
    def problem_type(self) -> str | None:
        """`binary`, `multiclass`, `regression`, `quantile` or `multilabel`; before `fit` what the constructor was given."""
        return self._problem_type if self._fitted is None else self._fitted.label.problem_type

    @property
    def eval_metric(self) -> Any:
        """Metric of `evaluate`."""
        return self._eval_metric if self._fitted is None else self._fitted.eval_metric

    @property
    def validation_metric(self) -> Any:
        """Metric that chooses the weights."""
        return self._validation_metric if self._fitted is None else self._fitted.validation_metric

    @property
    def column_types(self) -> dict[str, str]:
        """Type of every column, the label's included."""
        schema = self._require().schema
        kind = "numerical" if self._require().label.numeric else "categorical"
        return {**schema.columns, **dict.fromkeys(schema.label_columns, kind)}

    def explain_schema(self) -> pd.DataFrame:
        """What every column of the training table was taken for: `column`, `type`, `because`, and `read_by`, the encoder that
        reads it; empty where none does.
        """
        fitted = self._require()
        table = fitted.schema.to_frame()
        readers = {name: "hf_text" for name in fitted.text.columns}
        readers |= {name: encoder for encoder, part in fitted.parts.items() for name in part.columns}
        return table.assign(read_by=[readers.get(name, "") for name in table["column"]])

    @property
    def rejected_rows(self) -> pd.DataFrame:
        """Cells that kept rows from being processed in the last call with `on_error="report"`: `position` in the table from
        0, `index` label, `column`, `reason`, and after `fit` which `table`. At most 10,000 of a table; empty where there
        were none.
        """
        from featherfit.data.rows import no_rejections

        return no_rejections() if self._rejected is None else self._rejected.copy()

    @property
    def data_report(self) -> DataReport | None:
        """What the last `fit` found in its rows: leaks, duplicates, conflicting labels, tiny classes and more. It is not
        saved, so it is None after `load`.
        """
        return self._require().data_report

    @property
    def class_labels(self) -> np.ndarray | None:
        """The labels in the order of `predict_proba`'s columns; None, with a warning, for numbers."""
        if self._require().label.numeric:
            warnings.warn(f"A {self.problem_type} predictor has no class labels.", stacklevel=2)
            return None
        return self._require().label.classes

    @property
    def positive_class(self) -> Any:
        """The label a binary metric counts as positive; None, with a warning, for other problems."""
        if self._require().label.problem_type != "binary":
            warnings.warn("Only a binary predictor has a positive class.", stacklevel=2)
        return self._require().label.positive_class

    @property
    def temperature(self) -> float:
        """What logits are divided by before they become probabilities; 1 where nothing was calibrated."""
        return self._require().decision.temperature

    @property
    def threshold(self) -> float | dict[Any, float]:
        """Probability above which a binary predictor predicts the positive class, or one of several labels a label; by label
        where they differ.
        """
        threshold = self._require().decision.threshold
        if not isinstance(threshold, tuple):
            return threshold
        return dict(zip(self._require().label.classes.tolist(), threshold, strict=True))

    @property
    def quantile_levels(self) -> list[float] | None:
        """The levels of the quantiles predicted; None for other problems, and before `fit` what the constructor was given."""
        return self._quantile_levels if self._fitted is None else list(self._fitted.label.levels) or None

    @property
    def sample_weight(self) -> str | None:
        """Column of the weights of rows."""
        return self._sample_weight if self._fitted is None else self._fitted.schema.sample_weight

    @property
    def total_parameters(self) -> int:
        """Number of parameters of encoder, adapters and head."""
        return self._size().total

    @property
    def trainable_parameters(self) -> int:
        """Number of those that train."""
        return self._size().trainable

    @property
    def model_size(self) -> float:
        """Megabytes (1e6 bytes) of all parameters."""
        return self._size().megabytes

    def _size(self) -> ModelSize:
        from featherfit.models.build import model_size

        return model_size(self._require().model)

    def _serving(self) -> Fitted:
        """What predicts: a faster form of the fitted predictor where there is one."""
        return self._faster or self._whole()

    def _whole(self) -> Fitted:
        """The fitted predictor with all its weights: read again where training had spread them over several processes."""
        fitted = self._require()
        if fitted.device.ranks.sharded and self._path is not None:
            from featherfit.artifact.store import load_artifact

            fitted = self._fitted = load_artifact(self._path)
        return fitted

    def _require(self) -> Fitted:
        if self._fitted is None:
            raise NotFittedError("This predictor is not fitted yet. Call fit first, or MultiModalPredictor.load(path).")
        return self._fitted
