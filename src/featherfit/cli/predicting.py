"""An artifact and a table go in; scores or predictions come out: `evaluate` and `predict`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import featherfit
from featherfit.cli.options import (
    DATA,
    Artifact,
    Json,
    OnError,
    Plot,
    Rejected,
    Verbosity,
    check_plot,
    check_rejected,
    reporter_of,
    tell_rejected,
)
from featherfit.errors import ConfigError

if TYPE_CHECKING:
    from featherfit.report import Reporter


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
    on_error: OnError = "raise",
    rejected: Rejected = None,
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
    check_rejected(on_error, rejected, data)
    frame = load_table(data)
    predictor = featherfit.MultiModalPredictor.load(artifact, verbosity=verbosity)
    slicing: dict[str, Any] = {"by": by, "reference": reference} if by else {}
    scores = predictor.evaluate(frame, metrics=metric or None, on_error=on_error, **slicing)
    aside = _told_aside(reporter, predictor, on_error, rejected)
    if by and plot is not None:
        scores.plot(plot)
    if as_json:
        found = scores.to_json() if by else {"scores": scores}
        reporter.show({"rows": len(frame), **found, **aside}, as_json)
    elif by:
        reporter.scores_table(scores.rows_to_show(), f"{len(frame)} rows of {data}")
        reporter.result(scores.verdict())
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
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the files of --output and --rejected.")
    ] = False,
    on_error: OnError = "raise",
    rejected: Rejected = None,
    verbosity: Verbosity = 2,
    as_json: Json = False,
) -> None:
    """Predict the label of every row, in the table's order."""
    reporter = reporter_of(verbosity)
    check_rejected(on_error, rejected, data, overwrite=overwrite)
    if output != "-":
        from featherfit.data.write import check_target

        check_target(data, output, overwrite=overwrite, name="--output")
        if rejected is not None and Path(rejected).resolve() == Path(output).resolve():
            raise ConfigError("--output and --rejected name the same file.")
        predictor = _loaded(artifact, verbosity, threshold)
        options: dict[str, Any] = {} if chunk_rows is None else {"chunk_rows": chunk_rows}
        written = predictor.predict_file(
            data, output, proba=proba, keep_columns=keep or (), overwrite=overwrite, on_error=on_error, **options
        )
        aside = _told_aside(reporter, predictor, on_error, rejected, overwrite=overwrite)
        reporter.show({"output": output, "rows": written.rows, **(aside if as_json else {})}, as_json, "Written")
        return
    given = {"--keep": keep, "--chunk-rows": chunk_rows, "--overwrite": overwrite and rejected is None}
    if any(given.values()):
        raise ConfigError([f"{option} goes with --output FILE." for option, value in given.items() if value])
    from featherfit.data.load import load_table

    frame = load_table(data)
    predictor = _loaded(artifact, verbosity, threshold)
    table = predictor.predict_table(frame, proba=proba, on_error=on_error)
    aside = _told_aside(reporter, predictor, on_error, rejected, overwrite=overwrite)
    if as_json:
        known = table.astype(object).where(table.notna(), None)
        reporter.show({"predictions": known.to_dict("records"), **aside}, as_json)
    else:
        reporter.result(table.to_csv(index=False, lineterminator="\n"))


def _loaded(artifact: Path, verbosity: int, threshold: float | None) -> featherfit.MultiModalPredictor:
    predictor = featherfit.MultiModalPredictor.load(artifact, verbosity=verbosity)
    if threshold is not None:
        predictor.set_threshold(threshold)
    return predictor


def _told_aside(
    reporter: Reporter,
    predictor: featherfit.MultiModalPredictor,
    on_error: str,
    target: str | None,
    *,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Tells of the rows that were set aside; what JSON says of them."""
    if on_error == "raise":
        return {}
    rows = predictor.rejected_rows
    tell_rejected(reporter, rows, target, overwrite=overwrite)
    return {"rejected": rows.to_dict("records")}
