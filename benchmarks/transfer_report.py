"""Runs of `transfer.py` go in; Markdown tables and a plot of differences to the baseline come out."""

from __future__ import annotations

from pathlib import Path
from statistics import mean, median, stdev
from typing import Any


def unseen(run: dict[str, Any], english: str) -> float:
    """Mean score over the languages that were not trained in."""
    return mean(score for language, score in run["scores"].items() if language != english)


def by_recipe(runs: list[dict[str, Any]]) -> dict[str, dict[int, dict[str, Any]]]:
    """Runs by recipe and seed, in the order in which recipes first appear."""
    table: dict[str, dict[int, dict[str, Any]]] = {}
    for run in runs:
        table.setdefault(run["recipe"], {})[run["seed"]] = run
    return table


def difference(
    runs: dict[int, dict[str, Any]], baseline: dict[int, dict[str, Any]], english: str
) -> tuple[float, float | None] | None:
    """Mean difference of the unseen mean, over the seeds both have, and half the width of its 95 % interval.

    The interval is None for a single seed; the whole None without a seed in common.
    """
    from scipy.stats import t

    seeds = sorted(set(runs) & set(baseline))
    gains = [unseen(runs[seed], english) - unseen(baseline[seed], english) for seed in seeds]
    if not gains:
        return None
    if len(gains) == 1:
        return gains[0], None
    return mean(gains), float(t.ppf(0.975, len(gains) - 1)) * stdev(gains) / len(gains) ** 0.5


def signed(gain: tuple[float, float | None] | None) -> str:
    """In points: +2.1 ± 0.4."""
    if gain is None:
        return ""
    return f"{100 * gain[0]:+.1f}" + ("" if gain[1] is None else f" ± {100 * gain[1]:.1f}")


def markdown(runs: list[dict[str, Any]], english: str, baseline: str) -> str:
    """A row for every recipe: means over the seeds by language, the unseen mean, its difference, seconds of `fit`."""
    table = by_recipe(runs)
    names = list(runs[0]["scores"])
    heads = ["recipe", "seeds", *names, "unseen", f"less {baseline}, points", "fit, s", "KB"]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for recipe, own in table.items():
        cells = [f"{mean(run['scores'][name] for run in own.values()):.3f}" for name in names]
        cells.append(f"{mean(unseen(run, english) for run in own.values()):.3f}")
        gain = difference(own, table[baseline], english) if baseline in table and recipe != baseline else None
        timed = [run["fit_s"] for run in own.values() if run["alone"]]
        sizes = [run["artifact_kb"] for run in own.values() if "artifact_kb" in run]
        cells += [signed(gain), f"{median(timed):.0f}" if timed else "", f"{median(sizes):.0f}" if sizes else ""]
        lines.append(f"| {recipe} | {len(own)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def plot(runs: list[dict[str, Any]], english: dict[str, str], baseline: str, path: Path) -> None:
    """Points and 95 % intervals of the difference to the baseline, a panel for every task."""
    from matplotlib.figure import Figure

    tasks = list(dict.fromkeys(run["task"] for run in runs))
    recipes = [name for name in dict.fromkeys(run["recipe"] for run in runs) if name != baseline]
    figure = Figure(figsize=(3.2 * len(tasks) + 2, 1.2 + 0.28 * len(recipes)), layout="constrained")
    panels = figure.subplots(1, len(tasks), sharey=True, squeeze=False)[0]
    for axes, task in zip(panels, tasks, strict=True):
        table = by_recipe([run for run in runs if run["task"] == task])
        for place, recipe in enumerate(recipes):
            gain = difference(table.get(recipe, {}), table.get(baseline, {}), english[task])
            if gain is not None:
                axes.errorbar(
                    100 * gain[0], place, xerr=None if gain[1] is None else 100 * gain[1], fmt="o", color="C0"
                )
        axes.axvline(0, color="black", linewidth=1)
        axes.set_title(task)
        axes.set_xlabel(f"points over {baseline}, unseen languages")
        axes.set_yticks(range(len(recipes)), recipes)
    panels[0].invert_yaxis()
    figure.savefig(path, dpi=150)
