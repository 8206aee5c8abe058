"""What several commands share: their options, and what is made of them."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Annotated

import typer

from featherfit.evaluation.chart import check_picture, require_plotting
from featherfit.report import Reporter

DATA = "A CSV, TSV, Parquet or JSON-lines file"
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Verbosity = Annotated[int, typer.Option(min=0, max=4, help="0 silent, 1 warnings, 2 progress, 3 more, 4 every step.")]
OutputFolder = Annotated[Path | None, typer.Option(help="Folder to write; default featherfit-models/<time>.")]
Seed = Annotated[int, typer.Option(help="Decides holdout, order and initial weights.")]
Plot = Annotated[Path | None, typer.Option(help="Draw the scores into this .png, .svg or .pdf.")]
Artifact = Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a fitted predictor.")]


def reporter_of(verbosity: int) -> Reporter:
    """What talks to the terminal; at verbosity 0 no warning is shown either."""
    if verbosity == 0:
        warnings.simplefilter("ignore")
    return Reporter(verbosity)


def check_plot(target: Path | None) -> None:
    """Fails now rather than after the work, where a picture is wanted and cannot be drawn.

    Raises:
        MissingDependencyError: matplotlib is not installed.
        ConfigError: A file it cannot draw into.
    """
    if target is not None:
        require_plotting()
        check_picture(target, "--plot")
