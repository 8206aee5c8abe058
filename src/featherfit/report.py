"""What a run has to tell goes in, the terminal shows it. The only module that prints; all of it goes to stderr."""

from __future__ import annotations

import contextlib
import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

    from featherfit.types import ModelSize, StepReport

# Ours, and those AutoMM documents.
QUIET_VARIABLES = ("FEATHERFIT_DISABLE_PROGRESS_BAR", "AUTOMM_DISABLE_PROGRESS_BAR", "AUTOMM_TUTORIAL_MODE")


class Reporter:
    """Tables, lines and live bars on a terminal; plain lines elsewhere.

    Attributes:
        verbosity: 0 silent, 1 warnings only (which Python's own machinery shows), 2 and more progress.
        bars: Whether live bars are shown.
    """

    def __init__(self, verbosity: int = 2, enable_progress_bar: bool | None = None):
        self.verbosity = verbosity
        quiet = any(os.environ.get(name, "") not in ("", "0") for name in QUIET_VARIABLES)
        self.bars = verbosity >= 2 and enable_progress_bar is not False and not quiet and sys.stderr.isatty()

    @property
    def console(self) -> Console:
        """A console on the present stderr."""
        from rich.console import Console

        return Console(stderr=True, highlight=False)

    def info(self, message: str) -> None:
        """One line, at verbosity 2 and above."""
        if self.verbosity >= 2 and message:
            self.console.print(message, markup=False, soft_wrap=True)

    def model_table(self, size: ModelSize, title: str) -> None:
        """Trainable and total parameters of each part, and megabytes."""
        if self.verbosity < 2:
            return
        from rich.table import Table

        table = Table(title=title, title_justify="left")
        for heading in ("part", "trainable", "total", "share"):
            table.add_column(heading, justify="left" if heading == "part" else "right")
        parts = {**size.by_part, "all": (size.trainable, size.total)}
        for name, (trainable, total) in parts.items():
            share = f"{100 * trainable / total:.3f} %" if total else ""
            table.add_row(name, f"{human_count(trainable)} ({trainable:,})", f"{human_count(total)} ({total:,})", share)
        table.caption = f"{size.megabytes:,.3f} MB, {size.adapters} adapters"
        self.console.print(table)

    @contextlib.contextmanager
    def training_progress(self, total_steps: int, metric: str) -> Iterator[TrainingProgress]:
        """Shows every step's report while the block runs."""
        if not self.bars:
            yield TrainingProgress(self.info, metric)
            return
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[text]}"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self.console) as progress:
            task = progress.add_task("", total=total_steps, text="")
            yield TrainingProgress(
                lambda text: progress.update(task, text=text),
                metric,
                lambda step: progress.update(task, completed=step),
            )

    @contextlib.contextmanager
    def prediction_progress(self, total_rows: int) -> Iterator[Callable[[int], None] | None]:
        """A function to call with the number of rows done, or None where no bar is shown."""
        if not self.bars or total_rows < 256:
            yield None
            return
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("rows"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=self.console, transient=True) as progress:
            task = progress.add_task("", total=total_rows)
            yield lambda rows: progress.advance(task, rows)

    def scores_table(self, rows: Sequence[Mapping[str, Any]], title: str, console: Console | None = None) -> None:
        """A table with a row for each mapping; the first one's keys are the columns.

        Args:
            rows: Values by column; floats are shown with four digits.
            title: Stands above it.
            console: Where to print; default stderr.
        """
        if self.verbosity < 1 or not rows:
            return
        from rich.table import Table

        table = Table(title=title, title_justify="left")
        for key, value in rows[0].items():
            table.add_column(str(key), justify="right" if isinstance(value, int | float) else "left")
        for row in rows:
            table.add_row(*(f"{value:.4f}" if isinstance(value, float) else str(value) for value in row.values()))
        (console or self.console).print(table)


class TrainingProgress:
    """Turns step reports into one line: on a bar after each step, elsewhere after each validation."""

    def __init__(self, show: Callable[[str], None], metric: str, advance: Callable[[int], None] | None = None):
        self._show, self._metric, self._advance = show, metric, advance
        self._score: float | None = None

    def update(self, report: StepReport) -> None:
        """Shows what `report` says."""
        self._score = report.score if report.score is not None else self._score
        score = "" if self._score is None else f", val {self._metric} {self._score:.4f}"
        speed = report.rows / report.seconds if report.seconds > 0 else math.nan
        text = f"loss {report.loss:.4f}{score}, {speed:.1f} rows/s"
        if self._advance is not None:
            self._advance(report.step)
            self._show(text)
        elif report.score is not None:
            left = report.seconds / report.step * (report.total_steps - report.step)
            self._show(f"step {report.step}/{report.total_steps}, epoch {report.epoch}: {text}, {left:.0f} s left")


def human_count(number: int) -> str:
    """A count in three or fewer digits, cut and not rounded: 203778 is `203 K`, 1223728130 is `1.2 B`."""
    for size, unit in ((10**9, "B"), (10**6, "M"), (10**3, "K")):
        if number >= size:
            whole = number // size
            return f"{whole} {unit}" if whole >= 10 else f"{number * 10 // size / 10:.1f} {unit}"
    return str(number)
