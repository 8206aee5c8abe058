"""`MultiModalPredictor`: AutoMM's signatures over the layers below. Nothing heavy is imported before `fit` or `load`."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featherfit.artifact.facts import FittedFacts
from featherfit.artifact.format import is_free
from featherfit.artifact.workspace import at_work, output_path, read_record
from featherfit.config.arguments import checked_column, checked_levels, checked_names, refuse_unsupported
from featherfit.errors import ConfigError
from featherfit.serving import Serving
from featherfit.storage import expanded

if TYPE_CHECKING:
    from featherfit.artifact.fitted import Fitted
    from featherfit.config.dotted import Overrides
    from featherfit.planning.plan import Plan
    from featherfit.preparing import FitRequest
    from featherfit.report import Reporter


class MultiModalPredictor(FittedFacts, Serving):
    """Fine-tunes a pretrained model on a table and predicts one of its columns.

    Example:
        >>> predictor = MultiModalPredictor(label="label").fit(train, presets="multilingual")
        >>> predictor.predict(test)
    """

    def __init__(
        self, label: str | list[str] | None = None, problem_type: str | None = None, query: Any = None,
        response: Any = None, match_label: Any = None, presets: str | None = None, eval_metric: Any = None,
        hyperparameters: Overrides = None, path: str | Path | None = None, verbosity: int = 2,
        num_classes: int | None = None, classes: list | None = None, warn_if_exist: bool = True,
        enable_progress_bar: bool | None = None, pretrained: bool = True, validation_metric: Any = None,
        sample_data_path: str | None = None, use_ensemble: bool = False, ensemble_size: int = 2,
        ensemble_mode: str = "one_shot", *, quantile_levels: Sequence[float] | None = None,
        sample_weight: str | None = None, weight_evaluation: bool = False,
    ):  # fmt: skip
        """Notes what to predict; nothing is read or loaded yet.

        Args:
            label: Column to predict, or a list of several: columns of 0 and 1 (`multilabel`), or numbers (`regression`). May
                be None only before `load`.
            problem_type: `binary`, `multiclass`, `regression`, `quantile`, `multilabel` (several label columns, or one of lists
                of labels), `classification`, or None to infer it at `fit`.
            presets: Name of a preset, used by `fit` unless it is given its own.
            eval_metric: Metric of `evaluate`; default roc_auc (binary, multilabel), accuracy, rmse or pinball_loss (quantile).
            hyperparameters: Dotted keys, as a dict, a list of `key=value`, or one string; `fit`'s come on top.
            path: Folder for the artifact; default `featherfit-models/<time>`.
            verbosity: 0 silent, 1 warnings, 2 progress, 3 more, 4 everything.
            warn_if_exist: Warn here if `path` exists and is not empty (`fit` refuses it).
            enable_progress_bar: False for none; default: on a terminal only.
            validation_metric: Metric that chooses the weights; default: `eval_metric`.
            quantile_levels: Levels between 0 and 1 of the quantiles to predict, which make the problem `quantile`; default of
                that: the nine deciles.
            sample_weight: Column of the weights of training rows, numbers of at least 0; no feature.
            weight_evaluation: Whether rows are weighed by it when they are scored too, by `fit` and `evaluate`.
            Others: AutoMM's; refused unless left alone, here and in all methods.

        Raises:
            UnsupportedError: An argument this version does not offer.
            ConfigError: A label, levels or a weight that are no names or numbers.
        """
        refuse_unsupported("MultiModalPredictor", locals())
        self._label, self._problem_type = checked_names(label, "label"), problem_type
        self._quantile_levels = checked_levels(quantile_levels)
        self._sample_weight, self._weight_evaluation = checked_column(sample_weight, "sample_weight"), weight_evaluation
        self._presets, self._hyperparameters = presets, hyperparameters
        self._eval_metric, self._validation_metric = eval_metric, validation_metric
        self._path = None if path is None else expanded(path)
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
        labels: Any = None, predictors: Any = None, *, on_error: str = "raise",
    ) -> MultiModalPredictor:  # fmt: skip
        """Trains on a table and writes the artifact to `path`. A second call trains further; docs/resume.md is on faults.

        Args:
            train_data: DataFrame (pandas, polars), pyarrow Table, `datasets.Dataset`, or path of a CSV, TSV, Parquet or
                JSON-lines file.
            presets: Name of a preset, or two joined, such as `multilingual+best_quality` (docs/recipes.md).
            tuning_data: Rows to validate on; default: a holdout of the training rows, by AutoMM's rule.
            time_limit: Seconds after which training stops, preparation included.
            save_path: Folder for the artifact instead of `path`.
            hyperparameters: Dotted keys, as a dict, a list of `key=value`, or one string.
            column_types: Types of columns that should not be inferred.
            holdout_frac: Share of the rows to hold out, 0 to 1.
            seed: Decides the holdout, the order of rows, initial weights and dropout.
            standalone: Put the pretrained weights into the artifact. Default: only where they were trained themselves.
            clean_ckpts: Delete the states kept while training; False keeps them under `<path>/training`.
            on_error: `raise` names rows that cannot be trained on; `report` leaves them out, with a warning, and
                `rejected_rows` lists them.

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
            holdout_frac=holdout_frac, time_limit=time_limit, seed=seed, on_error=on_error,
        )  # fmt: skip
        path = output_path(save_path, None if self._fitted else self._path, resumes=bool(self._record))
        self._faster = None  # it shares what is about to train
        with at_work(path, self._record, clean=clean_ckpts, standalone=standalone, tell=self._reporter().info) as work:
            fitted = run_fit(request, work, self._reporter(), self._fitted)
            stored = self._store(fitted, path, work.standalone)
        self._fitted, self._path, self._record = fitted.alone(), stored, None
        self._rejected = self._rejected if fitted.rejected is None else fitted.rejected
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

    def save(self, path: str | Path, standalone: bool | None = None) -> None:
        """Writes the artifact to `path`; an earlier artifact there is replaced, whole or not at all.

        Args:
            standalone: Put the pretrained weights in. Default: only where they were trained themselves.

        Raises:
            PathExistsError: `path` holds something that is not an artifact.
        """
        self._store(self._require(), expanded(path), standalone)

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
            return cls.resume(path, verbosity=verbosity)
        from featherfit.startup import collection_paused

        with collection_paused():
            from featherfit.artifact.store import load_artifact

            fitted = load_artifact(path)
        predictor = cls(fitted.schema.label, fitted.label.problem_type, verbosity=verbosity)
        predictor._fitted, predictor._path = fitted, expanded(path)
        predictor._eval_metric, predictor._validation_metric = fitted.eval_metric, fitted.validation_metric
        return predictor

    @classmethod
    def resume(cls, path: str | Path, label: str | list[str] | None = None, **constructor: Any) -> MultiModalPredictor:
        """A predictor whose `fit`, given the same data, goes on with the one that was interrupted at `path`.

        Args:
            path: The folder that the interrupted fit was to write.
            label: Column to predict; default: the one it was.
            constructor: What the constructor takes; `fit` raises a ConfigError where it is not as it was.

        Raises:
            ArtifactError: There is nothing to go on with.
        """
        record = read_record(where := expanded(path))
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
            quantile_levels=tuple(self._quantile_levels or ()), sample_weight=self._sample_weight,
            weight_evaluation=self._weight_evaluation, **others,
        )  # fmt: skip

    def _store(self, fitted: Fitted, path: Path, standalone: bool | None) -> Path:
        """Where the artifact is: where the first rank has put it."""
        from featherfit.artifact.store import save_artifact

        if fitted.device.ranks.first:
            save_artifact(fitted, path, standalone=standalone)
            self._reporter().info(f"Artifact: {path}")
        return fitted.device.ranks.agreed(path)
