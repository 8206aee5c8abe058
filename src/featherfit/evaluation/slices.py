"""Predicted rows and the slice of each go in; a record of every slice's scores, their intervals and gaps comes out."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from featherfit.evaluation.bootstrap import interval, resampled, score_quietly
from featherfit.evaluation.calibration import expected_calibration_error
from featherfit.evaluation.metrics import METRICS
from featherfit.evaluation.predicted import Predicted

if TYPE_CHECKING:
    import pandas as pd


FEW = 10
"""Slices of fewer rows count neither in averages nor as the worst, unless all are so small."""


@dataclass(frozen=True)
class Estimate:
    """A number and its 95 % interval; NaN where it is not defined, or rows cannot say how sure it is."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        if math.isnan(self.value):
            return "not defined"
        return f"{self.value:.4f}" + ("" if math.isnan(self.low) else f" [{self.low:.4f}, {self.high:.4f}]")


@dataclass(frozen=True)
class Slice:
    """The rows that have the same values in the columns sliced by.

    Attributes:
        name: These values.
        values: The same, one for each column.
        rows: How many.
        scores: By metric.
        gaps: By metric, this slice's score less the reference's.
        calibration_error: Expected calibration error, 0 to 1; None for numbers.
    """

    name: str
    values: tuple[str, ...]
    rows: int
    scores: dict[str, Estimate]
    gaps: dict[str, Estimate]
    calibration_error: float | None


@dataclass(frozen=True)
class SlicedScores:
    """Scores slice by slice.

    Attributes:
        by: The columns sliced by.
        metrics: Standard names.
        reference: Name of the slice that gaps are to.
        reference_reason: Why this one.
        slices: The reference, then the others in the order of the table.
        overall: Each metric of all rows together, which weighs slices by their rows.
        macro: The mean over slices of at least `FEW` rows on which the metric is defined.
        worst: By metric, the name of the slice of these with the worst score; None where it is defined on none.
        notes: What a reader has to know about single numbers, in plain sentences.
        resamples, seed: Of the bootstrap.
    """

    by: tuple[str, ...]
    metrics: tuple[str, ...]
    reference: str
    reference_reason: str
    slices: tuple[Slice, ...]
    overall: dict[str, float]
    macro: dict[str, Estimate]
    worst: dict[str, str | None]
    notes: tuple[str, ...]
    resamples: int
    seed: int

    def __getitem__(self, name: str) -> Slice:
        """The slice of that name.

        Raises:
            KeyError: There is none.
        """
        return {part.name: part for part in self.slices}[name]

    def to_json(self) -> dict[str, Any]:
        """All of it as plain values; what is not defined is NaN."""
        return asdict(self)

    def to_frame(self) -> pd.DataFrame:
        """A row for each slice: the columns sliced by, `rows`, and of every metric the score, `_low`, `_high`, `_gap`,
        `_gap_low` and `_gap_high`; for classification `calibration_error` too."""
        import pandas as pd

        lines = []
        for part in self.slices:
            line: dict[str, Any] = {**dict(zip(self.by, part.values, strict=True)), "rows": part.rows}
            for metric in self.metrics:
                for ending, estimate in (("", part.scores[metric]), ("_gap", part.gaps[metric])):
                    name = f"{metric}{ending}"
                    line |= {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
            if part.calibration_error is not None:
                line["calibration_error"] = part.calibration_error
            lines.append(line)
        return pd.DataFrame(lines)

    def rows_to_show(self) -> list[dict[str, str]]:
        """A line for each slice and for their mean, in words."""
        lines = []
        for part in self.slices:
            line = {" / ".join(self.by): part.name, "rows": str(part.rows)}
            for metric in self.metrics:
                gap = "reference" if part.name == self.reference else str(part.gaps[metric])
                line |= {metric: str(part.scores[metric]), f"{metric}, gap": gap}
            if part.calibration_error is not None:
                line["calibration error"] = f"{part.calibration_error:.4f}"
            lines.append(line)
        mean = dict.fromkeys(lines[0], "") | {metric: str(self.macro[metric]) for metric in self.metrics}
        mean |= {" / ".join(self.by): "macro average", "rows": str(sum(part.rows for part in self.slices))}
        return [*lines, mean]

    def verdict(self) -> str:
        """Plain sentences: what gaps are to, the worst slices, and the notes."""
        said = [f"Gaps are to {self.reference!r}, {self.reference_reason}. Intervals hold 95 %."]
        for metric, name in self.worst.items():
            if name is not None:
                said.append(f"Worst {metric}: {name!r}, {self[name].scores[metric].value:.4f}.")
        return "\n".join([*said, *self.notes])

    def __str__(self) -> str:
        lines = self.rows_to_show()
        widths = {key: max(len(key), *(len(line[key]) for line in lines)) for key in lines[0]}
        table = [dict(zip(widths, widths, strict=True)), *lines]
        shown = ["  ".join(line[key].ljust(width) for key, width in widths.items()).rstrip() for line in table]
        return "\n".join([*shown, self.verdict()])

    def plot(self, path: str | Path) -> None:
        """Draws every slice's scores with their intervals into a .png, .svg or .pdf file.

        Raises:
            MissingDependencyError: matplotlib is not installed.
            ConfigError: Another ending, or a folder that does not exist.
        """
        from featherfit.evaluation.chart import plot_slices

        plot_slices(self, path)


def score_slices(
    rows: Predicted,
    values: Sequence[tuple[str, ...]],
    by: Sequence[str],
    metrics: Sequence[str],
    *,
    reference: tuple[str, str] | None,
    resamples: int,
    seed: int,
) -> SlicedScores:
    """Scores each slice of the rows.

    A slice's rows are resampled by themselves, seeded by its name, so that its interval does not depend on the other
    slices; gaps and means are of such independent resamples.

    Args:
        rows: What was predicted.
        values: Each row's values in the columns sliced by.
        by: These columns.
        metrics: Standard names.
        reference: Name of the slice to measure gaps to, and why it is; None for the one with most rows.
        resamples: For intervals.
        seed: Of these.
    """
    places: dict[tuple[str, ...], list[int]] = {}
    for place, value in enumerate(values):
        places.setdefault(value, []).append(place)
    names = {" / ".join(value): value for value in places}
    first, why = reference or (max(names, key=lambda name: len(places[names[name]])), "the slice with most rows")
    parts = {name: rows.at(np.array(places[names[name]])) for name in sorted(names, key=lambda name: name != first)}
    drawn = _Drawn.of(parts, metrics, resamples, seed)
    large = [name for name in parts if len(parts[name]) >= FEW] or list(parts)
    slices = tuple(
        Slice(
            name,
            names[name],
            len(part),
            {metric: drawn.score(name, metric) for metric in metrics},
            {metric: drawn.gap(name, first, metric) for metric in metrics},
            _calibration_error(part),
        )
        for name, part in parts.items()
    )
    return SlicedScores(
        tuple(by),
        tuple(metrics),
        first,
        why,
        slices,
        {metric: score_quietly(metric, rows) for metric in metrics},
        {metric: drawn.mean(large, metric) for metric in metrics},
        {metric: _worst({name: drawn.scores[name][metric] for name in large}, metric) for metric in metrics},
        tuple(_notes(slices, metrics, [name for name in parts if name not in large])),
        resamples,
        seed,
    )


@dataclass(frozen=True)
class _Drawn:
    """Scores of slices and of their resamples, by slice and metric, and the rows of each slice."""

    scores: dict[str, dict[str, float]]
    resampled: dict[str, dict[str, np.ndarray]]
    rows: dict[str, int]

    @classmethod
    def of(cls, parts: dict[str, Predicted], metrics: Sequence[str], resamples: int, seed: int) -> _Drawn:
        """Scores and resamples the slices."""
        return cls(
            {name: {metric: score_quietly(metric, part) for metric in metrics} for name, part in parts.items()},
            {
                name: resampled(part, list(metrics), resamples, [seed, zlib.crc32(name.encode())])
                for name, part in parts.items()
            },
            {name: len(part) for name, part in parts.items()},
        )

    def score(self, name: str, metric: str) -> Estimate:
        """A slice's score."""
        return self._estimate(self.scores[name][metric], self.resampled[name][metric], [name], metric)

    def gap(self, name: str, reference: str, metric: str) -> Estimate:
        """A slice's score less the reference's; of the reference itself 0."""
        value = self.scores[name][metric] - self.scores[reference][metric]
        if name == reference:
            return Estimate(value, value, value)
        values = self.resampled[name][metric] - self.resampled[reference][metric]
        return self._estimate(value, values, [name, reference], metric)

    def mean(self, names: Sequence[str], metric: str) -> Estimate:
        """The mean over those of the slices on which the metric is defined."""
        defined = [name for name in names if not math.isnan(self.scores[name][metric])]
        if not defined:
            return Estimate(math.nan, math.nan, math.nan)
        value = float(np.mean([self.scores[name][metric] for name in defined]))
        values = np.mean([self.resampled[name][metric] for name in defined], axis=0)
        return self._estimate(value, values, defined, metric)

    def _estimate(self, value: float, values: np.ndarray, of: Sequence[str], metric: str) -> Estimate:
        if math.isnan(value):
            return Estimate(math.nan, math.nan, math.nan)
        return Estimate(value, *interval(values, [(self.resampled[name][metric], self.rows[name]) for name in of]))


def _calibration_error(rows: Predicted) -> float | None:
    """Of several labels that of all cells together; None for numbers."""
    if rows.proba is None:
        return None
    cells = rows.cells() if rows.several else rows
    return expected_calibration_error(cells.true, cells.given("proba"))


def _worst(scores: dict[str, float], metric: str) -> str | None:
    defined = {name: score for name, score in scores.items() if not math.isnan(score)}
    if not defined:
        return None
    return (min if METRICS[metric].greater_is_better else max)(defined, key=defined.__getitem__)


def _notes(slices: Sequence[Slice], metrics: Sequence[str], small: Sequence[str]) -> list[str]:
    notes = []
    if small:
        notes.append(
            f"{', '.join(map(repr, small))}: fewer than {FEW} rows, so neither in the macro average nor taken for the worst."
        )
    for metric in metrics:
        undefined = [part.name for part in slices if math.isnan(part.scores[metric].value)]
        if undefined:
            notes.append(
                f"{metric} is not defined on {', '.join(map(repr, undefined))}, where rows are of one class, lack a class or "
                "are constant; the macro average is of the others."
            )
        silent = [part.name for part in slices if part.name not in undefined and math.isnan(part.scores[metric].low)]
        if silent:
            notes.append(
                f"{metric} has no interval on {', '.join(map(repr, silent))}: too few rows, or all resamples score the same."
            )
    return notes
