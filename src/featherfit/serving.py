"""Rows go in; scores, predictions and embeddings come out: the methods of a predictor that take them.

Nothing heavy is imported before one of them is called.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featherfit.config.arguments import refuse_unsupported
from featherfit.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from featherfit.artifact.fitted import Fitted
    from featherfit.data.rows import Screened
    from featherfit.evaluation.decision import Decision
    from featherfit.evaluation.threshold import TunedThreshold, TunedThresholds
    from featherfit.inference.optimize import Optimized
    from featherfit.inference.stream import PredictedFile
    from featherfit.report import Reporter


class Serving:
    """What a fitted predictor does with rows; stands beside `FittedFacts`, which says what it has.

    Raises:
        NotFittedError: By each of its methods, while there is nothing fitted.
    """

    _fitted: Fitted | None = None
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
        cutoffs: list[int] | None = None, label: str | list[str] | None = None, return_pred: bool = False,
        realtime: bool | None = False, eval_tool: Any = None, predictions: Any = None, labels: Any = None, *,
        by: str | Sequence[str] | None = None, reference: str | None = None, resamples: int = 2000, seed: int = 0,
        on_error: str = "raise",
    ) -> Any:  # fmt: skip
        """Scores the predictor on a table with labels.

        Args:
            data: As for `fit`, with the label column.
            metrics: A metric's name or a list of them; default `eval_metric`.
            label: Column of the true labels, or a list of several, if they are called otherwise in this table.
            return_pred: Return the predictions too.
            realtime: Of no consequence: the one way to predict has no start-up.
            by: Score slice by slice: a column, several columns, or `auto`, the language of the text columns as py3langid
                finds it (a column of that name is meant where there is one). Rows without a value are a slice.
            reference: With `by`, the slice that gaps are to; default: the one that all training rows were of, if their
                table had that column, else the one with most rows.
            resamples, seed: With `by`, of the bootstrap, at least 100.
            on_error: As for `predict`; a label that is missing or unknown keeps a row from being scored too.

        Returns:
            `{metric: float}`, errors positive; with `by` a `SlicedScores`, which prints as a table and has `to_frame()`,
            `to_json()` and `plot(path)`; with `return_pred` a pair of it and the predictions. Rows are weighted where the
            constructor was told `weight_evaluation`; the table needs that column then.

        Raises:
            ConfigError: Metrics or arguments that do not fit.
            DataError: Missing columns, missing labels, or labels training has not seen.
            MissingDependencyError: `by="auto"` without py3langid.
        """
        refuse_unsupported("evaluate", locals())
        from featherfit.inference.predict import evaluate, label_named
        from featherfit.inference.slices import evaluate_by
        from featherfit.inference.tables import prediction_table

        if by is None and (reference, resamples, seed) != (None, 2000, 0):
            raise ConfigError("reference, resamples and seed go with by. Name what to slice by, or leave them out.")
        fitted = self._serving()
        rows = self._rows(data, on_error, label_named(fitted, label))
        with self._reporter().prediction_progress(len(rows.frame)) as progress:
            scores: Any
            if by is None:
                scores, predictions = evaluate(fitted, rows.frame, metrics, label, progress)
            else:
                scores, predictions = evaluate_by(
                    fitted, rows.frame, by, metrics, label, reference=reference, resamples=resamples, seed=seed,
                    progress=progress,
                )  # fmt: skip
        return (scores, prediction_table(rows.spread(predictions), rows.table, fitted)) if return_pred else scores

    def predict(
        self, data: Any, candidate_data: Any = None, id_mappings: Any = None, as_pandas: bool | None = None,
        realtime: bool | None = False, save_results: bool | None = None, *,
        threshold: float | Mapping[Any, float] | None = None, on_error: str = "raise",
    ) -> pd.Series | pd.DataFrame | np.ndarray:  # fmt: skip
        """Predicts the label of every row, in the type it had in training.

        Of several labels or targets, and of quantiles, a row has several predictions: a DataFrame with a column for each label
        column, each label of a column of lists (true or false), or each quantile level (ascending in every row).

        Args:
            data: DataFrame, dict, list of dicts, dataset or path; the label column is not needed.
            as_pandas: A Series or DataFrame with the table's index, or an array; default: the former for a DataFrame.
            realtime: Of no consequence: the one way to predict has no start-up.
            threshold: For binary problems, 0 to 1: the positive class is predicted where its probability is greater. Of
                several labels one for all, or a mapping from label to number. Default: the predictor's own, which is 0.5
                unless it was set or tuned.
            on_error: `raise` names the first row that cannot be processed; `report` sets such rows aside: their results are
                missing (NaN, None or NA) and `rejected_rows` lists them.

        Raises:
            ConfigError: `threshold` is out of its range, or given for another problem.
            DataError: A table that cannot be used, or, with `raise`, a row.
        """
        refuse_unsupported("predict", locals())
        from featherfit.inference.decide import with_threshold
        from featherfit.inference.tables import prediction_table, wants_pandas

        fitted = self._require() if threshold is None else with_threshold(self._require(), threshold)
        rows, logits = self._table_outputs(data, on_error=on_error)
        predictions = rows.spread(fitted.reading.predictions(logits))
        return prediction_table(predictions, rows.table, fitted) if wants_pandas(data, as_pandas) else predictions

    def predict_proba(
        self, data: Any, candidate_data: Any = None, id_mappings: Any = None, as_pandas: bool | None = None,
        as_multiclass: bool = True, realtime: bool | None = False, *, on_error: str = "raise",
    ) -> pd.DataFrame | pd.Series | np.ndarray:  # fmt: skip
        """Predicts the probability of every class, or of each of several labels, calibrated as `optim.calibration` says.

        Args:
            data: As for `predict`.
            as_pandas: As for `predict`; columns are the class labels.
            as_multiclass: False gives the positive class's probability alone, for binary problems.
            realtime: Of no consequence: the one way to predict has no start-up.
            on_error: As for `predict`.

        Raises:
            ConfigError: Numbers are predicted, or `as_multiclass=False` for anything but two classes.
        """
        refuse_unsupported("predict_proba", locals())
        from featherfit.inference.tables import probability_table

        label = self._require().label
        self._check_proba("predict_proba", "Use predict.")
        if not as_multiclass and label.problem_type != "binary":
            raise ConfigError(f"as_multiclass=False is for binary problems; there are {len(label.classes)} classes.")
        rows, logits = self._table_outputs(data, on_error=on_error)
        proba = rows.spread(self._require().reading.probabilities(logits))
        return probability_table(proba, data, rows.table, label, as_pandas, as_multiclass)

    def predict_table(self, data: Any, *, proba: bool = False, on_error: str = "raise") -> pd.DataFrame:
        """Predicts labels and, with `proba`, probabilities in one pass, as a table with the columns that `predict_file` writes.

        Args:
            data, on_error: As for `predict`.
            proba: Whether columns `proba_<class>`, float32, follow the label or labels.

        Returns:
            A row for each of the table's, under its index.

        Raises:
            ConfigError: `proba` where numbers are predicted.
            DataError: As for `predict`.
        """
        from featherfit.inference.stream import result_frame

        fitted = self._require()
        if proba:
            self._check_proba("proba", "Leave it out.")
        rows, logits = self._table_outputs(data, on_error=on_error)
        return result_frame(fitted, logits, proba, rows)

    def predict_file(
        self, source: str | Path, target: str | Path, *, proba: bool = False, keep_columns: str | Sequence[str] = (),
        chunk_rows: int = 20_000, overwrite: bool = False, on_error: str = "raise",
    ) -> PredictedFile:  # fmt: skip
        """Predicts a file of any size into another one, in the memory of one chunk of its rows.

        `target` appears when all rows are done, and not at all if something goes wrong. Labels are those of `predict`;
        probabilities differ from `predict_proba`'s by rounding only.

        Args:
            source: A CSV, TSV, Parquet or JSON-lines file. Messages name rows by their position in it, from 0.
            target: A `.csv`, `.tsv`, `.parquet` or `.jsonl` file; its columns are the kept ones, the label (or several,
                `<label>_<level>` of quantiles), and with `proba` one named `proba_<class>` for every class or label.
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

    def set_threshold(self, threshold: float | Mapping[Any, float]) -> None:
        """Sets the threshold of all predictions from now on; `save` keeps it.

        Args:
            threshold: 0 to 1; the positive class is predicted where its probability is greater. Of several labels one for
                all, or a mapping from label to number.

        Raises:
            ConfigError: Not such a number, or not a binary or multilabel problem.
        """
        from featherfit.inference.decide import with_threshold

        self._read_by(with_threshold(self._whole(), threshold).decision)

    def tune_threshold(
        self, data: Any, metric: str = "f1", label: str | list[str] | None = None
    ) -> TunedThreshold | TunedThresholds:
        """Finds the threshold that is best for a metric, of several labels one for each, and sets it; `save` keeps it.

        Args:
            data: As for `evaluate`, best rows that were neither trained nor validated on.
            metric: A metric of predicted labels, such as f1, balanced_accuracy or mcc.
            label: Column of the true labels, or a list of several, if they are called otherwise in this table.

        Returns:
            The threshold, and what it gains on these rows; printed too.

        Raises:
            ConfigError: Another metric, or not a binary or multilabel problem.
            DataError: A table that cannot be used, or holds one class only.
        """
        from featherfit.data.load import load_table
        from featherfit.inference.decide import tuned, with_threshold

        fitted, frame = self._serving(), load_table(data, name="data")
        with self._reporter().prediction_progress(len(frame)) as progress:
            found = tuned(fitted, frame, metric, label, progress)
        self._read_by(with_threshold(self._whole(), found.threshold).decision)
        self._reporter().info(str(found))
        return found

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

    def _read_by(self, decision: Decision) -> None:
        """Reads logits by `decision` from now on, in the fitted predictor and its faster form."""
        self._fitted = replace(self._whole(), decision=decision)
        if self._faster is not None:
            self._faster = replace(self._faster, decision=decision)

    def _rows(self, data: Any, on_error: str, label: str | list[str] | None = None) -> Screened:
        """The rows of a table to predict, or, with the name of the label column, to score."""
        from featherfit.data.load import load_table
        from featherfit.data.rows import all_rows, check_on_error, screen, warn_of_rejections

        check_on_error(on_error)
        fitted, table = self._serving(), load_table(data, name="data")
        if on_error == "raise":
            return all_rows(table)
        scored, parts = label is not None, fitted.parts.values()
        weight = fitted.schema.scoring_weight if scored else None
        rows = screen(table, fitted.text.columns, label, fitted.label if scored else None, parts, weight)
        self._rejected = rows.rejected
        warn_of_rejections(rows.set_aside, len(table))
        return rows

    def _check_proba(self, what: str, remedy: str) -> None:
        from featherfit.inference.tables import without_probabilities

        for problem in without_probabilities(self._require().label, what, remedy):
            raise ConfigError(problem)

    def _table_outputs(
        self, data: Any, *, embeddings: bool = False, on_error: str = "raise"
    ) -> tuple[Screened, np.ndarray]:
        from featherfit.inference.predict import outputs, table_rows

        fitted, rows = self._serving(), self._rows(data, on_error)
        dataset = table_rows(fitted, rows.frame)
        with self._reporter().prediction_progress(len(dataset)) as progress:
            return rows, outputs(fitted, dataset, embeddings=embeddings, progress=progress)
