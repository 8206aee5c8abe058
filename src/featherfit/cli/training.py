"""Words and a table go in; an artifact, or a plan of one, comes out: `fit` and `plan`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

import featherfit
from featherfit.cli.options import (
    DATA,
    Json,
    OnError,
    OutputFolder,
    Rejected,
    Seed,
    Verbosity,
    check_rejected,
    one_or_several,
    reporter_of,
    tell_rejected,
)
from featherfit.errors import ConfigError
from featherfit.types import NUMBERS

Table = Annotated[str, typer.Argument(metavar="DATA", help=f"{DATA} to learn from.")]
Label = Annotated[list[str], typer.Option(help="Column to predict; may be given again for several.")]
Levels = Annotated[
    list[float] | None, typer.Option(metavar="LEVEL", help="Predict this quantile, 0 to 1; may be given again.")
]
Weight = Annotated[str | None, typer.Option(help="Column of the weights of training rows.")]
Weighs = Annotated[bool, typer.Option("--weight-evaluation", help="Weigh rows by it when they are scored too.")]
Preset = Annotated[str | None, typer.Option(help="Preset, such as multilingual, or multilingual+best_quality.")]
Tuning = Annotated[str | None, typer.Option(help="Rows to validate on; default: a holdout.")]
ColumnTypes = Annotated[
    list[str] | None, typer.Option(metavar="NAME=TYPE", help="Type of a column, not inferred; may be given again.")
]
Problem = Annotated[
    str | None, typer.Option(help="binary, multiclass, regression, quantile or multilabel; default: by the label.")
]
Holdout = Annotated[float | None, typer.Option(help="Share of rows to hold out, 0 to 1.")]
Standalone = Annotated[bool, typer.Option("--standalone", help="Put the pretrained weights in too.")]


def fit(
    data: Table,
    label: Label,
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Such as optim.peft=lora optim.lr=1e-3.")
    ] = None,
    presets: Preset = None,
    path: OutputFolder = None,
    tuning_data: Tuning = None,
    column_type: ColumnTypes = None,
    problem_type: Problem = None,
    quantile_level: Levels = None,
    sample_weight: Weight = None,
    weight_evaluation: Weighs = False,
    eval_metric: Annotated[str | None, typer.Option(help="Metric to choose the weights and to score by.")] = None,
    holdout_frac: Holdout = None,
    time_limit: Annotated[float | None, typer.Option(help="Seconds after which training stops.")] = None,
    seed: Seed = 0,
    standalone: Standalone = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the fit interrupted at --path.")] = False,
    on_error: OnError = "raise",
    rejected: Rejected = None,
    verbosity: Verbosity = 2,
    as_json: Json = False,
) -> None:
    """Train on a table and write an artifact."""
    reporter = reporter_of(verbosity)
    words: Any = dict(
        label=one_or_several(label), problem_type=problem_type, eval_metric=eval_metric, verbosity=verbosity,
        quantile_levels=quantile_level or None, sample_weight=sample_weight, weight_evaluation=weight_evaluation,
    )  # fmt: skip
    if resume and not path:
        raise ConfigError("--resume needs the --path of the fit that was interrupted.")
    check_rejected(on_error, rejected, data)
    kind = featherfit.MultiModalPredictor
    predictor = kind.resume(path, **words) if resume and path else kind(path=path, **words)
    predictor.fit(
        data,
        presets=presets,
        tuning_data=tuning_data,
        hyperparameters=settings or None,
        column_types=_column_types(column_type or []) or None,
        time_limit=time_limit,
        seed=seed,
        holdout_frac=holdout_frac,
        standalone=standalone or None,
        on_error=on_error,
    )
    if on_error == "report":
        tell_rejected(reporter, predictor.rejected_rows, rejected)
    classes = None if predictor.problem_type in NUMBERS else predictor.class_labels
    result = {
        "path": predictor.path,
        "label": predictor.label,
        "problem_type": predictor.problem_type,
        "classes": classes,
        "eval_metric": predictor.eval_metric,
        "total_parameters": predictor.total_parameters,
        "trainable_parameters": predictor.trainable_parameters,
        "megabytes": predictor.model_size,
        "summary": predictor.fit_summary(),
    }
    reporter.show(result, as_json, "Fitted")


def plan(
    data: Table,
    label: Label,
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Such as optim.peft=lora env.memory_budget=8GB.")
    ] = None,
    presets: Preset = None,
    tuning_data: Tuning = None,
    column_type: ColumnTypes = None,
    problem_type: Problem = None,
    quantile_level: Levels = None,
    sample_weight: Weight = None,
    weight_evaluation: Weighs = False,
    holdout_frac: Holdout = None,
    seed: Seed = 0,
    standalone: Standalone = False,
    verbosity: Verbosity = 2,
    as_json: Json = False,
) -> None:
    """Say what a fit would need: memory, time and disk. Nothing is trained."""
    reporter = reporter_of(verbosity)
    predictor = featherfit.MultiModalPredictor(
        label=one_or_several(label), problem_type=problem_type, verbosity=verbosity,
        quantile_levels=quantile_level or None, sample_weight=sample_weight, weight_evaluation=weight_evaluation,
    )  # fmt: skip
    planned = predictor.plan(
        data,
        presets=presets,
        tuning_data=tuning_data,
        hyperparameters=settings or None,
        column_types=_column_types(column_type or []) or None,
        holdout_frac=holdout_frac,
        seed=seed,
        standalone=standalone or None,
    )
    if as_json:
        reporter.show(planned.to_json(), as_json)
        return
    reporter.scores_table(planned.rows_to_show(), f"{planned.checkpoint}, {planned.peft or 'full fine-tuning'}")
    reporter.result(planned.verdict())


def _column_types(texts: list[str]) -> dict[str, str]:
    """The types by column; all texts that say none in one error."""
    pairs = [text.rpartition("=") for text in texts]
    problems = [f"--column-type {''.join(pair)!r} is not of the form NAME=TYPE." for pair in pairs if not all(pair)]
    if problems:
        raise ConfigError(problems)
    return {name: kind for name, _, kind in pairs}
