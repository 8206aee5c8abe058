"""What `optim.top_layers` and `optim.prefix_cache` cost and win: time, memory, and scores in languages not trained on.

    python benchmarks/prefix_cache.py FOLDER [--top 3 6 all] [--epochs 2 5 10] [--rows 1000] [--tested de ja zh]
        [--cache on off] [--test-rows 100] [--seeds 0] [--set optim.few_shot=on ...] [--json runs.jsonl]

FOLDER holds `en_train.tsv` and `<language>_test.tsv` with the columns `text` and `label`. Every fit is the preset
`multilingual_e5_small` with all epochs taken, in a process of its own; with the cache and without it by turns. A run is a line of
JSON: seconds of `fit` (`training`: of its steps and validations), the most memory of the process, ROC-AUC by language.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
from pathlib import Path
from typing import Any

PRESET = "multilingual_e5_small"


def one_fit(folder: Path, rows: int, tested: list[str], test_rows: int, seed: int, settings: dict[str, Any]) -> dict:
    """A fit and its scores; to be called in a process that has done nothing else."""
    import resource
    import tempfile

    import pandas as pd

    from featherfit import MultiModalPredictor

    def table(name: str, count: int) -> Any:
        frame = pd.read_csv(folder / f"{name}.tsv", sep="\t")[["text", "label"]]
        return frame.sample(min(count, len(frame)), random_state=123)

    train = table("en_train", rows)
    predictor = MultiModalPredictor(
        "label", path=Path(tempfile.mkdtemp()) / "artifact", verbosity=0, eval_metric="roc_auc"
    )
    started = time.perf_counter()
    predictor.fit(train, presets=PRESET, seed=seed, hyperparameters={"optim.patience": 1000, **settings})
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000  # before anything is scored
    summary = predictor.fit_summary()
    scores = {name: predictor.evaluate(table(f"{name}_test", test_rows))["roc_auc"] for name in ("en", *tested)}
    return {
        "seconds": round(seconds, 2),
        "training": round(summary["training_time"], 2),
        "peak_mb": round(peak),
        "trained": predictor.trainable_parameters,
        "roc_auc": {name: round(float(score), 4) for name, score in scores.items()},
        "others": round(sum(scores[name] for name in tested) / max(1, len(tested)), 4),
    }


def _child(out: Any, *arguments: Any) -> None:
    out.put(one_fit(*arguments))


def apart(*arguments: Any) -> dict:
    """`one_fit` in a process of its own."""
    context = multiprocessing.get_context("spawn")
    out = context.Queue()
    process = context.Process(target=_child, args=(out, *arguments))
    process.start()
    found = out.get()
    process.join()
    return found


def main() -> None:
    """Runs what the command line asks for."""
    read = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    read.add_argument("folder", type=Path)
    read.add_argument("--top", nargs="+", default=["3", "6", "all"])
    read.add_argument("--epochs", nargs="+", type=int, default=[2, 5, 10])
    read.add_argument("--cache", nargs="+", default=["on", "off"])
    read.add_argument("--rows", type=int, default=1000)
    read.add_argument("--tested", nargs="+", default=["de", "ja", "zh"])
    read.add_argument("--test-rows", type=int, default=100)
    read.add_argument("--seeds", nargs="+", type=int, default=[0])
    read.add_argument("--set", nargs="*", default=[], help="further settings, key=value")
    read.add_argument("--json", type=Path, help="where lines are added")
    asked = read.parse_args()
    more = dict(item.split("=", 1) for item in asked.set)
    for seed in asked.seeds:
        for epochs in asked.epochs:
            for top in asked.top:
                for cache in asked.cache if top != "all" else ["off"]:
                    own = {"optim.max_epochs": epochs, "optim.top_layers": None if top == "all" else int(top)}
                    settings = {**own, "optim.prefix_cache": cache, **more}
                    found = apart(asked.folder, asked.rows, asked.tested, asked.test_rows, seed, settings)
                    line = json.dumps(
                        {"top": top, "epochs": epochs, "cache": cache, "seed": seed, "set": more, **found}
                    )
                    print(line, flush=True)
                    if asked.json is not None:
                        with open(asked.json, "a", encoding="utf-8") as file:
                            file.write(line + "\n")


if __name__ == "__main__":
    main()
