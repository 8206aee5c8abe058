"""Runs of `versus_automm.py` go in; medians, a Markdown table and a plot of ratios come out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median
from typing import Any

BASELINE = "automm"

NOTES = """\
- In brackets: how many times better than AutoMM, so 2x is half the seconds or twice the rows per second.
- AutoMM's artifact holds all weights; the others' hold what was trained, and read the checkpoint beside it.
- AutoMM's loading needs the checkpoint too, since its adapters are on.
- Trainer keeps the model's dropout and validates once an epoch; the frozen encoder learns from all rows.
"""
"""What a reader of the table has to know."""


@dataclass(frozen=True)
class Measure:
    """A row of the table.

    Attributes:
        key: Its name in a run.
        title: Its name in the table, with the unit.
        more_is_better: Which way round a ratio is; None for no ratio.
        digits: Decimal places.
    """

    key: str
    title: str
    more_is_better: bool | None
    digits: int = 1


MEASURES = (
    Measure("fit_s", "fit, s", False),
    Measure("evaluate_rows_per_s", "evaluate, rows/s", True),
    Measure("predict_rows_per_s", "predict, rows/s", True),
    Measure("one_row_ms", "one row, quickest way, ms", False),
    Measure("one_row_default_ms", "one row, default call, ms", False),
    Measure("import_s", "import, s", False, 2),
    Measure("cold_s", "start to first prediction, s", False),
    Measure("peak_mb", "peak memory, MB", False, 0),
    Measure("growth_mb", "growth over 50 calls, MB", None),
    Measure("artifact_mb", "artifact, MB", False, 3),
)
"""Everything but the scores, in the table's order."""


def medians(runs: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Median over the seeds of every figure, by contestant; `auc <language>` for the scores.

    Args:
        runs: Each with `contestant`, `seed` and what was measured.
    """
    by_contestant: dict[str, list[dict[str, float]]] = {}
    for run in runs:
        by_contestant.setdefault(run["contestant"], []).append(flat(run))
    return {name: {key: median(row[key] for row in rows) for key in rows[0]} for name, rows in by_contestant.items()}


def flat(run: dict[str, Any]) -> dict[str, float]:
    """The figures of one run; the unseen languages' mean is taken within the run, before any median."""
    scores = {language: figures["roc_auc"] for language, figures in run["languages"].items()}
    unseen = [score for language, score in scores.items() if language != "en"]
    figures = {measure.key: run[measure.key] for measure in MEASURES}
    figures |= {f"auc {language}": score for language, score in scores.items()}
    return figures | ({"auc unseen": mean(unseen)} if unseen else {})


def advantage(measure: Measure, value: float, baseline: float) -> float:
    """How many times better than the baseline: 2 for half the seconds or twice the rows per second."""
    return value / baseline if measure.more_is_better else baseline / value


def times(ratio: float) -> str:
    """A ratio in two significant digits at least: 0.83x, 6.9x, 1,854x."""
    return f"{ratio:,.{2 if ratio < 1 else 1 if ratio < 10 else 0}f}x"


def markdown(table: dict[str, dict[str, float]]) -> str:
    """A Markdown table: a column for every contestant, and how many times better than AutoMM in brackets.

    Args:
        table: Of `medians`.
    """
    names = list(table)
    baseline = table.get(BASELINE)
    lines = ["| | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for measure in MEASURES:
        cells = []
        for name in names:
            value = table[name][measure.key]
            cell = f"{value:,.{measure.digits}f}"
            if baseline and name != BASELINE and measure.more_is_better is not None:
                cell += f" ({times(advantage(measure, value, baseline[measure.key]))})"
            cells.append(cell)
        lines.append(f"| {measure.title} | " + " | ".join(cells) + " |")
    scores = [key for key in table[names[0]] if key.startswith("auc ")]
    for key in scores:
        title = "ROC-AUC, mean of the unseen" if key == "auc unseen" else f"ROC-AUC, {key.removeprefix('auc ')}"
        cells = [f"{table[name][key]:.3f}" for name in names]
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def plot(table: dict[str, dict[str, float]], path: Path) -> None:
    """Bars of the ratios to AutoMM on a logarithmic axis; right of the line is better than AutoMM."""
    from matplotlib.figure import Figure

    others = [name for name in table if name != BASELINE]
    measures = [measure for measure in MEASURES if measure.more_is_better is not None]
    figure = Figure(figsize=(8, 1.5 + 0.2 * len(measures) * (len(others) + 1)), layout="constrained")
    axes = figure.add_subplot()
    height = 0.8 / len(others)
    for number, name in enumerate(others):
        ratios = [advantage(m, table[name][m.key], table[BASELINE][m.key]) for m in measures]
        places = [place + (number - (len(others) - 1) / 2) * height for place in range(len(measures))]
        # Bars start at 1, which is AutoMM: on a logarithmic axis a length measured from anything else means nothing.
        bars = axes.barh(places, [ratio - 1 for ratio in ratios], height, left=1, label=name)
        axes.bar_label(bars, labels=[times(ratio) for ratio in ratios], padding=3, fontsize=7)
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda ratio, _: f"{ratio:g}x")
    axes.margins(x=0.12, y=0.02)
    axes.set_yticks(range(len(measures)), [measure.title for measure in measures])
    axes.invert_yaxis()
    axes.set_xlabel("times better than AutoMM, which is the line at 1 (logarithmic)")
    axes.legend(fontsize=8, loc="best")
    figure.savefig(path, dpi=150)
