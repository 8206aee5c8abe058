"""Rows go in; scores, predictions and embeddings come out: the methods of a predictor that take them.

Nothing heavy is imported before one of them is called.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featherfit.config.arguments import refuse_unsupported
from featherfit.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from featherfit.artifact.fitted import Fitted
    from featherfit.data.rows import Screened
    from featherfit.inference.optimize import Optimized
    from featherfit.inference.stream import PredictedFile
    from featherfit.report import Reporter


class Serving:
    """What a fitted predictor does with rows; stands beside `FittedFacts`, which says what it has.

    Raises:
        NotFittedError: By each of its methods, while there is nothing fitted.
    """

    _faster: Fitted | None = None
    _rejected: pd.DataFrame | None = None
    if TYPE_CHECKING:  # the other side of the predictor has them
        _require: Callable[[], Fitted]
        _serving: Callable[[], Fitted]
        _whole: Callable[[], Fitted]
        _reporter: Callable[[], Reporter]

    def evaluate(
        self, data: Any, query_data: Any = None, response_data: Any = None, id_mappings: Any = None,
        metrics: Any = None, chunk_size: int = 1024, similarity_type: str = "cosine",
        cutoffs: list[int] | None = None, label: str | None = None, return_pred: bool = False,
        realtime: bool | None = False, eval_tool: Any = None, predictions: Any = None, labels: Any = None,
        *, on_error: str = "raise",
    ) -> Any:  # fmt: skip
        """Scores the predictor on a table with labels.

        Args:
            data: As for `fit`, with the label column.
            metrics: A metric's name or a list of them; default `eval_metric`.
            label: Column of the true labels, if it is called otherwise in this table.
            return_pred: Return the predictions too.
            realtime: Of no consequence: the one way to predict has no start-up.
            on_error: As for `predict`; a label that is missing or unknown keeps a row from being scored too.

        Returns:
            `{metric: float}`, errors positive; with `return_pred` a pair of it and the predictions.
        """
        refuse_unsupported("evaluate", locals())
        from featherfit.inference.predict import evaluate
        from featherfit.inference.tables import as_series

        fitted = self._serving()
        rows = self._rows(data, on_error, fitted.schema.label if label is None else label)
        with self._reporter().prediction_progress(len(rows.frame)) as progress:
            scores, predictions = evaluate(fitted, rows.frame, metrics, label, progress)
        return (scores, as_series(rows.spread(predictions), rows.table, fitted.schema.label)) if return_pred else scores

    def predict(
        self, data: Any, candidate_data: Any = None, id_mappings: Any = None, as_pandas: bool | None = None,
        realtime: bool | None = False, save_results: bool | None = None, *, on_error: str = "raise",
    ) -> pd.Series | np.ndarray:  # fmt: skip
        """Predicts the label of every row, in the type it had in training.

        Args:
            data: DataFrame, dict, list of dicts, dataset or path; the label column is not needed.
            as_pandas: A Series with the table's index, or an array; default: a Series for a DataFrame.
            realtime: Of no consequence: the one way to predict has no start-up.
            on_error: `raise` names the first row that cannot be processed; `report` sets such rows aside: their results are
                missing (NaN, None or NA) and `rejected_rows` lists them.

        Raises:
            DataError: A table that cannot be used, or, with `raise`, a row.
        """
        refuse_unsupported("predict", locals())
        from featherfit.inference.predict import labels_of
        from featherfit.inference.tables import as_series, wants_pandas

        rows, logits = self._table_outputs(data, on_error=on_error)
        predictions = rows.spread(labels_of(self._require(), logits))
        if not wants_pandas(data, as_pandas):
            return predictions
        return as_series(predictions, rows.table, self._require().schema.label)

    def predict_proba(
        self, data: Any, candidate_data: Any = None, id_mappings: Any = None, as_pandas: bool | None = None,
        as_multiclass: bool = True, realtime: bool | None = False, *, on_error: str = "raise",
    ) -> pd.DataFrame | pd.Series | np.ndarray:  # fmt: skip
        """Predicts the probability of every class.

        Args:
            data: As for `predict`.
            as_pandas: As for `predict`; columns are the class labels.
            as_multiclass: False gives the positive class's probability alone, for binary problems.
            realtime: Of no consequence: the one way to predict has no start-up.
            on_error: As for `predict`.

        Raises:
            ConfigError: The problem is regression, or `as_multiclass=False` for more than two classes.
        """
        refuse_unsupported("predict_proba", locals())
        from featherfit.evaluation.outputs import probabilities
        from featherfit.inference.tables import probability_table

        label = self._require().label
        if label.problem_type == "regression":
            raise ConfigError("predict_proba is for classification, and this predictor does regression. Use predict.")
        if not as_multiclass and label.problem_type != "binary":
            raise ConfigError(f"as_multiclass=False is for binary problems; there are {len(label.classes)} classes.")
        rows, logits = self._table_outputs(data, on_error=on_error)
        proba = rows.spread(probabilities(logits))
        return probability_table(proba, data, rows.table, label, as_pandas, as_multiclass)

    def predict_file(
        self, source: str | Path, target: str | Path, *, proba: bool = False, keep_columns: str | Sequence[str] = (),
        chunk_rows: int = 20_000, overwrite: bool = False, on_error: str = "raise",
    ) -> PredictedFile:  # fmt: skip
        """Predicts a file of any size into another one, in the memory of one chunk of its rows.

        `target` appears when all rows are done, and not at all if something goes wrong. Labels are those of `predict`;
        probabilities differ from `predict_proba`'s by rounding only.

        Args:
            source: A CSV, TSV, Parquet or JSON-lines file. Messages name rows by their position in it, from 0.
            target: A `.csv`, `.tsv`, `.parquet` or `.jsonl` file; its columns are the kept ones, the label, and with
                `proba` one named `proba_<class>` for every class.
            proba: Write the probability of every class too.
            keep_columns: Columns of `source` to copy, such as an id.
            chunk_rows: Rows in memory at a time.
            overwrite: Replace `target` if it is there.
            on_error: As for `predict`.

        Raises:
            ConfigError: Arguments or paths that do not fit.
            PathExistsError: `target` is there.
            DataError: A file, columns or rows that cannot be used.
        """
        from featherfit.inference.stream import predict_file

        done, rejected = predict_file(
            self._serving(), source, target, proba=proba, keep_columns=keep_columns, chunk_rows=chunk_rows,
            overwrite=overwrite, progress=self._reporter().prediction_progress, on_error=on_error,
        )  # fmt: skip
        self._rejected = rejected if on_error == "report" else self._rejected
        return done

    def optimize_for_inference(
        self, providers: Any = None, *, precision: str | None = "int8", data: Any = None, max_loss: float = 0.003
    ) -> Optimized | None:
        """Makes prediction faster in this process, if it stays as good; `save` and `fit` keep the trained model.

        Args:
            precision: `int8`: 8-bit products on a CPU. None goes back to the trained model.
            data: Rows like those to predict, best with labels, at most 256 of them used; default: the demo's reviews.
            max_loss: How much of the metric may be lost; without labels, twenty times it is the share that may differ.

        Returns:
            What it costs and gains, which is printed too; None for `precision=None`.

        Raises:
            QualityError: It would predict too differently; it predicts as it was trained then.
            UnsupportedError: A device or encoder on which it cannot be done.
        """
        refuse_unsupported("optimize_for_inference", locals())
        from featherfit.data.load import load_table
        from featherfit.inference.optimize import optimize

        fitted, self._faster = self._whole(), None
        if precision is None:
            return None
        frame = None if data is None else load_table(data, name="data")
        self._faster, report = optimize(fitted, frame, precision=precision, max_loss=max_loss)
        self._reporter().info(str(report))
        return report

    def extract_embedding(
        self, data: Any, id_mappings: Any = None, return_masks: bool = False, as_tensor: bool = False,
        as_pandas: bool = False, realtime: bool | None = False, signature: Any = None,
    ) -> Any:  # fmt: skip
        """The vector of every row that the head works on, (rows, D).

        Args:
            data: As for `predict`.
            as_tensor: A torch tensor instead of an array.
            as_pandas: A DataFrame with the table's index.
            realtime: Of no consequence: the one way to predict has no start-up.
        """
        refuse_unsupported("extract_embedding", locals())
        from featherfit.inference.tables import vectors_as

        if as_tensor and as_pandas:
            raise ConfigError("as_tensor and as_pandas were both asked for. Choose one.")
        rows, vectors = self._table_outputs(data, embeddings=True)
        return vectors_as(vectors, rows.table, as_tensor=as_tensor, as_pandas=as_pandas)

    def _rows(self, data: Any, on_error: str, label: str | None = None) -> Screened:
        """The rows of a table to predict, or, with the name of the label column, to score."""
        from featherfit.data.load import load_table
        from featherfit.data.rows import all_rows, check_on_error, screen, warn_of_rejections

        check_on_error(on_error)
        fitted, table = self._serving(), load_table(data, name="data")
        if on_error == "raise":
            return all_rows(table)
        rows = screen(table, fitted.text.columns, label, None if label is None else fitted.label)
        self._rejected = rows.rejected
        warn_of_rejections(rows.set_aside, len(table))
        return rows

    def _table_outputs(
        self, data: Any, *, embeddings: bool = False, on_error: str = "raise"
    ) -> tuple[Screened, np.ndarray]:
        from featherfit.inference.predict import outputs, table_rows

        fitted, rows = self._serving(), self._rows(data, on_error)
        dataset = table_rows(fitted, rows.frame)
        with self._reporter().prediction_progress(len(dataset)) as progress:
            return rows, outputs(fitted, dataset, embeddings=embeddings, progress=progress)
