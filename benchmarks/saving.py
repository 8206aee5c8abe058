"""What states to resume from cost a fit: the time their writing takes, as a share of the time of training.

    python benchmarks/saving.py FOLDER [--seconds 150] [--peft ia3_bias] [--interval auto]

Trains on the demo's reviews, over and over, for some seconds, and writes artifacts and states under FOLDER, whose disk is
the one that is measured; what it wrote is removed again. Taking a state out of the model counts as writing it. Run it alone.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table

from featherfit import MultiModalPredictor
from featherfit.demo import demo_table
from featherfit.training.keeping import StateKeeper
from featherfit.training.state import Progress

ENDLESS = {"optim.max_epochs": 1_000_000, "optim.patience": 1_000_000, "optim.lr_schedule": "constant"}
MOST_SHARE = 0.02


class Clock:
    """Seconds spent in two methods, how often the second was called, and bytes on the disk after it."""

    def __init__(self) -> None:
        self.seconds, self.states, self.bytes = 0.0, 0, 0

    def watch(self, kind: type, name: str, *, writes: bool) -> None:
        """Puts the clock around a method, for the rest of the process."""
        method = getattr(kind, name)

        def timed(own: Any, *args: Any, **named: Any) -> Any:
            began = time.perf_counter()
            result = method(own, *args, **named)
            self.seconds += time.perf_counter() - began
            if writes:
                self.states += 1
                self.bytes = max(file.stat().st_size for file in own._folder.glob("state-*.safetensors"))
            return result

        setattr(kind, name, timed)


def measured(folder: Path, rows: pd.DataFrame, seconds: float, settings: dict[str, Any]) -> dict[str, Any]:
    """One fit of about that many seconds."""
    clock = Clock()
    clock.watch(Progress, "state", writes=False)
    clock.watch(StateKeeper, "write", writes=True)
    predictor = MultiModalPredictor(label="label", path=folder / "artifact", verbosity=1)
    predictor.fit(rows, presets="multilingual", hyperparameters={**ENDLESS, **settings}, time_limit=seconds)
    trained = predictor.fit_summary()["training_time"]
    return {
        "method": settings["optim.peft"],
        "interval": settings["env.state_interval"],
        "training, s": round(trained, 1),
        "steps": predictor.fit_summary()["steps"],
        "states": clock.states,
        "bytes of one": clock.bytes,
        "ms for one": round(1000 * clock.seconds / max(clock.states, 1), 1),
        "share, %": round(100 * clock.seconds / trained, 3),
    }


def main() -> int:
    """0 where the share is below `MOST_SHARE`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=float, default=150.0)
    parser.add_argument("--peft", default="ia3_bias")
    parser.add_argument("--interval", default="auto", help="env.state_interval")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix="saving-", dir=arguments.folder))
    interval = arguments.interval if arguments.interval == "auto" else float(arguments.interval)
    settings = {"optim.peft": None if arguments.peft == "null" else arguments.peft, "env.state_interval": interval}
    try:
        rows = demo_table("en", "train")[["text", "label"]]
        result = measured(work, rows, arguments.seconds, settings)
    finally:
        shutil.rmtree(work)
    table = Table("what", "value")
    for name, value in result.items():
        table.add_row(name, str(value))
    Console().print(table)
    return 0 if result["share, %"] < 100 * MOST_SHARE else 1


if __name__ == "__main__":
    raise SystemExit(main())
