"""A reporter goes in; a model trained on English reviews, and its scores in seven languages, come out.

The texts and their card are in `demo/data`. Nothing here was chosen by looking at another language than English.
"""

from __future__ import annotations

import time
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featherfit.errors import MissingDependencyError
from featherfit.predictor import MultiModalPredictor

if TYPE_CHECKING:
    import pandas as pd

    from featherfit.report import Reporter

LANGUAGES = {
    "en": "English",
    "de": "German",
    "fr": "French",
    "es": "Spanish",
    "ja": "Japanese",
    "zh": "Chinese",
    "ko": "Korean",
}
TRAIN_ROWS = 400
METRICS = ["accuracy", "roc_auc"]
SETTINGS = {
    "optim.peft": "ia3_bias",
    "optim.max_epochs": 4,
    "env.batch_size": 32,
    "env.per_gpu_batch_size": 32,
}
SAMPLES = 2
"""Reviews shown per language: the first ones of its test rows, whatever the model makes of them."""


def run_demo(reporter: Reporter, path: str | Path | None = None, seed: int = 0) -> dict[str, Any]:
    """Trains on 400 English reviews and scores reviews of every language; about a minute on two CPU cores.

    Args:
        reporter: Hears how it goes.
        path: Folder for the artifact; default `featherfit-models/<time>`.
        seed: Decides the holdout, the order of rows and initial weights.

    Returns:
        `languages` (language, rows, accuracy, roc_auc), `samples` (language, review, label, predicted, probability of a
        good review), the artifact's `path` and `artifact_bytes`, `trainable_parameters`, `total_parameters`, `seconds`.

    Raises:
        CheckpointError: multilingual-e5-small is not at hand; the message says how to get it.
    """
    started = time.monotonic()
    train, tests = demo_tables()
    predictor = MultiModalPredictor(label="label", path=path, verbosity=reporter.verbosity)
    predictor.fit(train, presets="multilingual_e5_small", hyperparameters=SETTINGS, seed=seed)
    languages, samples = [], []
    for name, test in tests.items():
        reporter.info(f"Scoring {len(test)} {name} reviews.")
        languages.append({"language": name, "rows": len(test), **predictor.evaluate(test, metrics=METRICS)})
        samples += _samples(predictor, name, test.head(SAMPLES))
    return {
        "languages": languages,
        "samples": samples,
        "path": predictor.path,
        "artifact_bytes": sum(file.stat().st_size for file in Path(str(predictor.path)).rglob("*") if file.is_file()),
        "trainable_parameters": predictor.trainable_parameters,
        "total_parameters": predictor.total_parameters,
        "seconds": time.monotonic() - started,
    }


def demo_tables() -> tuple[pd.DataFrame, dict[str, pd.DataFrame]]:
    """English training rows, and test rows by language, each with the columns `text` and `label`."""
    from featherfit.data.load import load_table

    folder = Path(str(files("featherfit.demo"))) / "data"
    tables = {name: load_table(folder / f"{code}.csv")[["text", "label"]] for code, name in LANGUAGES.items()}
    english = tables["English"]
    return english.head(TRAIN_ROWS), {**tables, "English": english.iloc[TRAIN_ROWS:].reset_index(drop=True)}


def show_demo(result: dict[str, Any], reporter: Reporter) -> None:
    """Prints the tables of a result of `run_demo`."""
    reporter.scores_table(result["languages"], f"Trained on {TRAIN_ROWS} English reviews, tested on")
    reporter.scores_table(result["samples"], "The first reviews of each language (1 is good, 0 is bad)")
    reporter.result(
        f"{result['trainable_parameters']:,} of {result['total_parameters']:,} parameters trained. The artifact at "
        f"{result['path']} takes {result['artifact_bytes'] / 1e6:.1f} MB. All took {result['seconds']:.0f} s."
    )


def plot_demo(result: dict[str, Any], target: str | Path) -> None:
    """Draws accuracy and ROC-AUC of every language as bars, into a file whose ending says the format.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    require_plotting()
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.add_subplot()
    rows = result["languages"]
    for shift, metric in enumerate(METRICS):
        positions = [place + 0.4 * shift - 0.2 for place in range(len(rows))]
        bars = axes.bar(positions, [row[metric] for row in rows], width=0.38, label=metric)
        axes.bar_label(bars, fmt="%.2f", fontsize=8, padding=2)
    axes.axhline(0.5, color="grey", linewidth=1, linestyle=":", label="chance")
    axes.set_xticks(range(len(rows)), [row["language"] for row in rows])
    axes.set_ylim(0, 1.1)
    axes.set_title(f"Trained on {TRAIN_ROWS} English reviews")
    axes.legend(loc="lower right", ncols=len(METRICS) + 1)
    figure.savefig(target, dpi=150)


def require_plotting() -> None:
    """Fails now rather than after training.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    from importlib.util import find_spec

    if find_spec("matplotlib") is None:
        raise MissingDependencyError('Plots need matplotlib: pip install "featherfit[plot]"')


def _samples(predictor: MultiModalPredictor, language: str, rows: pd.DataFrame) -> list[dict[str, Any]]:
    good = predictor.predict_proba(rows)[1]
    return [
        {
            "language": language,
            "review": text if len(text) <= 70 else f"{text[:69]}…",
            "label": int(label),
            "predicted": int(probability >= 0.5),
            "probability": float(probability),
        }
        for text, label, probability in zip(rows["text"], rows["label"], good, strict=True)
    ]
