"""Few labels: rows a class x recipe x samplings, tested in the training language and in those that were not trained on.

    python benchmarks/few_labels.py FOLDER --dataset reviews|topics [--rows 8 16 64] [--seeds 0 1 2 3 4]
        [--recipes ordinary few_labels setfit] [--cap 200] [--output DIR] [--tell-only]

FOLDER holds `<dataset>/<language>_train.tsv` and `<language>_test.tsv` with the columns `text` and `label`. Trains on English.
`reviews` is scored by ROC-AUC, `topics` by accuracy. Every run is a line of `runs-<dataset>.jsonl` in DIR and is not done
again; the table comes from there, as markdown, JSON and a plot. Without FOLDER's data there is nothing to run.

Recipes: `ordinary` is presets="multilingual_e5_small" with optim.few_shot=off; `few_labels` is the preset as it is; `probe` is
a linear probe of the checkpoint as it came; `setfit` is SetFit with its own defaults on the same checkpoint, trained for at
most --setfit-steps steps, since it compares all pairs of rows.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from featherfit import MultiModalPredictor
from featherfit.checkpoints import resolve_checkpoint

PRESET, CHECKPOINT = "multilingual_e5_small", "intfloat/multilingual-e5-small"


@dataclass(frozen=True)
class Data:
    """Where a data set's files are and how it is scored."""

    english: str
    metric: str


DATA = {"reviews": Data("en", "roc_auc"), "topics": Data("eng_Latn", "accuracy")}

Score = Callable[[pd.DataFrame], float]
"""Of a table with `text` and `label`."""


def ours(train: pd.DataFrame, seed: int, metric: str, **settings: Any) -> Score:
    """A predictor of the preset with these settings on top (`__` for the dot)."""
    folder = Path(tempfile.mkdtemp()) / "artifact"
    predictor = MultiModalPredictor("label", path=folder, verbosity=0, eval_metric=metric)
    overrides = {name.replace("__", "."): value for name, value in settings.items()}
    predictor.fit(train, presets=PRESET, hyperparameters=overrides, seed=seed)
    return lambda frame: float(predictor.evaluate(frame)[metric])


def ordinary(train: pd.DataFrame, seed: int, metric: str, steps: int) -> Score:
    """The preset, trained as with many rows."""
    return ours(train, seed, metric, optim__few_shot="off")


def few_labels(train: pd.DataFrame, seed: int, metric: str, steps: int) -> Score:
    """The preset."""
    return ours(train, seed, metric)


def probe(train: pd.DataFrame, seed: int, metric: str, steps: int) -> Score:
    """Logistic regression on the embeddings of the checkpoint as it came, standardised; of all rows."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    folder = Path(tempfile.mkdtemp()) / "artifact"
    predictor = MultiModalPredictor("label", path=folder, verbosity=0)
    still = {"optim.lr": 1e-12, "optim.max_epochs": 1, "optim.few_shot": "off", "optim.calibration": None}
    predictor.fit(train, presets=PRESET, hyperparameters=still, seed=seed)
    linear = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    linear.fit(predictor.extract_embedding(train), train["label"])
    return lambda frame: scored(
        metric, frame["label"], linear.predict_proba(predictor.extract_embedding(frame)), linear
    )


def setfit(train: pd.DataFrame, seed: int, metric: str, steps: int) -> Score:
    """SetFit's defaults (one epoch over all pairs, batches of 16 pairs, the whole encoder in float32, then its own head)."""
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Normalize, Pooling, Transformer
    from setfit import SetFitModel, Trainer, TrainingArguments
    from sklearn.linear_model import LogisticRegression

    encoder = Transformer(str(resolve_checkpoint(CHECKPOINT).folder), max_seq_length=512)
    body = SentenceTransformer(
        modules=[encoder, Pooling(encoder.get_word_embedding_dimension()), Normalize()], device="cpu"
    )
    classes = sorted(train["label"].unique().tolist())
    model = SetFitModel(model_body=body, model_head=LogisticRegression(), labels=classes)
    arguments = TrainingArguments(
        output_dir=tempfile.mkdtemp(),
        max_steps=steps,
        seed=seed,
        report_to="none",
        save_strategy="no",
        show_progress_bar=False,
    )
    ids = train["label"].map(classes.index)
    Trainer(
        model, arguments, train_dataset=Dataset.from_dict({"text": train["text"].tolist(), "label": ids.tolist()})
    ).train()
    return lambda frame: scored(
        metric,
        frame["label"].map(classes.index),
        np.asarray(model.predict_proba(frame["text"].tolist(), batch_size=32)),
        None,
    )


def scored(metric: str, labels: pd.Series, proba: np.ndarray, linear: Any) -> float:
    """The metric of probabilities (rows, C), of classes in sorted order."""
    from sklearn.metrics import accuracy_score, roc_auc_score

    if metric == "roc_auc":
        return float(roc_auc_score(labels, proba[:, 1]))
    classes = np.arange(proba.shape[1]) if linear is None else linear.classes_
    return float(accuracy_score(labels, classes[proba.argmax(axis=1)]))


RECIPES: dict[str, tuple[str, Callable[[pd.DataFrame, int, str, int], Score]]] = {
    "probe": ("linear probe", probe),
    "ordinary": ("preset, few_shot=off", ordinary),
    "few_labels": ("preset", few_labels),
    "setfit": ("SetFit", setfit),
}


def read(file: Path) -> pd.DataFrame:
    """Texts and labels of a file."""
    return pd.read_csv(file, sep="\t", keep_default_na=False)[["text", "label"]]


def sampled(train: pd.DataFrame, rows: int, seed: int) -> pd.DataFrame:
    """As many rows of each class, or all it has, in random order."""
    parts = [part.sample(min(rows, len(part)), random_state=seed) for _, part in train.groupby("label")]
    return pd.concat(parts).sample(frac=1, random_state=seed).reset_index(drop=True)


def languages(folder: Path, data: Data, cap: int) -> dict[str, pd.DataFrame]:
    """Test rows of every language, English first; at most `cap` of each, the same in every run."""
    files = {file.name.removesuffix("_test.tsv"): file for file in sorted(folder.glob("*_test.tsv"))}
    tables = {name: read(files[name]) for name in (data.english, *(name for name in files if name != data.english))}
    return {name: t.sample(cap, random_state=0) if len(t) > cap else t for name, t in tables.items()}


def measure(options: argparse.Namespace) -> None:
    """Does every run that is not in the file yet."""
    folder, data = options.folder / options.dataset, DATA[options.dataset]
    train, tests = read(folder / f"{data.english}_train.tsv"), languages(folder, data, options.cap)
    file = runs_file(options)
    done = {(run["rows"], run["seed"], run["recipe"]) for run in runs(file)}
    for seed in options.seeds:
        for rows in options.rows:
            for recipe in options.recipes:
                if (rows, seed, recipe) in done:
                    continue
                few = sampled(train, rows, seed)
                began = time.perf_counter()
                score = RECIPES[recipe][1](few, seed, data.metric, options.setfit_steps)
                seconds = time.perf_counter() - began
                scores = {name: score(table) for name, table in tests.items()}
                line = {"rows": rows, "seed": seed, "recipe": recipe, "seconds": seconds, "scores": scores}
                with file.open("a", encoding="utf-8") as out:
                    out.write(json.dumps(line) + "\n")
                print(rows, seed, recipe, f"{seconds:.1f} s", {k: round(v, 3) for k, v in scores.items()}, flush=True)


def runs_file(options: argparse.Namespace) -> Path:
    """Where the runs are."""
    return Path(options.output) / f"runs-{options.dataset}.jsonl"


def runs(file: Path) -> list[dict[str, Any]]:
    """All runs so far."""
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.is_file() else []


def summarised(found: list[dict[str, Any]], english: str) -> pd.DataFrame:
    """A line for each number of rows and recipe: means over samplings, and their standard deviation."""
    lines = []
    for run in found:
        unseen = [score for name, score in run["scores"].items() if name != english]
        lines.append({**run, "english": run["scores"][english], "unseen": float(np.mean(unseen))})
    grouped = pd.DataFrame(lines).groupby(["rows", "recipe"], sort=False)
    table = grouped.agg(
        samplings=("seed", "nunique"), unseen=("unseen", "mean"), spread=("unseen", "std"), english=("english", "mean"),
        seconds=("seconds", "mean"),
    ).reset_index()  # fmt: skip
    table["order"] = table["recipe"].map(list(RECIPES).index)
    return table.sort_values(["rows", "order"]).drop(columns="order").reset_index(drop=True)


def tell(options: argparse.Namespace) -> None:
    """The table as markdown, JSON and a plot, from all runs there are."""
    table = summarised(runs(runs_file(options)), DATA[options.dataset].english)
    metric = DATA[options.dataset].metric
    lines = [
        f"| rows a class | recipe | samplings | {metric}, unseen languages | between samplings | {metric}, English | seconds |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in table.itertuples():
        cells = (row.rows, RECIPES[row.recipe][0], row.samplings, f"{row.unseen:.3f}", f"{row.spread:.3f}",
                 f"{row.english:.3f}", f"{row.seconds:.0f}")  # fmt: skip
        lines.append(f"| {' | '.join(map(str, cells))} |")
    base = Path(options.output) / f"few_labels-{options.dataset}"
    base.with_suffix(".md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    base.with_suffix(".json").write_text(table.to_json(orient="records", indent=1), encoding="utf-8")
    print("\n".join(lines))
    plot(table, metric, base.with_suffix(".png"))


def plot(table: pd.DataFrame, metric: str, file: Path) -> None:
    """Mean and spread over the unseen languages by rows a class, a line for each recipe."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 4), layout="constrained")
    for recipe, part in table.groupby("recipe", sort=False):
        axes.errorbar(
            part["rows"], part["unseen"], yerr=part["spread"].fillna(0), marker="o", capsize=3, label=RECIPES[recipe][0]
        )
    axes.set_xscale("log", base=2)
    axes.set_xticks(sorted(table["rows"].unique()), [str(rows) for rows in sorted(table["rows"].unique())])
    axes.set_xlabel("rows a class")
    axes.set_ylabel(f"{metric}, mean of unseen languages")
    axes.legend()
    figure.savefig(file, dpi=120)
    pyplot.close(figure)


def main() -> None:
    """Runs what is missing, and tells."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--dataset", choices=list(DATA), required=True)
    parser.add_argument("--rows", type=int, nargs="+", default=[8, 16, 64])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--recipes", choices=list(RECIPES), nargs="+", default=["ordinary", "few_labels", "setfit"])
    parser.add_argument("--cap", type=int, default=200, help="test rows a language")
    parser.add_argument("--setfit-steps", type=int, default=60)
    parser.add_argument("--output", type=Path, default=Path("few-labels"))
    parser.add_argument("--tell-only", action="store_true", help="make the table of the runs there are")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    if not options.tell_only:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            measure(options)
    tell(options)


if __name__ == "__main__":
    main()
