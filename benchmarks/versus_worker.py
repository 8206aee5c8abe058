"""One process of `versus_automm.py`: a job (JSON) goes in, the figures it measured (JSON) come out.

    python benchmarks/versus_worker.py JOB

Stage `fit` trains, saves, evaluates and predicts; stage `cold` imports, loads and predicts one row. Nothing but the
standard library is imported before the contestant, so that its import is measured whole.
"""

from __future__ import annotations

import importlib
import json
import platform
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from memory_use import peak_mb, status_mb

if TYPE_CHECKING:
    import pandas as pd
    from contestants import Contestant

SINGLE_ROWS = 11
"""Rows predicted one by one for the latency, all of them once uncounted before."""

CALLS, CALL_ROWS = 50, 20
"""Predictions between the two readings of memory, and the rows of each."""


def main() -> None:
    """Runs the job named on the command line."""
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    started = time.perf_counter()
    module = importlib.import_module(f"contestants.{job['module']}")
    import_s = time.perf_counter() - started
    contestant = module.build(job)
    if job["stage"] == "fit":
        figures = fit_stage(contestant, job)
        figures["versions"] = {"python": platform.python_version()} | versions(module.DISTRIBUTIONS)
    else:
        figures = cold_stage(contestant, job) | {"import_s": import_s}
    figures["peak_mb"] = peak_mb()
    Path(job["result"]).write_text(json.dumps(figures), encoding="utf-8")


def cold_stage(contestant: Contestant, job: dict[str, Any]) -> dict[str, Any]:
    """Seconds from the start of the process to its first prediction."""
    contestant.load(Path(job["artifact"]))
    frame = read(job["tests"]["en"])
    contestant.predict_few(frame.drop(columns="label").head(1))
    return {"cold_s": time.time() - job["started"]}


def fit_stage(contestant: Contestant, job: dict[str, Any]) -> dict[str, Any]:
    """Everything that is measured in one process."""
    artifact = Path(job["artifact"])
    train = read(job["train"])
    say(job, "fit")
    fit_s, _ = timed(lambda: contestant.fit(train, job["seed"], artifact))
    figures: dict[str, Any] = {"fit_s": fit_s}
    figures["artifact_mb"] = sum(file.stat().st_size for file in artifact.rglob("*") if file.is_file()) / 1e6
    languages: dict[str, dict[str, float]] = {}
    for number, (language, path) in enumerate(job["tests"].items(), 1):
        say(job, f"evaluate and predict {language} ({number} of {len(job['tests'])})")
        languages[language] = measure_language(contestant, read(path))
    figures["languages"] = languages
    rows = sum(language["rows"] for language in languages.values())
    for kind in ("evaluate", "predict"):
        figures[f"{kind}_rows_per_s"] = rows / sum(language[f"{kind}_s"] for language in languages.values())
    texts = read(job["tests"]["en"]).drop(columns="label")
    say(job, "single rows")
    figures["one_row_ms"] = latency_ms(contestant.predict_few, texts)
    figures["one_row_default_ms"] = latency_ms(contestant.predict, texts)
    say(job, f"{CALLS} calls")
    figures["growth_mb"] = growth_mb(contestant.predict, texts.head(CALL_ROWS))
    return figures


def measure_language(contestant: Contestant, frame: pd.DataFrame) -> dict[str, float]:
    """ROC-AUC, and the accuracy of separate predictions, which shows that they come back in the table's order."""
    evaluate_s, auc = timed(lambda: contestant.evaluate(frame))
    predict_s, labels = timed(lambda: contestant.predict(frame.drop(columns="label")))
    accuracy = float((frame["label"].to_numpy() == list(labels)).mean())
    return {"rows": len(frame), "evaluate_s": evaluate_s, "predict_s": predict_s, "roc_auc": auc, "accuracy": accuracy}


def latency_ms(predict: Callable[[Any], Any], texts: pd.DataFrame) -> float:
    """Median milliseconds of a single row in a process that has met its length before, as one that serves has."""
    rows = [texts.iloc[[number % len(texts)]] for number in range(SINGLE_ROWS)]
    for row in rows:
        predict(row)
    return 1000 * median(timed(partial(predict, row))[0] for row in rows)


def growth_mb(predict: Callable[[Any], Any], texts: pd.DataFrame) -> float:
    """By how much this process grew over many calls, after one that is not counted."""
    predict(texts)
    before = status_mb("VmRSS")
    for _ in range(CALLS):
        predict(texts)
    return status_mb("VmRSS") - before


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds, and what the call returned."""
    started = time.perf_counter()
    result = call()
    return time.perf_counter() - started, result


def read(path: str) -> pd.DataFrame:
    """A table; only an empty field counts as missing."""
    import pandas as pd

    return pd.read_csv(path, keep_default_na=False)


def say(job: dict[str, Any], stage: str) -> None:
    """Tells the parent what is being done."""
    Path(job["progress"]).write_text(stage, encoding="utf-8")


def versions(distributions: tuple[str, ...]) -> dict[str, str]:
    """Installed versions, `source` for what is imported from a working tree."""
    found = {}
    for name in distributions:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "source"
    return found


if __name__ == "__main__":
    main()
