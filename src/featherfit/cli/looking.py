"""What is at hand, and what it can do: `inspect`, `checkpoints` and `demo`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from featherfit.cli.options import (
    DATA,
    Json,
    OutputFolder,
    Plot,
    Seed,
    Verbosity,
    check_plot,
    one_or_several,
    reporter_of,
)
from featherfit.errors import ConfigError


def inspect(
    artifact: Annotated[Path | None, typer.Argument(metavar="DIR", help="Folder of a fitted predictor.")] = None,
    data: Annotated[str | None, typer.Option(help=f"{DATA}, to see what its columns would be taken for.")] = None,
    label: Annotated[
        list[str] | None, typer.Option(help="With --data: the column to predict; may be given again for several.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show what is in an artifact, without loading weights, or what a table is taken for."""
    if (artifact is None) == (data is None):
        raise ConfigError("Give either DIR or --data FILE.")
    reporter = reporter_of(2)
    if data is None:
        if label:
            raise ConfigError("--label goes with --data; an artifact has its own.")
        from featherfit.artifact.store import inspect_artifact

        reporter.show(inspect_artifact(str(artifact)), as_json, f"Artifact {artifact}")
        return
    from featherfit.data.findings import check_data
    from featherfit.data.load import load_table
    from featherfit.data.schema import infer_schema

    frame = load_table(data)
    schema = infer_schema(frame, one_or_several(label) if label else None)
    report = check_data(frame, None, schema)
    if as_json:
        reporter.show({"rows": len(frame), **schema.to_json(), "findings": report.to_json()}, as_json)
        return
    rows = [{"column": name, "type": kind, "why": schema.reasons[name]} for name, kind in schema.columns.items()]
    reporter.scores_table(rows, f"{len(frame)} rows of {data}")
    if schema.problem_reason:
        reporter.result(schema.problem_reason)
    reporter.result(str(report))


def checkpoints(as_json: Json = False) -> None:
    """List pretrained weights that are on this computer or one command away."""
    from featherfit.checkpoints import available_checkpoints

    entries = available_checkpoints()
    reporter = reporter_of(2)
    if as_json:
        reporter.show({"checkpoints": [asdict(entry) for entry in entries]}, as_json)
        return
    rows = [
        {
            "name": entry.name,
            "MB": round(entry.size_mb),
            "source": entry.source,
            "get it": entry.how_to_get or "at hand",
            "about": entry.note,
        }
        for entry in entries
    ]
    reporter.scores_table(rows, "Checkpoints")


def demo(
    plot: Plot = None,
    path: OutputFolder = None,
    seed: Seed = 0,
    verbosity: Verbosity = 2,
    as_json: Json = False,
) -> None:
    """Train on English reviews, score reviews in seven languages: a minute or two on a CPU."""
    from featherfit.demo.run import plot_demo, run_demo, show_demo

    check_plot(plot)
    reporter = reporter_of(verbosity)
    result = run_demo(reporter, seed=seed, folder=path)
    if plot is not None:
        plot_demo(result, plot)
    if as_json:
        reporter.show(result, as_json)
    else:
        show_demo(result, reporter)
