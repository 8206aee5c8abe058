"""Words of a command line go in; results on stdout, everything else on stderr and an exit code come out.

Heavy modules are imported inside the commands, so that `--help` answers at once.
"""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import featherfit
from featherfit import errors
from featherfit.errors import ConfigError
from featherfit.report import Reporter
from featherfit.training.launch import tells

if TYPE_CHECKING:
    import pandas as pd

_TRAINING = dict.fromkeys((errors.TrainingError, errors.RankLostError, errors.StorageError), 5)
EXIT_CODES = {errors.CheckpointError: 3, errors.ArtifactError: 4, **_TRAINING, errors.FeatherfitError: 2}
"""By the first class an error is an instance of; usage errors end with 2 too and anything else with 1."""

PLOTS = (".png", ".svg", ".pdf")

EPILOG = (
    "Exit codes: 0 fine; 2 wrong usage, settings or data; 3 pretrained weights not found or not as expected; 4 a "
    "damaged or foreign artifact; 5 training could not go on, or nothing be written; 130 and 143 interrupted (SIGINT, "
    "SIGTERM); 1 anything unexpected. FEATHERFIT_DEBUG=1 adds the traceback."
)

app = typer.Typer(
    help="Fine-tunes multilingual text models by training a sliver of their weights.",
    epilog=EPILOG,
    add_completion=False,
    pretty_exceptions_enable=False,
)

DATA = "A CSV, TSV, Parquet or JSON-lines file"
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Verbosity = Annotated[int, typer.Option(min=0, max=4, help="0 silent, 1 warnings, 2 progress, 3 more, 4 every step.")]
OutputFolder = Annotated[Path | None, typer.Option(help="Folder to write; default featherfit-models/<time>.")]
Seed = Annotated[int, typer.Option(help="Decides holdout, order and initial weights.")]
Artifact = Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a fitted predictor.")]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        arguments: Words after `featherfit`; default: those of this process.

    Returns:
        The exit code.
    """
    words = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            # Not `command.main`, which has ways of its own with interrupts and closed pipes.
            command = typer.main.get_command(app)
            with command.make_context("featherfit", words) as context:
                command.invoke(context)
            sys.stdout.flush()
        return 0
    except typer.Exit as done:
        return done.exit_code
    except BrokenPipeError:  # the reader of our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (KeyboardInterrupt, typer.Abort) as stopped:
        Reporter().interrupted(str(stopped) or "Interrupted.")
        return getattr(stopped, "exit_code", 130)
    except Exception as error:
        return _fail(error, as_json="--json" in words)


@app.callback(invoke_without_command=True)
def _options(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        Reporter().result(f"featherfit {featherfit.__version__}")
        raise typer.Exit


@app.command()
def fit(
    data: Annotated[str, typer.Argument(metavar="DATA", help=f"{DATA} to learn from.")],
    label: Annotated[str, typer.Option(help="Column to predict.")],
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Such as optim.peft=lora optim.lr=1e-3.")
    ] = None,
    presets: Annotated[str | None, typer.Option(help="Preset, such as multilingual.")] = None,
    path: OutputFolder = None,
    tuning_data: Annotated[str | None, typer.Option(help="Rows to validate on; default: a holdout.")] = None,
    column_type: Annotated[
        list[str] | None, typer.Option(metavar="NAME=TYPE", help="Type of a column, not inferred; may be given again.")
    ] = None,
    problem_type: Annotated[str | None, typer.Option(help="binary, multiclass or regression.")] = None,
    eval_metric: Annotated[str | None, typer.Option(help="Metric to choose the weights and to score by.")] = None,
    holdout_frac: Annotated[float | None, typer.Option(help="Share of rows to hold out, 0 to 1.")] = None,
    time_limit: Annotated[float | None, typer.Option(help="Seconds after which training stops.")] = None,
    seed: Seed = 0,
    standalone: Annotated[bool, typer.Option("--standalone", help="Put the pretrained weights in too.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the fit interrupted at --path.")] = False,
    verbosity: Verbosity = 2,
    as_json: Json = False,
) -> None:
    """Train on a table and write an artifact."""
    reporter = _reporter(verbosity)
    words: Any = dict(label=label, problem_type=problem_type, eval_metric=eval_metric, verbosity=verbosity)
    if resume and not path:
        raise ConfigError("--resume needs the --path of the fit that was interrupted.")
    kind = featherfit.MultiModalPredictor
    predictor = kind._resumed(path, **words) if resume and path else kind(path=path, **words)
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
    )
    classes = None if predictor.problem_type == "regression" else predictor.class_labels
    result = {
        "path": predictor.path,
        "label": label,
        "problem_type": predictor.problem_type,
        "classes": classes,
        "eval_metric": predictor.eval_metric,
        "total_parameters": predictor.total_parameters,
        "trainable_parameters": predictor.trainable_parameters,
        "megabytes": predictor.model_size,
        "summary": predictor.fit_summary(),
    }
    reporter.show(result, as_json, "Fitted")


@app.command()
def plan(
    data: Annotated[str, typer.Argument(metavar="DATA", help=f"{DATA} to learn from.")],
    label: Annotated[str, typer.Option(help="Column to predict.")],
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Such as optim.peft=lora env.memory_budget=8GB.")
    ] = None,
    presets: Annotated[str | None, typer.Option(help="Preset, such as multilingual.")] = None,
    tuning_data: Annotated[str | None, typer.Option(help="Rows to validate on; default: a holdout.")] = None,
    column_type: Annotated[
        list[str] | None, typer.Option(metavar="NAME=TYPE", help="Type of a column, not inferred; may be given again.")
    ] = None,
    problem_type: Annotated[str | None, typer.Option(help="binary, multiclass or regression.")] = None,
    holdout_frac: Annotated[float | None, typer.Option(help="Share of rows to hold out, 0 to 1.")] = None,
    seed: Seed = 0,
    standalone: Annotated[bool, typer.Option("--standalone", help="Put the pretrained weights in too.")] = False,
    verbosity: Verbosity = 2,
    as_json: Json = False,
) -> None:
    """Say what a fit would need: memory, time and disk. Nothing is trained."""
    reporter = _reporter(verbosity)
    predictor = featherfit.MultiModalPredictor(label=label, problem_type=problem_type, verbosity=verbosity)
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


@app.command()
def evaluate(
    artifact: Artifact,
    data: Annotated[str, typer.Argument(metavar="DATA", help=f"{DATA} with the label column.")],
    metric: Annotated[
        list[str] | None, typer.Option(help="Default: the predictor's own; may be given again.", show_default=False)
    ] = None,
    verbosity: Verbosity = 2,
    as_json: Json = False,
) -> None:
    """Score a predictor on a table with labels."""
    from featherfit.data.load import load_table

    reporter = _reporter(verbosity)
    frame = load_table(data)
    predictor = featherfit.MultiModalPredictor.load(artifact, verbosity=verbosity)
    scores = predictor.evaluate(frame, metrics=metric or None)
    if as_json:
        reporter.show({"rows": len(frame), "scores": scores}, as_json)
    else:
        rows = [{"metric": name, "score": float(score)} for name, score in scores.items()]
        reporter.scores_table(rows, f"{len(frame)} rows of {data}")


@app.command()
def predict(
    artifact: Artifact,
    data: Annotated[str, typer.Argument(metavar="DATA", help=f"{DATA}; a label column is not needed.")],
    output: Annotated[
        str, typer.Option(help="A .csv, .tsv, .parquet or .jsonl file for any number of rows, or - for CSV on stdout.")
    ] = "-",
    proba: Annotated[bool, typer.Option("--proba", help="Add the probability of every class.")] = False,
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
    reporter = _reporter(verbosity)
    if output != "-":
        from featherfit.data.write import check_target

        check_target(data, output, overwrite=overwrite, name="--output")
        predictor = featherfit.MultiModalPredictor.load(artifact, verbosity=verbosity)
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
    predictor = featherfit.MultiModalPredictor.load(artifact, verbosity=verbosity)
    table = _predictions(predictor, frame, proba)
    if as_json:
        reporter.show({"predictions": table.to_dict("records")}, as_json)
    else:
        reporter.result(table.to_csv(index=False, lineterminator="\n"))


@app.command()
def inspect(
    artifact: Annotated[Path | None, typer.Argument(metavar="DIR", help="Folder of a fitted predictor.")] = None,
    data: Annotated[str | None, typer.Option(help=f"{DATA}, to see what its columns would be taken for.")] = None,
    label: Annotated[str | None, typer.Option(help="With --data: the column to predict.")] = None,
    as_json: Json = False,
) -> None:
    """Show what is in an artifact, without loading weights, or what a table is taken for."""
    if (artifact is None) == (data is None):
        raise ConfigError("Give either DIR or --data FILE.")
    reporter = _reporter(2)
    if data is None:
        if label is not None:
            raise ConfigError("--label goes with --data; an artifact has its own.")
        from featherfit.artifact.store import inspect_artifact

        reporter.show(inspect_artifact(str(artifact)), as_json, f"Artifact {artifact}")
        return
    from featherfit.data.load import load_table
    from featherfit.data.schema import infer_schema

    frame = load_table(data)
    schema = infer_schema(frame, label)
    if as_json:
        reporter.show({"rows": len(frame), **schema.to_json()}, as_json)
        return
    rows = [{"column": name, "type": kind, "why": schema.reasons[name]} for name, kind in schema.columns.items()]
    reporter.scores_table(rows, f"{len(frame)} rows of {data}")
    if schema.problem_reason:
        reporter.result(schema.problem_reason)


@app.command()
def checkpoints(as_json: Json = False) -> None:
    """List pretrained weights that are on this computer or one command away."""
    from featherfit.checkpoints import available_checkpoints

    entries = available_checkpoints()
    reporter = _reporter(2)
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


@app.command()
def demo(
    plot: Annotated[Path | None, typer.Option(help="Draw the scores into this .png, .svg or .pdf.")] = None,
    path: OutputFolder = None,
    seed: Seed = 0,
    verbosity: Verbosity = 2,
    as_json: Json = False,
) -> None:
    """Train on English reviews, score reviews in seven languages: a minute or two on a CPU."""
    from featherfit.demo.run import plot_demo, require_plotting, run_demo, show_demo

    if plot is not None:
        require_plotting()
        _check_plot(plot)
    reporter = _reporter(verbosity)
    result = run_demo(reporter, seed=seed, folder=path)
    if plot is not None:
        plot_demo(result, plot)
    if as_json:
        reporter.show(result, as_json)
    else:
        show_demo(result, reporter)


def _reporter(verbosity: int) -> Reporter:
    if verbosity == 0:
        warnings.simplefilter("ignore")
    return Reporter(verbosity)


def _column_types(texts: list[str]) -> dict[str, str]:
    """The types by column; all texts that say none in one error."""
    pairs = [text.rpartition("=") for text in texts]
    problems = [f"--column-type {''.join(pair)!r} is not of the form NAME=TYPE." for pair in pairs if not all(pair)]
    if problems:
        raise ConfigError(problems)
    return {name: kind for name, _, kind in pairs}


def _predictions(predictor: featherfit.MultiModalPredictor, frame: pd.DataFrame, proba: bool) -> pd.DataFrame:
    """A column with the label's name and, with `proba`, one for every class."""
    if not proba:
        predictions: Any = predictor.predict(frame, as_pandas=True)
        return predictions.to_frame(predictor.label)
    probabilities: Any = predictor.predict_proba(frame, as_pandas=True)
    best = probabilities.to_numpy().argmax(axis=1)
    table = probabilities.add_prefix("proba_")
    table.insert(0, str(predictor.label), probabilities.columns.to_numpy()[best])
    return table


def _check_plot(target: Path) -> None:
    """Refuses a file that cannot be drawn into.

    Raises:
        ConfigError: An ending that is none of `PLOTS`, or a folder that does not exist.
    """
    if target.suffix.lower() not in PLOTS:
        raise ConfigError(f"--plot {target}: a file's name has to end in one of {', '.join(PLOTS)}.")
    if not target.parent.is_dir():
        raise ConfigError(f"--plot {target}: there is no folder {target.parent}.")


def _show_warning(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
    Reporter().warn(str(message))


def _fail(error: Exception, as_json: bool) -> int:
    """Says what went wrong, unless another process does, and returns the exit code."""
    # The class of usage errors lies in different places in typer's versions; only they have this method.
    usage = getattr(error, "format_message", None)
    ours = next((code for kind, code in EXIT_CODES.items() if isinstance(error, kind)), None)
    code = 2 if usage else ours or 1
    if not tells(error):
        return code
    reporter, message = Reporter(), usage() if usage else str(error)
    if os.environ.get("FEATHERFIT_DEBUG", "0") not in ("", "0"):
        reporter.error("".join(traceback.format_exception(error)))
    elif usage:
        reporter.error(f"{message} `featherfit --help` shows what is allowed.")
    elif ours is not None:
        reporter.error(message)
    else:
        reporter.error(f"{type(error).__name__}: {message}\nThis was not expected; FEATHERFIT_DEBUG=1 shows where.")
    if as_json:
        kind = "UsageError" if usage else type(error).__name__
        reporter.show({"error": {"kind": kind, "message": message}}, as_json)
    return code
