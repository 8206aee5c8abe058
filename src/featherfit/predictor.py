"""`MultiModalPredictor`: AutoMM's signatures over the layers below. Nothing heavy is imported before `fit` or `load`."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featherfit.artifact.facts import FittedFacts
from featherfit.artifact.format import is_free
from featherfit.artifact.workspace import at_work, output_path, read_record
from featherfit.config.arguments import refuse_unsupported
from featherfit.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from featherfit.artifact.fitted import Fitted
    from featherfit.config.dotted import Overrides
    from featherfit.inference.optimize import Optimized
    from featherfit.inference.stream import PredictedFile
    from featherfit.planning.plan import Plan
    from featherfit.preparing import FitRequest
    from featherfit.report import Reporter


class MultiModalPredictor(FittedFacts):
    """Fine-tunes a pretrained model on a table and predicts one of its columns.

    Example:
        >>> predictor = MultiModalPredictor(label="label").fit(train, presets="multilingual")
        >>> predictor.predict(test)
    """

    def __init__(
        self, label: str | None = None, problem_type: str | None = None, query: Any = None,
        response: Any = None, match_label: Any = None, presets: str | None = None, eval_metric: Any = None,
        hyperparameters: Overrides = None, path: str | Path | None = None, verbosity: int = 2,
        num_classes: int | None = None, classes: list | None = None, warn_if_exist: bool = True,
        enable_progress_bar: bool | None = None, pretrained: bool = True, validation_metric: Any = None,
        sample_data_path: str | None = None, use_ensemble: bool = False, ensemble_size: int = 2,
        ensemble_mode: str = "one_shot",
    ):  # fmt: skip
        """Notes what to predict; nothing is read or loaded yet.

        Args:
            label: Column to predict. May be None only before `load`.
            problem_type: `binary`, `multiclass`, `regression`, `classification`, or None to infer it at `fit`.
            presets: Name of a preset, used by `fit` unless it is given its own.
            eval_metric: Metric of `evaluate`; default roc_auc, accuracy or rmse by problem type.
            hyperparameters: Dotted keys, as a dict, a list of `key=value`, or one string; `fit`'s come on top.
            path: Folder for the artifact; default `featherfit-models/<time>`.
            verbosity: 0 silent, 1 warnings, 2 progress, 3 more, 4 everything.
            warn_if_exist: Warn here if `path` exists and is not empty (`fit` refuses it).
            enable_progress_bar: False for none; default: on a terminal only.
            validation_metric: Metric that chooses the weights; default: `eval_metric`.
            Others: AutoMM's; refused unless left alone, here and in all methods.

        Raises:
            UnsupportedError: An argument this version does not offer.
        """
        refuse_unsupported("MultiModalPredictor", locals())
        self._label, self._problem_type = label, problem_type
        self._presets, self._hyperparameters = presets, hyperparameters
        self._eval_metric, self._validation_metric = eval_metric, validation_metric
        self._path = None if path is None else Path(path).expanduser()
        self._verbosity, self._progress_bar = verbosity, enable_progress_bar
        self._record: dict[str, Any] | None = None  # of the fit that the next one goes on with
        if warn_if_exist and self._path is not None and not is_free(self._path):
            warnings.warn(f"path {self._path} exists and is not empty; fit will refuse it.", stacklevel=2)

    def fit(
        self, train_data: Any, presets: str | None = None, tuning_data: Any = None,
        max_num_tuning_data: int | None = None, id_mappings: Any = None, time_limit: float | None = None,
        save_path: str | Path | None = None, hyperparameters: Overrides = None,
        column_types: Mapping[str, str] | None = None, holdout_frac: float | None = None,
        teacher_predictor: Any = None, seed: int = 0, standalone: bool | None = None,
        hyperparameter_tune_kwargs: Any = None, clean_ckpts: bool = True, predictions: Any = None,
        labels: Any = None, predictors: Any = None,
    ) -> MultiModalPredictor:  # fmt: skip
        """Trains on a table and writes the artifact to `path`. A second call trains further; docs/resume.md is on faults.

        Args:
            train_data: DataFrame, `datasets.Dataset`, or path of a CSV, TSV, Parquet or JSON-lines file.
            presets: Name of a preset.
            tuning_data: Rows to validate on; default: a holdout of the training rows, by AutoMM's rule.
            time_limit: Seconds after which training stops, preparation included.
            save_path: Folder for the artifact instead of `path`.
            hyperparameters: Dotted keys, as a dict, a list of `key=value`, or one string.
            column_types: Types of columns that should not be inferred.
            holdout_frac: Share of the rows to hold out, 0 to 1.
            seed: Decides the holdout, the order of rows, initial weights and dropout.
            standalone: Put the pretrained weights into the artifact. Default: only where they were trained themselves.
            clean_ckpts: Delete the states kept while training; False keeps them under `<path>/training`.

        Returns:
            This predictor.

        Raises:
            ConfigError: Wrong settings, all of them at once.
            DataError: A table that cannot be used as it is.
            PathExistsError: The path is not empty, or another process fits there.
            CheckpointError: Pretrained weights are not at hand.
            UnsupportedError: An argument this version does not offer.
        """
        refuse_unsupported("fit", locals())
        from featherfit.fitting import run_fit

        request = self._request(
            presets, hyperparameters, train_data=train_data, tuning_data=tuning_data, column_types=column_types,
            holdout_frac=holdout_frac, time_limit=time_limit, seed=seed,
        )  # fmt: skip
        path = output_path(save_path, None if self._fitted else self._path, resumes=bool(self._record))
        self._faster = None  # it shares what is about to train
        with at_work(path, self._record, clean=clean_ckpts, standalone=standalone, tell=self._reporter().info) as work:
            fitted = run_fit(request, work, self._reporter(), self._fitted)
            stored = self._store(fitted, path, work.standalone)
        self._fitted, self._path, self._record = fitted.alone(), stored, None
        return self

    def plan(
        self, train_data: Any, presets: str | None = None, tuning_data: Any = None, hyperparameters: Overrides = None,
        column_types: Mapping[str, str] | None = None, holdout_frac: float | None = None, seed: int = 0,
        standalone: bool | None = None,
    ) -> Plan:  # fmt: skip
        """What `fit` would need: memory part by part, time and disk, beside what this machine has.

        No weights are read: copies of two and three layers with random ones are run for a few seconds.

        Args:
            train_data: As for `fit`, as all others are. `env.memory_budget` says what the run has to stay under.

        Returns:
            A record of plain values that prints as a list; `to_frame()` gives a table.

        Raises:
            FeatherfitError: As `fit` does for settings, tables and checkpoints.
        """
        from featherfit.preparing import plan_fit

        request = self._request(
            presets, hyperparameters, train_data=train_data, tuning_data=tuning_data, column_types=column_types,
            holdout_frac=holdout_frac, time_limit=None, seed=seed,
        )  # fmt: skip
        base = None if self._fitted is None else self._fitted.config
        return plan_fit(request, self._reporter(), base, standalone=bool(standalone))

    def evaluate(
        self, data: Any, query_data: Any = None, response_data: Any = None, id_mappings: Any = None,
        metrics: Any = None, chunk_size: int = 1024, similarity_type: str = "cosine",
        cutoffs: list[int] | None = None, label: str | None = None, return_pred: bool = False,
        realtime: bool | None = False, eval_tool: Any = None, predictions: Any = None, labels: Any = None,
    ) -> Any:  # fmt: skip
        """Scores the predictor on a table with labels.

        Args:
            data: As for `fit`, with the label column.
            metrics: A metric's name or a list of them; default `eval_metric`.
            label: Column of the true labels, if it is called otherwise in this table.
            return_pred: Return the predictions too.
            realtime: Of no consequence: the one way to predict has no start-up.

        Returns:
            `{metric: float}`, errors positive; with `return_pred` a pair of it and the predictions.
        """
        refuse_unsupported("evaluate", locals())
        from featherfit.data.load import load_table
        from featherfit.inference.predict import evaluate
        from featherfit.inference.tables import as_series

        frame = load_table(data, name="data")
        fitted = self._serving()
        with self._reporter().prediction_progress(len(frame)) as progress:
            scores, predictions = evaluate(fitted, frame, metrics, label, progress)
        return (scores, as_series(predictions, frame, fitted.schema.label)) if return_pred else scores

    def predict(
        self, data: Any, candidate_data: Any = None, id_mappings: Any = None, as_pandas: bool | None = None,
        realtime: bool | None = False, save_results: bool | None = None,
    ) -> pd.Series | np.ndarray:  # fmt: skip
        """Predicts the label of every row, in the type it had in training.

        Args:
            data: DataFrame, dict, list of dicts, dataset or path; the label column is not needed.
            as_pandas: A Series with the table's index, or an array; default: a Series for a DataFrame.
            realtime: Of no consequence: the one way to predict has no start-up.
        """
        refuse_unsupported("predict", locals())
        from featherfit.inference.predict import labels_of
        from featherfit.inference.tables import as_series, wants_pandas

        frame, logits = self._table_outputs(data)
        predictions = labels_of(self._require(), logits)
        if not wants_pandas(data, as_pandas):
            return predictions
        return as_series(predictions, frame, self._require().schema.label)

    def predict_proba(
        self, data: Any, candidate_data: Any = None, id_mappings: Any = None, as_pandas: bool | None = None,
        as_multiclass: bool = True, realtime: bool | None = False,
    ) -> pd.DataFrame | pd.Series | np.ndarray:  # fmt: skip
        """Predicts the probability of every class.

        Args:
            data: As for `predict`.
            as_pandas: As for `predict`; columns are the class labels.
            as_multiclass: False gives the positive class's probability alone, for binary problems.
            realtime: Of no consequence: the one way to predict has no start-up.

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
        frame, logits = self._table_outputs(data)
        return probability_table(probabilities(logits), data, frame, label, as_pandas, as_multiclass)

    def predict_file(
        self, source: str | Path, target: str | Path, *, proba: bool = False, keep_columns: str | Sequence[str] = (),
        chunk_rows: int = 20_000, overwrite: bool = False,
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

        Raises:
            ConfigError: Arguments or paths that do not fit.
            PathExistsError: `target` is there.
            DataError: A file, columns or rows that cannot be used.
        """
        from featherfit.inference.stream import predict_file

        return predict_file(
            self._serving(), source, target, proba=proba, keep_columns=keep_columns, chunk_rows=chunk_rows,
            overwrite=overwrite, progress=self._reporter().prediction_progress,
        )  # fmt: skip

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
        frame, vectors = self._table_outputs(data, embeddings=True)
        return vectors_as(vectors, frame, as_tensor=as_tensor, as_pandas=as_pandas)

    def save(self, path: str | Path, standalone: bool | None = None) -> None:
        """Writes the artifact to `path`; an earlier artifact there is replaced, whole or not at all.

        Args:
            standalone: Put the pretrained weights in. Default: only where they were trained themselves.

        Raises:
            PathExistsError: `path` holds something that is not an artifact.
        """
        self._store(self._require(), Path(path).expanduser(), standalone)

    @classmethod
    def load(cls, path: str | Path, resume: bool = False, verbosity: int = 3) -> MultiModalPredictor:
        """A predictor from its artifact; runs no code from it and needs no network if the checkpoint is at hand.

        Args:
            path: The artifact's folder, or the one an interrupted fit was to write.
            resume: `fit`, given the same data, is to go on with the fit that was interrupted there.
            verbosity: As for the constructor.

        Raises:
            ArtifactError: A damaged, partial or foreign folder.
            CheckpointError: The pretrained weights are not at hand, or differ from those it was trained on.
        """
        if resume:
            return cls._resumed(path, None, verbosity=verbosity)
        from featherfit.startup import collection_paused

        with collection_paused():
            from featherfit.artifact.store import load_artifact

            fitted = load_artifact(path)
        predictor = cls(fitted.schema.label, fitted.label.problem_type, verbosity=verbosity)
        predictor._fitted, predictor._path = fitted, Path(path).expanduser()
        predictor._eval_metric, predictor._validation_metric = fitted.eval_metric, fitted.validation_metric
        return predictor

    @classmethod
    def _resumed(cls, path: str | Path, label: str | None, **constructor: Any) -> MultiModalPredictor:
        """A predictor whose `fit` goes on with the one that was interrupted at `path`."""
        record = read_record(where := Path(path).expanduser())
        predictor = cls(record["request"]["label"] if label is None else label, **constructor)
        predictor._path, predictor._record = where, record
        return predictor

    def fit_summary(self, verbosity: int = 0, show_plot: bool = False) -> dict[str, Any]:
        """What training came to: `val_<metric>` of the final weights, `training_time` in seconds, and more.

        Args:
            verbosity: Above 0 the summary is shown too.
        """
        refuse_unsupported("fit_summary", locals())
        summary = dict(self._require().summary)
        if verbosity > 0:
            self._reporter().scores_table([summary], "fit summary")
        return summary

    def _reporter(self) -> Reporter:
        from featherfit.report import Reporter

        return Reporter(self._verbosity, self._progress_bar)

    def _table_outputs(self, data: Any, embeddings: bool = False) -> tuple[pd.DataFrame, np.ndarray]:
        from featherfit.data.load import load_table
        from featherfit.inference.predict import outputs, table_rows

        fitted = self._serving()
        frame = load_table(data, name="data")
        rows = table_rows(fitted, frame)
        with self._reporter().prediction_progress(len(frame)) as progress:
            return frame, outputs(fitted, rows, embeddings=embeddings, progress=progress)

    def _request(self, presets: str | None, hyperparameters: Overrides, **others: Any) -> FitRequest:
        """The arguments of a fit or a plan together with the constructor's; `others` go in as they are."""
        from featherfit.config.dotted import merge_overrides
        from featherfit.preparing import FitRequest

        if self._label is None:
            raise ConfigError("label is not set. Name the column to predict: MultiModalPredictor(label='...').")
        return FitRequest(
            label=self._label, presets=presets if presets is not None else (self._presets if self._fitted is None else None),
            hyperparameters=merge_overrides(self._hyperparameters, hyperparameters),
            problem_type=self._problem_type, eval_metric=self._eval_metric, validation_metric=self._validation_metric,
            **others,
        )  # fmt: skip

    def _store(self, fitted: Fitted, path: Path, standalone: bool | None) -> Path:
        """Where the artifact is: where the first rank has put it."""
        from featherfit.artifact.store import save_artifact

        if fitted.device.ranks.first:
            save_artifact(fitted, path, standalone=standalone)
            self._reporter().info(f"Artifact: {path}")
        return fitted.device.ranks.agreed(path)
