"""The calls of AutoMM's tutorial "Parameter-Efficient Finetuning", on native reviews in eight languages.

    python examples/multilingual_ia3.py FOLDER [--seeds 0 1 2] [--rows 1000] [--json FILE]

FOLDER holds `en_train.tsv` and `<language>_test.tsv` with the columns `label` and `text`. Only English is trained on.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from statistics import mean

import pandas as pd

from featherfit import MultiModalPredictor

UNSEEN = ("de", "ja", "fr", "zh", "ko", "nl", "cs")


def read(folder: Path, name: str) -> pd.DataFrame:
    """The label and text columns of one file; only an empty field counts as missing."""
    return pd.read_csv(folder / f"{name}.tsv", sep="\t", keep_default_na=False)[["label", "text"]]


def run(folder: Path, rows: int, seed: int) -> dict[str, float]:
    """One seed: ROC-AUC per language, seconds, and the artifact's size in KB."""
    started = time.monotonic()
    train = read(folder, "en_train").sample(rows, random_state=123)
    with tempfile.TemporaryDirectory() as scratch:
        predictor = MultiModalPredictor(label="label", path=Path(scratch) / "artifact")
        predictor.fit(
            train,
            presets="multilingual",
            hyperparameters={
                "optim.peft": "ia3_bias",
                "optim.lr_decay": 0.9,
                "optim.lr": 3e-3,
                "optim.end_lr": 3e-3,
                "optim.max_epochs": 2,
                "optim.warmup_steps": 0,
                "env.batch_size": 32,
            },
            seed=seed,
        )
        fitted = time.monotonic()
        scores = {language: predictor.evaluate(read(folder, f"{language}_test")) for language in ("en", *UNSEEN)}
        size = sum(file.stat().st_size for file in Path(predictor.path).rglob("*") if file.is_file())
    aucs = {language: score["roc_auc"] for language, score in scores.items()}
    return {
        **aucs,
        "unseen": mean(aucs[language] for language in UNSEEN),
        "fit_s": fitted - started,
        "all_s": time.monotonic() - started,
        "artifact_kb": size / 1000,
    }


def main() -> None:
    """Runs every seed and prints a line for each, and their mean."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    results = []
    for seed in options.seeds:
        results.append(run(options.folder, options.rows, seed))
        print(f"seed {seed}: " + "  ".join(f"{key} {value:.3f}" for key, value in results[-1].items()), flush=True)
    means = {key: mean(result[key] for result in results) for key in results[0]}
    print("mean:   " + "  ".join(f"{key} {value:.3f}" for key, value in means.items()))
    if options.json:
        options.json.write_text(json.dumps({"seeds": options.seeds, "runs": results, "mean": means}, indent=2) + "\n")


if __name__ == "__main__":
    main()
