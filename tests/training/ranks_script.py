"""One rank, or the only process: fits the cases it is asked for and writes down what happened.

python ranks_script.py FOLDER CASE... with the environment of a launcher, or without.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
from tiny_checkpoints import reviews, settings

from featherfit import MultiModalPredictor, steps
from featherfit.training import loop

CASES: dict[str, dict[str, Any]] = {
    # 45 rows in steps of 8: the last step of an epoch has 5, one fewer for the second rank; and rows weigh differently.
    "plain": {"optim.class_weights": "balanced", "optim.max_epochs": 3, "optim.ema_decay": 0.9},
    # The same, stopped after seven steps by its time limit and gone on with.
    "resumed": {"optim.class_weights": "balanced", "optim.max_epochs": 3, "optim.ema_decay": 0.9},
    # The second rank has no rows in any step.
    "single_rows": {"env.batch_size": 1, "optim.max_steps": 9, "optim.top_k_average_method": "uniform_soup"},
    "stops_early": {"optim.patience": 2, "optim.max_epochs": 30, "optim.lr": 0.1, "optim.val_check_interval": 2},
    "probe": {"optim.head_init": "probe", "optim.lr": 1e-3, "optim.max_steps": 4, "optim.peft": "lora"},
    "checkpointing": {"model.hf_text.gradient_checkpointing": True, "optim.peft": "dora", "optim.max_steps": 6},
    "int8": {"model.hf_text.base_precision": "int8", "optim.max_steps": 4},
    "int4": {"model.hf_text.base_precision": "int4", "optim.max_steps": 4, "optim.peft": "lora_norm"},
    "everything": {"optim.peft": None, "optim.lr": 1e-3, "model.hf_text.dropout": "off"},
    "time_limit": {"optim.max_steps": 5},
    "another_table": {},
}
RANK, WORLD = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def table(case: str) -> pd.DataFrame:
    """Twice as many of one label as of the other; the second rank's rows are others where they should not be."""
    return reviews(57, seed=1 if case == "another_table" and RANK else 0, labels=(0, 1, 1))


def recorded(train: Any, into: list[list[Any]]) -> Any:
    """The training loop, which writes down every report."""

    def steps(*args: Any, **named: Any) -> Iterator[Any]:
        for report in train(*args, **named):
            into.append([report.step, report.loss, report.rows, report.score])
            yield report

    return steps


def ahead(clock: Any, when: Any) -> Any:
    """A `time` an hour ahead, from a moment on."""
    return type("Ahead", (), {"monotonic": staticmethod(lambda: clock() + (3600 if when() else 0))})


def run(folder: Path, case: str, strategy: str) -> dict[str, Any]:
    """Fits one case; every rank asks for the same path."""
    reports: list[list[Any]] = []
    path = folder / f"{case}-{strategy}-{WORLD}"
    original = loop.train
    loop.train = recorded(original, reports)
    try:
        more = CASES[case] if WORLD == 1 else {**CASES[case], "env.strategy": strategy, "env.rank_timeout": 30}
        predictor = MultiModalPredictor(label="label", path=path, verbosity=0)
        clock = steps.time
        if case == "time_limit" and RANK:  # a clock of its own, an hour ahead
            steps.time = ahead(clock.monotonic, lambda: bool(reports))
        if case == "resumed":
            steps.time = ahead(clock.monotonic, lambda: len(reports) >= 7)
        limit = 600 if case in ("time_limit", "resumed") else None
        predictor.fit(table(case), hyperparameters={**settings(folder / "checkpoint"), **more}, time_limit=limit)
        steps.time = clock
        if case == "resumed":
            assert predictor.fit_summary()["steps"] == 7
            predictor = MultiModalPredictor.load(path, resume=True, verbosity=0).fit(table(case))
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}
    finally:
        loop.train = original
    matrices = [p for p in predictor._fitted.model.encoder.backbone.encoder.parameters() if p.dim() > 1]
    kept = [p.to_local().numel() if hasattr(p, "to_local") else p.numel() for p in matrices if not p.requires_grad]
    frozen = sum(p.numel() for p in matrices if not p.requires_grad)
    new = reviews(20, seed=5)
    summary = predictor.fit_summary()
    alone = predictor.predict_proba(new, as_pandas=False).tolist() if RANK == 0 else None  # no other rank takes part
    return {"reports": reports, "summary": summary, "path": predictor.path, "proba": alone, "kept": [sum(kept), frozen]}


def main() -> None:
    """Runs CASE or CASE:STRATEGY for every word."""
    warnings.simplefilter("ignore")
    folder = Path(sys.argv[1])
    results = {}
    for word in sys.argv[2:]:
        case, _, strategy = word.partition(":")
        results[word] = run(folder, case, strategy or "auto")
        (folder / f"result-{WORLD}-{RANK}.json").write_text(json.dumps(results))


if __name__ == "__main__":
    main()
