"""Tables of text and columns: featherfit, AutoMM on the same checkpoint, and a classical baseline, on the same rows.

    python benchmarks/tables.py FOLDER --dataset drug_reviews|movies [--seeds 0 1 2] [--only featherfit automm classical]
        [--rows N] [--epochs N] [--automm-bfloat16] [--venv DIR] [--json FILE] [--plot FILE]

FOLDER holds a folder for each data set, with `train.tsv` and `test.tsv`. featherfit and AutoMM run at their defaults with
multilingual-e5-small as the text encoder, each in a process of its own without a GPU; AutoMM in an environment of its own
(`versus_environment.py`), with its text augmentation off, which would download word lists; `--automm-bfloat16` lets torch round
the factors of its products to bfloat16, as featherfit does where the CPU multiplies that, which takes half the time. The classical baseline is
scikit-learn's HistGradientBoosting over numbers, dates, and the first 64 components of the TF-IDF of every column of strings, in
the best of four ways to read these (words or pairs of them, codes of values or none) by cross-validation on the training rows. `text` and `columns` are featherfit with one of its two encoders.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

CHECKPOINT = "intfloat/multilingual-e5-small"

DATASETS = {"drug_reviews": ("label", "accuracy"), "movies": ("rating", "rmse")}
"""Label and metric."""

CONTESTANTS = ("featherfit", "automm", "classical", "text", "columns")
DEFAULT = ("featherfit", "automm", "classical")

COMPONENTS = 64
"""Components of a column's TF-IDF that the trees see, at most."""

WAYS = [{"words": words, "codes": codes} for words in (1, 2) for codes in (False, True)]
"""How strings may be read by the trees."""


def read(path: str) -> pd.DataFrame:
    """A table; only an empty field counts as missing."""
    import pandas as pd

    return pd.read_csv(path, sep="\t", keep_default_na=False, na_values=[""])


def score_featherfit(job: dict[str, Any], train: pd.DataFrame, test: pd.DataFrame) -> float:
    """The default call, or, of `text` and `columns`, with one encoder."""
    import warnings

    from featherfit import MultiModalPredictor

    names = {"text": ["hf_text"], "columns": ["ft_transformer"]}.get(job["contestant"])
    overrides: dict[str, Any] = {} if names is None else {"model.names": names}
    if job["epochs"]:
        overrides["optim.max_epochs"] = job["epochs"]
    warnings.simplefilter("ignore")
    predictor = MultiModalPredictor(
        label=job["label"], eval_metric=job["metric"], path=Path(job["scratch"]) / "model", verbosity=0
    )
    predictor.fit(train, hyperparameters=overrides, seed=job["seed"])
    return float(predictor.evaluate(test)[job["metric"]])


def score_automm(job: dict[str, Any], train: pd.DataFrame, test: pd.DataFrame) -> float:
    """AutoMM's default call, with the checkpoint given."""
    import torch
    from autogluon.multimodal import MultiModalPredictor

    if job["automm_bfloat16"]:
        torch.set_float32_matmul_precision("medium")
    overrides: dict[str, Any] = {
        "model.hf_text.checkpoint_name": job["checkpoint"],
        "model.hf_text.text_trivial_aug_maxscale": 0.0,
    }
    if job["epochs"]:
        overrides["optim.max_epochs"] = job["epochs"]
    predictor = MultiModalPredictor(
        label=job["label"], eval_metric=job["metric"], path=str(Path(job["scratch"]) / "model"), verbosity=1,
        enable_progress_bar=False,
    )  # fmt: skip
    predictor.fit(train, hyperparameters=overrides, seed=job["seed"])
    return abs(float(predictor.evaluate(test, metrics=[job["metric"]])[job["metric"]]))


def score_classical(job: dict[str, Any], train: pd.DataFrame, test: pd.DataFrame) -> float:
    """Gradient-boosted trees over everything, strings read in the way that is best on training rows held out in turn."""
    from sklearn.model_selection import KFold

    folds = KFold(4, shuffle=True, random_state=job["seed"]).split(train)
    parts = [(train.iloc[learnt], train.iloc[held]) for learnt, held in folds]
    lower = job["metric"] == "rmse"

    def loss(way: dict[str, Any]) -> float:
        return sum(trees(job, *part, way) for part in parts) * (1 if lower else -1)

    return trees(job, train, test, min(WAYS, key=loss))


def trees(job: dict[str, Any], train: pd.DataFrame, test: pd.DataFrame, way: dict[str, Any]) -> float:
    """The score of trees that learnt from one table, on another."""
    import numpy as np
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    label, seed = job["label"], job["seed"]
    x, z = classical_features(train.drop(columns=label), test.drop(columns=label), seed, **way)
    if job["metric"] == "rmse":
        model = HistGradientBoostingRegressor(random_state=seed).fit(x, train[label])
        return float(np.sqrt(np.mean((model.predict(z) - test[label].to_numpy()) ** 2)))
    model = HistGradientBoostingClassifier(random_state=seed).fit(x, train[label])
    return float((model.predict(z) == test[label].to_numpy()).mean())


def classical_features(
    train: pd.DataFrame, test: pd.DataFrame, seed: int, *, words: int, codes: bool
) -> tuple[Any, Any]:
    """Numbers for the trees, of both tables: numbers, seconds of dates, and of strings the components of their TF-IDF.

    Args:
        train, test: Without the label.
        seed: Of the decomposition.
        words: Most words of an n-gram.
        codes: Whether strings are given as places in the order of their frequency too.
    """
    import numpy as np
    import pandas as pd
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    found: list[list[Any]] = [[], []]
    for name in train.columns:
        both = [train[name], test[name]]
        times = [] if pd.api.types.is_numeric_dtype(train[name]) else [_times(part) for part in both]
        if not times:
            columns = [part.to_numpy(float)[:, None] for part in both]
        elif times[0].notna().mean() > 0.9:
            columns = [(part - pd.Timestamp(0)).dt.total_seconds().to_numpy(float)[:, None] for part in times]
        else:
            reader = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, words), min_df=2)
            texts = [part.fillna("").astype(str) for part in both]
            known = reader.fit_transform(texts[0])
            svd = TruncatedSVD(min(COMPONENTS, known.shape[1] - 1), random_state=seed)
            columns = [svd.fit_transform(known), svd.transform(reader.transform(texts[1]))]
            if codes:
                places = {value: place for place, value in enumerate(train[name].value_counts().index)}
                columns = [
                    np.hstack([column, part.map(places).to_numpy(float)[:, None]])
                    for column, part in zip(columns, both, strict=True)
                ]
        for place, column in enumerate(columns):
            found[place].append(column)
    return np.hstack(found[0]), np.hstack(found[1])


def _times(column: pd.Series) -> pd.Series:
    import pandas as pd

    return pd.to_datetime(column, errors="coerce", format="mixed")


SCORERS = {
    "featherfit": score_featherfit, "text": score_featherfit, "columns": score_featherfit,
    "automm": score_automm, "classical": score_classical,
}  # fmt: skip


def child(file: str) -> None:
    """One contestant and seed, in this process; the score goes into the job's `result`."""
    job = json.loads(Path(file).read_text(encoding="utf-8"))
    train, test = (read(job[part]) for part in ("train", "test"))
    if job["rows"]:
        train = train.head(job["rows"])
    started = time.perf_counter()
    score = SCORERS[job["contestant"]](job, train, test)
    result = {"score": score, "seconds": time.perf_counter() - started}
    Path(job["result"]).write_text(json.dumps(result), encoding="utf-8")


def run_one(python: Path, job: dict[str, Any]) -> dict[str, Any]:
    """The same in a new process of another Python."""
    with tempfile.TemporaryDirectory() as scratch:
        job = {**job, "scratch": scratch, "result": str(Path(scratch) / "result.json")}
        file = Path(scratch) / "job.json"
        file.write_text(json.dumps(job), encoding="utf-8")
        settings = {"HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
        done = subprocess.run(
            [python, __file__, "--child", str(file)],
            cwd=scratch,
            env=os.environ | settings,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            sys.exit(f"{job['contestant']}, seed {job['seed']}:\n{done.stderr[-3000:]}")
        result = json.loads(Path(job["result"]).read_text(encoding="utf-8"))
    return {"contestant": job["contestant"], "seed": job["seed"], **result}


def summary(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean, spread and seconds of every contestant."""
    from statistics import mean, pstdev

    names = list(dict.fromkeys(run["contestant"] for run in runs))
    found = []
    for name in names:
        own = [run for run in runs if run["contestant"] == name]
        scores = [run["score"] for run in own]
        seconds = mean(run["seconds"] for run in own)
        found.append(
            {"contestant": name, "mean": mean(scores), "spread": pstdev(scores), "scores": scores, "seconds": seconds}
        )
    return found


def markdown(lines: list[dict[str, Any]], metric: str) -> str:
    """The table for a document."""
    rows = [
        f"| contestant | {metric}, mean | standard deviation | single seeds | seconds |",
        "|---|---:|---:|---|---:|",
    ]
    for line in lines:
        single = ", ".join(f"{score:.4f}" for score in line["scores"])
        rows.append(
            f"| {line['contestant']} | {line['mean']:.4f} | {line['spread']:.4f} | {single} | {line['seconds']:.0f} |"
        )
    return "\n".join(rows)


def plot(lines: list[dict[str, Any]], metric: str, title: str, target: Path) -> None:
    """A bar for each contestant, and a dot for each seed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.add_subplot()
    for place, line in enumerate(lines):
        axes.bar(place, line["mean"], color="tab:blue", alpha=0.5)
        axes.plot([place] * len(line["scores"]), line["scores"], "o", color="black", markersize=4)
    axes.set_xticks(range(len(lines)), [line["contestant"] for line in lines])
    axes.set_ylabel(metric)
    low = min(score for line in lines for score in line["scores"])
    axes.set_ylim(bottom=0.9 * low)
    axes.set_title(title)
    figure.savefig(target, dpi=150)


def main() -> None:
    """Runs what the command line asks for."""
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--dataset", choices=list(DATASETS), required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", choices=CONTESTANTS, default=list(DEFAULT))
    parser.add_argument("--rows", type=int, help="at most so many training rows")
    parser.add_argument("--epochs", type=int, help="of featherfit and AutoMM, instead of their default, 20")
    parser.add_argument("--automm-bfloat16", action="store_true", help="products of AutoMM in bfloat16")
    parser.add_argument("--venv", type=Path, help="AutoMM's environment; made if it is not there")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    pythons: dict[str, Path] = {}
    checkpoint = ""
    if "automm" in options.only:
        from versus_environment import AUTOMM, automm_python

        from featherfit.checkpoints import resolve_checkpoint
        from featherfit.checkpoints.cache import cache_dir

        folder = options.venv or cache_dir() / "venvs" / f"automm-{AUTOMM}"
        pythons["automm"] = automm_python(folder.expanduser().absolute())
        checkpoint = str(resolve_checkpoint(CHECKPOINT).folder)
    label, metric = DATASETS[options.dataset]
    data = (options.folder / options.dataset).absolute()
    job = {
        "label": label, "metric": metric, "rows": options.rows, "epochs": options.epochs, "checkpoint": checkpoint,
        "automm_bfloat16": options.automm_bfloat16,
        "train": str(data / "train.tsv"), "test": str(data / "test.tsv"),
    }  # fmt: skip
    runs = []
    for seed in options.seeds:
        for name in options.only:
            runs.append(run_one(pythons.get(name, Path(sys.executable)), {**job, "contestant": name, "seed": seed}))
            print(f"{name}, seed {seed}: {metric} {runs[-1]['score']:.4f}, {runs[-1]['seconds']:.0f} s", flush=True)
            if options.json:
                content = {"dataset": options.dataset, "metric": metric, "runs": runs, "summary": summary(runs)}
                options.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    print(f"\n{markdown(summary(runs), metric)}")
    if options.plot:
        plot(summary(runs), metric, options.dataset, options.plot)


if __name__ == "__main__":
    main()
