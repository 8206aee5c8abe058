"""Text, image and numbers of emoji, alone and together: nine classes, trained in English, scored in twelve languages.

    python benchmarks/emoji.py FOLDER [--seeds 3] [--epochs 8] [--image-size 70] [--json figures.json]

FOLDER holds `<language>_train.tsv` and `<language>_test.tsv` with the columns label, image, name, tags, emoji_version and
n_skin_variants, the same rows in every language, and the images. Each model is trained with every seed; printed are mean
accuracies on the English test rows, and those of the models that read text in every other language.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import warnings
from pathlib import Path
from typing import Any

import pandas as pd

from featherfit import MultiModalPredictor

TEXT, IMAGE, NUMBERS = ["name", "tags"], ["image"], ["emoji_version", "n_skin_variants"]
MODELS = {
    "text": TEXT,
    "image": IMAGE,
    "numbers": NUMBERS,
    "text + image": TEXT + IMAGE,
    "all": TEXT + IMAGE + NUMBERS,
}
LANGUAGES = ("en", "de", "es", "fr", "it", "ja", "ko", "nl", "pl", "pt", "ru", "zh")


def table(folder: Path, language: str, part: str) -> pd.DataFrame:
    """A split with absolute paths of images."""
    frame = pd.read_csv(folder / f"{language}_{part}.tsv", sep="\t", keep_default_na=False)
    frame["image"] = [str(folder.absolute() / name) for name in frame["image"]]
    return frame


def fitted(folder: Path, columns: list[str], seed: int, settings: dict[str, Any]) -> MultiModalPredictor:
    """A predictor that learned from the English training rows."""
    predictor = MultiModalPredictor(label="label", verbosity=0)
    types = {**dict.fromkeys(TEXT, "text"), "image": "image_path", **dict.fromkeys(NUMBERS, "numerical")}
    predictor.fit(
        table(folder, "en", "train")[["label", *columns]],
        column_types={name: types[name] for name in columns},
        hyperparameters=settings,
        seed=seed,
    )
    return predictor


def measure(folder: Path, names: list[str], seeds: int, settings: dict[str, Any]) -> dict[str, Any]:
    """By model: accuracies by language and seed, and mean seconds of a fit."""
    figures: dict[str, Any] = {}
    for name in names:
        columns = MODELS[name]
        languages = LANGUAGES if set(TEXT) <= set(columns) else ("en",)
        accuracy: dict[str, list[float]] = {language: [] for language in languages}
        seconds = []
        for seed in range(seeds):
            started = time.perf_counter()
            predictor = fitted(folder, columns, seed, settings)
            seconds.append(time.perf_counter() - started)
            for language in languages:
                test = table(folder, language, "test")[["label", *columns]]
                accuracy[language].append(predictor.evaluate(test, metrics="accuracy")["accuracy"])
            print(f"{name}, seed {seed}: {accuracy['en'][-1]:.4f} in {seconds[-1]:.0f} s", flush=True)
        figures[name] = {"accuracy": accuracy, "seconds": statistics.mean(seconds)}
    return figures


def show(figures: dict[str, Any]) -> None:
    """The tables, as Markdown."""
    print("\n| reads | accuracy (English) | seeds | s a fit |\n|---|---|---|---|")
    for name, found in figures.items():
        scores = found["accuracy"]["en"]
        each = ", ".join(f"{score:.3f}" for score in scores)
        print(f"| {name} | {statistics.mean(scores):.3f} | {each} | {found['seconds']:.0f} |")
    spoken = {name: found for name, found in figures.items() if len(found["accuracy"]) > 1}
    if spoken:
        print(f"\n| language | {' | '.join(spoken)} |\n|---|{'---|' * len(spoken)}")
        for language in LANGUAGES:
            means = [statistics.mean(found["accuracy"][language]) for found in spoken.values()]
            print(f"| {language} | {' | '.join(f'{mean:.3f}' for mean in means)} |")


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--image-size", type=int, default=70)
    parser.add_argument("--checkpoint", default="facebook/dinov2-small")
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="further settings")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    settings: dict[str, Any] = {
        "optim.max_epochs": given.epochs,
        "env.batch_size": 32,
        "model.timm_image.checkpoint_name": given.checkpoint,
        "model.timm_image.image_size": given.image_size,
        **dict(pair.split("=", 1) for pair in given.set),
    }
    warnings.simplefilter("ignore")
    figures = measure(given.folder, given.models, given.seeds, settings)
    show(figures)
    if given.json:
        given.json.write_text(json.dumps({"settings": settings, "figures": figures}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
