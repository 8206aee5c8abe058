"""Scores slice by slice go in; a picture of them goes to a file."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from featherfit.errors import ConfigError, MissingDependencyError

if TYPE_CHECKING:
    from featherfit.evaluation.slices import SlicedScores

PLOTS = (".png", ".svg", ".pdf")


def require_plotting() -> None:
    """Fails now rather than after the work.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    from importlib.util import find_spec

    if find_spec("matplotlib") is None:
        raise MissingDependencyError('Plots need matplotlib: pip install "featherfit[plot]"')


def check_picture(target: str | Path, argument: str) -> None:
    """Refuses a file that cannot be drawn into.

    Args:
        target: The file.
        argument: What the user called it, for messages.

    Raises:
        ConfigError: An ending that is none of `PLOTS`, or a folder that does not exist.
    """
    target = Path(target)
    if target.suffix.lower() not in PLOTS:
        raise ConfigError(f"{argument} {target}: a file's name has to end in one of {', '.join(PLOTS)}.")
    if not target.parent.is_dir():
        raise ConfigError(f"{argument} {target}: there is no folder {target.parent}.")


def plot_slices(scores: SlicedScores, target: str | Path) -> None:
    """Draws a panel for each metric: slices from top to bottom, their intervals, and a line at the reference.

    Raises:
        MissingDependencyError: matplotlib is not installed.
        ConfigError: See `check_picture`.
    """
    require_plotting()
    check_picture(target, "path")
    from matplotlib.figure import Figure

    places = list(range(len(scores.slices)))
    figure = Figure(figsize=(1.5 + 4 * len(scores.metrics), 1.5 + 0.35 * len(places)), layout="constrained")
    panels = figure.subplots(1, len(scores.metrics), sharey=True, squeeze=False)[0]
    for axes, metric in zip(panels, scores.metrics, strict=True):
        shown = [part.scores[metric] for part in scores.slices]
        ends = [
            (0.0, 0.0) if math.isnan(at.low) else (max(at.value - at.low, 0), max(at.high - at.value, 0))
            for at in shown
        ]
        axes.errorbar(
            [at.value for at in shown], places, xerr=list(zip(*ends, strict=True)), fmt="o", markersize=5, capsize=3
        )
        axes.axvline(scores[scores.reference].scores[metric].value, color="grey", linewidth=1, linestyle=":")
        axes.set_xlabel(metric)
    panels[0].set_yticks(places, [f"{part.name} ({part.rows})" for part in scores.slices])
    panels[0].invert_yaxis()
    figure.suptitle(f"95 % intervals; dotted: {scores.reference}", fontsize=9)
    figure.savefig(target, dpi=150)
