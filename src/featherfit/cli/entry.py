"""Words of a command line go in; results on stdout, everything else on stderr and an exit code come out.

Heavy modules are imported inside the commands, so that `--help` answers at once.
"""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import Annotated, Any

import typer

import featherfit
from featherfit import errors
from featherfit.cli.looking import checkpoints, demo, inspect
from featherfit.cli.predicting import evaluate, predict
from featherfit.cli.training import fit, plan
from featherfit.report import Reporter
from featherfit.training.launch import tells

_TRAINING = dict.fromkeys((errors.TrainingError, errors.RankLostError, errors.StorageError), 5)
EXIT_CODES = {errors.CheckpointError: 3, errors.ArtifactError: 4, **_TRAINING, errors.FeatherfitError: 2}
"""By the first class an error is an instance of; usage errors end with 2 too and anything else with 1."""

COMMANDS = (fit, plan, evaluate, predict, inspect, checkpoints, demo)
"""In the order of `--help`."""

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
for command in COMMANDS:
    app.command()(command)


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
