"""One fit of `transfer.py` in a process of its own: a job (JSON) goes in, scores by language (JSON) come out.

    python benchmarks/transfer_worker.py JOB

Nothing of featherfit is imported for AutoMM, which runs in an environment of its own.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import accuracy_score, roc_auc_score


def main() -> None:
    """Runs the job named on the command line."""
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as folder:
        figures = {"automm": automm, "featherfit": featherfit, "target": target}[job["contestant"]](job, Path(folder))
    Path(job["result"]).write_text(json.dumps(figures), encoding="utf-8")


def read(path: str, job: dict[str, Any]) -> pd.DataFrame:
    """A table, its texts with the recipe's prefix."""
    frame = pd.read_csv(path, keep_default_na=False)
    return frame.assign(text=job["prefix"] + frame["text"].astype(str)) if job["prefix"] else frame


def score(job: dict[str, Any], truth: pd.Series, probabilities: pd.DataFrame) -> float:
    """The task's metric."""
    if job["metric"] == "roc_auc":
        positive = sorted(probabilities.columns)[-1]
        return float(roc_auc_score((truth == positive).astype(int), probabilities[positive]))
    return float(accuracy_score(truth, probabilities.idxmax(axis=1)))


def automm(job: dict[str, Any], folder: Path) -> dict[str, Any]:
    """AutoMM as its tutorial calls it."""
    from contestants.automm import AutoMM

    contestant = AutoMM(job["checkpoint"], None)
    started = time.monotonic()
    contestant.fit(read(job["train"], job), job["seed"], folder / "artifact")
    fit_s = time.monotonic() - started
    scores = {}
    for language, path in job["tests"].items():
        frame = read(path, job)
        # Rows of similar length share a batch: less padding, the same results.
        frame = frame.iloc[np.argsort(frame["text"].str.len().to_numpy(), kind="stable")]
        scores[language] = score(job, frame["label"], contestant.probabilities(frame.drop(columns="label")))
    return {"fit_s": fit_s, "scores": scores}


def featherfit(job: dict[str, Any], folder: Path) -> dict[str, Any]:
    """featherfit with the job's settings."""
    train = read(job["train"], job)
    started = time.monotonic()
    predictor = fitted(job, train, job["seed"], folder)
    fit_s = time.monotonic() - started
    size = sum(file.stat().st_size for file in Path(predictor.path).rglob("*") if file.is_file())
    frames = {language: read(path, job) for language, path in job["tests"].items()}
    scores = {name: score(job, frame["label"], predictor.predict_proba(frame)) for name, frame in frames.items()}
    return {
        "fit_s": fit_s,
        "scores": scores,
        "artifact_kb": size / 1000,
        "trainable": predictor.trainable_parameters,
        "summary": {
            key: value for key, value in predictor.fit_summary().items() if isinstance(value, int | float | str)
        },
    }


def fitted(job: dict[str, Any], train: pd.DataFrame, seed: int, folder: Path) -> Any:
    """A predictor; of several members, the first with the mean of all their trained weights."""
    from featherfit import MultiModalPredictor

    def fit(seed: int) -> Any:
        predictor = MultiModalPredictor(label="label", path=folder / f"member{seed}", verbosity=1)
        return predictor.fit(train, presets=job["presets"], hyperparameters=job["overrides"], seed=seed)

    members = [fit(1000 * number + seed) for number in range(job["members"])]
    if len(members) > 1:
        average(members)
    return members[0]


def average(members: list[Any]) -> None:
    """Gives the first member the mean of all members' trained weights."""
    import torch

    models = [dict(member._fitted.model.named_parameters()) for member in members]
    with torch.no_grad():
        for name, parameter in models[0].items():
            if parameter.requires_grad:
                parameter.copy_(torch.stack([model[name] for model in models]).mean(dim=0))


def target(job: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Every language by a predictor of its own rows: what transfer could reach at best."""
    scores, seconds = {}, 0.0
    for language, path in job["tests"].items():
        test = read(path, job)
        own = job.get("own", {}).get(language)
        if language == job["english"]:
            pairs = [(read(job["train"], job), test)]
        elif own is not None:
            pairs = [(read(own, job), test)]
        else:
            first, second = test.iloc[::2], test.iloc[1::2]
            pairs = [(first, second), (second, first)]
        parts = []
        for number, (train, rows) in enumerate(pairs):
            started = time.monotonic()
            predictor = fitted(job, train, job["seed"], folder / f"{language}{number}")
            seconds += time.monotonic() - started
            parts.append((score(job, rows["label"], predictor.predict_proba(rows)), len(rows)))
        scores[language] = float(np.average([part[0] for part in parts], weights=[part[1] for part in parts]))
    return {"fit_s": seconds, "scores": scores}


if __name__ == "__main__":
    main()
