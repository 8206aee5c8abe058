"""What a run has to tell goes in, the terminal shows it. The only module that prints.

Progress, tables about the run, warnings and errors go to stderr; what was asked for (scores, predictions) to stdout.
"""

from __future__ import annotations

import contextlib
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, TextIO

from featherfit.training.launch import speaks

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console
    from rich.progress import Progress

    from featherfit.data.findings import DataReport
    from featherfit.types import ModelSize, StepReport

QUIET_VARIABLES = ("FEATHERFIT_DISABLE_PROGRESS_BAR", "AUTOMM_DISABLE_PROGRESS_BAR", "AUTOMM_TUTORIAL_MODE")
"""Any of these, set to anything but 0, turns live bars off; the last two are AutoMM's."""

FEW_ROWS = 256
"""Predictions of fewer rows show no bar."""

MOST_REJECTIONS = 10
"""Rejected cells that are shown."""

WIDE = 200
"""Columns of a table that goes to a file or a pipe, where nothing is known about the width."""


class Reporter:
    """Tables, lines and live bars on a terminal; plain lines elsewhere.

    Attributes:
        verbosity: 0 silent, 1 warnings, 2 progress (without a bar: a line for every validation), 3 such lines beside a
            bar too, 4 a line for every step.
        bars: Whether live bars are shown.
        speaks: Whether this is the one process that speaks; of the others only errors are heard.
    """

    def __init__(self, verbosity: int = 2, enable_progress_bar: bool | None = None):
        """Decides about bars once.

        Args:
            verbosity: 0 to 4.
            enable_progress_bar: False for no live bars, True for bars even where stderr is no terminal, None for bars
                on a terminal. A variable in `QUIET_VARIABLES` and a verbosity below 2 turn them off in any case.
        """
        self.speaks = speaks()
        self.verbosity = verbosity = verbosity if self.speaks else 0
        quiet = verbosity < 2 or any(os.environ.get(name, "0") not in ("", "0") for name in QUIET_VARIABLES)
        self._forced = enable_progress_bar is True
        self.bars = not quiet and (sys.stderr.isatty() if enable_progress_bar is None else enable_progress_bar)

    @cached_property
    def console(self) -> Console:
        """Writes to the present stderr."""
        return _console(sys.stderr, stderr=True, force_terminal=True if self.bars and self._forced else None)

    @cached_property
    def results(self) -> Console:
        """Writes to the present stdout."""
        return _console(sys.stdout)

    def info(self, message: str) -> None:
        """One line, at verbosity 2 and above."""
        if self.verbosity >= 2 and message:
            self.console.print(message, markup=False, soft_wrap=True)

    def warn(self, message: str) -> None:
        """A warning, at verbosity 1 and above."""
        if self.verbosity >= 1:
            self._marked("Warning:", "yellow", message)

    def error(self, message: str) -> None:
        """What went wrong; shown at any verbosity."""
        self._marked("Error:", "red", message)

    def interrupted(self, message: str) -> None:
        """That the run was ended by a signal; once, though all processes were."""
        if self.speaks:
            self.error(message)

    def result(self, text: str) -> None:
        """What was asked for, on stdout as it is."""
        if not self.speaks:
            return
        sys.stdout.write(text if text.endswith("\n") else f"{text}\n")

    def show(self, result: Mapping[str, Any], as_json: bool, title: str = "") -> None:
        """A result on stdout, as one line of JSON, or as a table with a row for each value that is not None."""
        plain = _plain(result)
        if as_json:
            import json

            self.result(json.dumps(plain, ensure_ascii=False, allow_nan=False))
            return
        rows = [{"what": name, "value": value} for name, value in _leaves(plain) if value is not None]
        self.scores_table(rows, title)

    def findings(self, report: DataReport | None) -> None:
        """What was found in the data: warnings at verbosity 1 and above, notes at 2."""
        for finding in report or ():
            if finding.severity == "warning":
                self.warn(finding.message)
            else:
                self.info(finding.message)

    def rejections(self, rejected: pd.DataFrame) -> None:
        """The first cells that kept rows from being processed, and how many more there are; at verbosity 1 and above."""
        if self.verbosity < 1:
            return
        for cell in rejected.head(MOST_REJECTIONS).to_dict("records"):
            where = f" of {cell['table']}" if "table" in cell else ""
            self.console.print(
                f"  Row {cell['index']!r}{where}, column {cell['column']!r}: {cell['reason']}.",
                markup=False,
                soft_wrap=True,
            )
        if len(rejected) > MOST_REJECTIONS:
            self.console.print(f"  and {len(rejected) - MOST_REJECTIONS} more cells.", markup=False, soft_wrap=True)

    def model_table(self, size: ModelSize, title: str) -> None:
        """Trainable and total parameters of each part, and megabytes; at verbosity 2 and above."""
        if self.verbosity < 2:
            return
        from rich.table import Table

        caption = f"{size.megabytes:,.3f} MB, {size.adapters} adapters"
        table = Table(title=title, caption=caption, title_justify="left", caption_justify="left")
        for heading in ("part", "parameters", "trainable", "share"):
            table.add_column(heading, justify="left" if heading == "part" else "right")
        for name, (trainable, total) in {**size.by_part, "total": (size.trainable, size.total)}.items():
            share = f"{100 * trainable / total:.3f} %" if total else ""
            table.add_row(name, f"{human_count(total)} ({total:,})", f"{human_count(trainable)} ({trainable:,})", share)
        self.console.print(table)

    def scores_table(self, rows: Sequence[Mapping[str, Any]], title: str = "") -> None:
        """A table on stdout with a row for each mapping; the first one's keys are the columns.

        Args:
            rows: Values by column; floats are shown with four digits.
            title: Stands above it.
        """
        if not rows:
            return
        from rich.table import Table
        from rich.text import Text

        table = Table(title=title or None, title_justify="left")
        for key, value in rows[0].items():
            number = isinstance(value, int | float) and not isinstance(value, bool)
            table.add_column(str(key), justify="right" if number else "left", overflow="fold")
        for row in rows:
            cells = (f"{value:.4f}" if isinstance(value, float) else str(value) for value in row.values())
            table.add_row(*map(Text, cells))
        with self.results.capture() as shown:  # printed by rich, a closed pipe would end the process
            self.results.print(table)
        self.result(shown.get())

    @contextlib.contextmanager
    def training_progress(self, total_steps: int, metric: str, what: str = "training") -> Iterator[TrainingProgress]:
        """Shows every step's report while the block runs.

        Args:
            total_steps: Steps planned.
            metric: Name of the validation metric.
            what: What the steps are, before the bar.
        """
        if not self.bars:
            yield TrainingProgress(self, metric)
            return
        with self._bar(what, "{task.fields[text]}") as bar:
            task = bar.add_task("", total=total_steps, text="")
            yield TrainingProgress(self, metric, lambda step, text: bar.update(task, completed=step, text=text))

    @contextlib.contextmanager
    def prediction_progress(self, total_rows: int) -> Iterator[Callable[[int], None] | None]:
        """A function to call with the number of rows just done, or None where no bar is shown."""
        if not self.bars or total_rows < FEW_ROWS:
            yield None
            return
        with self._bar("rows", transient=True) as bar:
            task = bar.add_task("", total=total_rows)
            yield lambda rows: bar.advance(task, rows)

    def _bar(self, *texts: str, transient: bool = False) -> Progress:
        """A live bar: the first text before it, the others after it, then the time left."""
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        before, *after = (TextColumn(text) for text in texts)
        columns = (before, BarColumn(), MofNCompleteColumn(), *after, TimeRemainingColumn())
        return Progress(*columns, console=self.console, transient=transient)

    def _marked(self, mark: str, colour: str, message: str) -> None:
        from rich.text import Text

        self.console.print(Text.assemble((mark, f"bold {colour}"), " ", message), soft_wrap=True)


class TrainingProgress:
    """Turns step reports into a live bar, or into a line after each validation where there is no bar."""

    def __init__(self, reporter: Reporter, metric: str, bar: Callable[[int, str], None] | None = None):
        """Args are the reporter, the validation metric's name, and what sets a bar to a step and a text."""
        self._reporter, self._metric, self._bar = reporter, metric, bar
        self._score: float | None = None

    def update(self, report: StepReport) -> None:
        """Shows what `report` says."""
        if report.score is not None:
            self._score = report.score
        score = "" if self._score is None else f", val {self._metric} {self._score:.4f}"
        speed = f", {report.rows / report.seconds:.1f} rows/s" if report.seconds > 0 else ""
        text = f"loss {report.loss:.4f}{score}{speed}"
        if self._bar is not None:
            self._bar(report.step, text)
        for_a_line = 4 if report.score is None else 3 if self._bar is not None else 2
        if self._reporter.verbosity >= for_a_line:
            left = report.seconds / report.step * (report.total_steps - report.step)
            self._reporter.info(
                f"step {report.step}/{report.total_steps}, epoch {report.epoch}: {text}, {left:.0f} s left"
            )


def human_count(number: int) -> str:
    """A count in three or fewer digits, cut and not rounded: 203778 is `203 K`, 1223728130 is `1.2 B`."""
    for size, unit in ((10**9, "B"), (10**6, "M"), (10**3, "K")):
        if number >= size:
            whole, tenth = divmod(number * 10 // size, 10)
            return f"{whole} {unit}" if whole >= 100 else f"{whole}.{tenth} {unit}"
    return str(number)


def _leaves(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    leaves = []
    for name, value in values.items():
        key = f"{prefix}{name}"
        leaves += _leaves(value, f"{key}.") if isinstance(value, dict) else [(key, value)]
    return leaves


def _plain(value: Any) -> Any:
    """JSON values: numpy's become Python's, and a number that JSON lacks becomes null."""
    if isinstance(value, dict):
        return {str(_plain(key)): _plain(item) for key, item in value.items()}
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _console(stream: TextIO, **settings: Any) -> Console:
    from rich.console import Console

    width = None if stream.isatty() else WIDE
    return Console(width=width, highlight=False, **settings)
