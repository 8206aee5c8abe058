"""What several commands share: their options, and what is made of them."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from featherfit.errors import ConfigError
from featherfit.evaluation.chart import check_picture, require_plotting
from featherfit.report import Reporter

if TYPE_CHECKING:
    import pandas as pd

DATA = "A CSV, TSV, Parquet or JSON-lines file"
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Verbosity = Annotated[int, typer.Option(min=0, max=4, help="0 silent, 1 warnings, 2 progress, 3 more, 4 every step.")]
OutputFolder = Annotated[Path | None, typer.Option(help="Folder to write; default featherfit-models/<time>.")]
Seed = Annotated[int, typer.Option(help="Decides holdout, order and initial weights.")]
Plot = Annotated[Path | None, typer.Option(help="Draw the scores into this .png, .svg or .pdf.")]
OnError = Annotated[
    str, typer.Option(metavar="raise|report", help="report: set rows aside that cannot be processed, and say which.")
]
Rejected = Annotated[
    str | None,
    typer.Option(
        metavar="FILE", help="With --on-error report: write which, and why, to a .csv, .tsv, .parquet or .jsonl file."
    ),
]
Artifact = Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a fitted predictor.")]


def one_or_several(label: list[str]) -> str | list[str]:
    """An option that may be given again, as the library takes it: one name by itself."""
    return label[0] if len(label) == 1 else label


def reporter_of(verbosity: int) -> Reporter:
    """What talks to the terminal; at verbosity 0 no warning is shown either."""
    if verbosity == 0:
        warnings.simplefilter("ignore")
    return Reporter(verbosity)


def check_rejected(on_error: str, rejected: str | None, source: str, *, overwrite: bool = False) -> None:
    """Fails now rather than after the work, where rejected rows are not to be reported as asked for.

    Args:
        on_error, rejected: The two options.
        source: The file of rows.
        overwrite: Whether `rejected` may be there already.

    Raises:
        ConfigError: Options that do not fit, or a file that cannot be written.
        PathExistsError: The file is there.
    """
    from featherfit.data.rows import check_on_error
    from featherfit.data.write import check_target

    check_on_error(on_error, "--on-error ")
    if rejected is None:
        return
    if on_error != "report":
        raise ConfigError("--rejected goes with --on-error report.")
    check_target(source, rejected, overwrite=overwrite, name="--rejected")


def tell_rejected(reporter: Reporter, rows: pd.DataFrame, target: str | None, *, overwrite: bool = False) -> None:
    """Shows which rows were set aside, and writes them down where that is asked for."""
    from featherfit.data.write import write_rejected

    reporter.rejections(rows)
    if target is not None:
        write_rejected(rows, target, overwrite=overwrite)


def check_plot(target: Path | None) -> None:
    """Fails now rather than after the work, where a picture is wanted and cannot be drawn.

    Raises:
        MissingDependencyError: matplotlib is not installed.
        ConfigError: A file it cannot draw into.
    """
    if target is not None:
        require_plotting()
        check_picture(target, "--plot")
