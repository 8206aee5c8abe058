"""An artifact and a table go in; scores or predictions come out: `evaluate` and `predict`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import featherfit
from featherfit.cli.options import DATA, Artifact, Json, Plot, Verbosity, check_plot, reporter_of
from featherfit.errors import ConfigError

if TYPE_CHECKING:
    import pandas as pd


def evaluate(
    artifact: Artifact,
    data: Annotated[str, typer.Argument(metavar="DATA", help=f"{DATA} with the label column.")],
    metric: Annotated[
        list[str] | None, typer.Option(help="Default: the predictor's own; may be given again.", show_default=False)
    ] = None,
    by: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN", help="Score slice by slice; auto: by detected language; may be given again."),
    ] = None,
    reference: Annotated[str | None, typer.Option(help="With --by: the slice that gaps are to.")] = None,
    plot: Plot = None,
    verbosity: Verbosity = 2,
    as_json: Json = False,
) -> None:
    """Score a predictor on a table with labels."""
    from featherfit.data.load import load_table

    reporter = reporter_of(verbosity)
    if by:
        check_plot(plot)
    elif reference is not None or plot is not None:
        raise ConfigError("--reference and --plot go with --by COLUMN.")
    frame = load_table(data)
    predictor = featherfit.MultiModalPredictor.load(artifact, verbosity=verbosity)
    if by:
        sliced = predictor.evaluate(frame, metrics=metric or None, by=by, reference=reference)
        if plot is not None:
            sliced.plot(plot)
        if as_json:
            reporter.show({"rows": len(frame), **sliced.to_json()}, as_json)
            return
        reporter.scores_table(sliced.rows_to_show(), f"{len(frame)} rows of {data}")
        reporter.result(sliced.verdict())
        return
    scores = predictor.evaluate(frame, metrics=metric or None)
    if as_json:
        reporter.show({"rows": len(frame), "scores": scores}, as_json)
    else:
        rows = [{"metric": name, "score": float(score)} for name, score in scores.items()]
        reporter.scores_table(rows, f"{len(frame)} rows of {data}")


def predict(
    artifact: Artifact,
    data: Annotated[str, typer.Argument(metavar="DATA", help=f"{DATA}; a label column is not needed.")],
    output: Annotated[
        str, typer.Option(help="A .csv, .tsv, .parquet or .jsonl file for any number of rows, or - for CSV on stdout.")
    ] = "-",
    proba: Annotated[bool, typer.Option("--proba", help="Add the probability of every class.")] = False,
    threshold: Annotated[
        float | None,
        typer.Option(help="For binary problems: predict the positive class above it.", show_default="its own"),
    ] = None,
    keep: Annotated[
        list[str] | None, typer.Option(metavar="COLUMN", help="With --output: copy a column; may be given again.")
    ] = None,
    chunk_rows: Annotated[
        int | None, typer.Option(min=1, help="With --output: rows in memory at a time.", show_default="20000")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the --output file.")] = False,
    verbosity: Verbosity = 2,
    as_json: Json = False,
) -> None:
    """Predict the label of every row, in the table's order."""
    reporter = reporter_of(verbosity)
    if output != "-":
        from featherfit.data.write import check_target

        check_target(data, output, overwrite=overwrite, name="--output")
        predictor = _loaded(artifact, verbosity, threshold)
        options: dict[str, Any] = {} if chunk_rows is None else {"chunk_rows": chunk_rows}
        written = predictor.predict_file(
            data, output, proba=proba, keep_columns=keep or (), overwrite=overwrite, **options
        )
        reporter.show({"output": output, "rows": written.rows}, as_json, "Written")
        return
    given = {"--keep": keep, "--chunk-rows": chunk_rows, "--overwrite": overwrite}
    if any(given.values()):
        raise ConfigError([f"{option} goes with --output FILE." for option, value in given.items() if value])
    from featherfit.data.load import load_table

    frame = load_table(data)
    predictor = _loaded(artifact, verbosity, threshold)
    table = _predictions(predictor, frame, proba)
    if as_json:
        reporter.show({"predictions": table.to_dict("records")}, as_json)
    else:
        reporter.result(table.to_csv(index=False, lineterminator="\n"))


def _loaded(artifact: Path, verbosity: int, threshold: float | None) -> featherfit.MultiModalPredictor:
    predictor = featherfit.MultiModalPredictor.load(artifact, verbosity=verbosity)
    if threshold is not None:
        predictor.set_threshold(threshold)
    return predictor


def _predictions(predictor: featherfit.MultiModalPredictor, frame: pd.DataFrame, proba: bool) -> pd.DataFrame:
    """A column with the label's name and, with `proba`, one for every class."""
    if not proba:
        predictions: Any = predictor.predict(frame, as_pandas=True)
        return predictions.to_frame(predictor.label)
    from featherfit.evaluation.decision import Decision

    probabilities: Any = predictor.predict_proba(frame, as_pandas=True)
    best = Decision(threshold=predictor.threshold).ids_of(probabilities.to_numpy())
    table = probabilities.add_prefix("proba_")
    table.insert(0, str(predictor.label), probabilities.columns.to_numpy()[best])
    return table
