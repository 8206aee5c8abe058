"""A reporter goes in; a model trained on English reviews, and its scores in seven languages, come out.

The texts and their card are in `demo/data`. Nothing here was chosen by looking at another language than English.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featherfit.demo import TRAIN_ROWS, demo_table
from featherfit.evaluation.chart import require_plotting
from featherfit.predictor import MultiModalPredictor

if TYPE_CHECKING:
    import pandas as pd

    from featherfit.report import Reporter

NAMES = {
    "en": "English",
    "de": "German",
    "ja": "Japanese",
    "fr": "French",
    "zh": "Chinese",
    "es": "Spanish",
    "ko": "Korean",
}
SHOWN = 70
"""Characters of a sample review."""
COLUMNS = ["text", "label"]
METRICS = ["accuracy", "roc_auc"]
SETTINGS = {
    "optim.peft": "ia3_bias",
    "optim.max_epochs": 4,
    "env.batch_size": 32,
    "env.per_gpu_batch_size": 32,
}


def run_demo(reporter: Reporter, *, seed: int = 0, folder: str | Path | None = None) -> dict[str, Any]:
    """Trains on 400 English reviews and scores reviews of every language; about a minute on two CPU cores.

    Args:
        reporter: Hears how it goes.
        seed: Decides the holdout, the order of rows and initial weights.
        folder: Where the artifact goes; default `featherfit-models/<time>`.

    Returns:
        `languages` (language, rows, accuracy, roc_auc), `samples` (each language's first test review: language, review,
        label, predicted, probability of a good review), the artifact's `path` and `artifact_kb` (1000 bytes each),
        `trainable_parameters`, `total_parameters`, `seconds`.

    Raises:
        CheckpointError: multilingual-e5-small is not at hand; the message says how to get it.
    """
    started = time.monotonic()
    predictor = MultiModalPredictor(label="label", path=folder, verbosity=reporter.verbosity)
    train = demo_table("en", "train")[COLUMNS]
    predictor.fit(train, presets="multilingual_e5_small", hyperparameters=SETTINGS, seed=seed)
    languages, samples = [], []
    for code, name in NAMES.items():
        test = demo_table(code)[COLUMNS]
        reporter.info(f"Scoring {len(test)} {name} reviews.")
        languages.append({"language": name, "rows": len(test), **predictor.evaluate(test, metrics=METRICS)})
        samples.append({"language": name, **_sample(predictor, test.head(1))})
    return {
        "languages": languages,
        "samples": samples,
        "path": predictor.path,
        "artifact_kb": sum(f.stat().st_size for f in Path(str(predictor.path)).rglob("*") if f.is_file()) / 1000,
        "trainable_parameters": predictor.trainable_parameters,
        "total_parameters": predictor.total_parameters,
        "seconds": time.monotonic() - started,
    }


def show_demo(result: dict[str, Any], reporter: Reporter) -> None:
    """Prints the tables of a result of `run_demo`."""
    reporter.scores_table(result["languages"], f"Trained on {TRAIN_ROWS} English reviews, tested on")
    reporter.scores_table(result["samples"], "The first test review of each language (1 is good, 0 is bad)")
    reporter.result(
        f"{result['trainable_parameters']:,} of {result['total_parameters']:,} parameters trained. The artifact at "
        f"{result['path']} takes {result['artifact_kb']:.0f} KB. All took {result['seconds']:.0f} s."
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


def _sample(predictor: MultiModalPredictor, row: pd.DataFrame) -> dict[str, Any]:
    text = row["text"].iloc[0]
    predicted: Any = predictor.predict(row, as_pandas=False)
    probabilities: Any = predictor.predict_proba(row, as_pandas=False)
    return {
        "review": text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…",
        "label": int(row["label"].iloc[0]),
        "predicted": int(predicted[0]),
        "probability": float(probabilities[0, 1]),
    }
