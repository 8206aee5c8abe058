"""What several commands share: their options, and what is made of them."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Annotated

import typer

from featherfit.errors import ConfigError
from featherfit.report import Reporter

PLOTS = (".png", ".svg", ".pdf")

DATA = "A CSV, TSV, Parquet or JSON-lines file"
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Verbosity = Annotated[int, typer.Option(min=0, max=4, help="0 silent, 1 warnings, 2 progress, 3 more, 4 every step.")]
OutputFolder = Annotated[Path | None, typer.Option(help="Folder to write; default featherfit-models/<time>.")]
Seed = Annotated[int, typer.Option(help="Decides holdout, order and initial weights.")]
Artifact = Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a fitted predictor.")]


def reporter_of(verbosity: int) -> Reporter:
    """What talks to the terminal; at verbosity 0 no warning is shown either."""
    if verbosity == 0:
        warnings.simplefilter("ignore")
    return Reporter(verbosity)


def check_plot(target: Path) -> None:
    """Refuses a file that cannot be drawn into.

    Raises:
        ConfigError: An ending that is none of `PLOTS`, or a folder that does not exist.
    """
    if target.suffix.lower() not in PLOTS:
        raise ConfigError(f"--plot {target}: a file's name has to end in one of {', '.join(PLOTS)}.")
    if not target.parent.is_dir():
        raise ConfigError(f"--plot {target}: there is no folder {target.parent}.")
