"""The short benchmark: ratios against plain baselines in the same process, compared with the floors in `ratios.json`.

    python benchmarks/quick.py [--update] [--precision auto|32]

Everything comes with the package: the demo's reviews, and multilingual-e5-small from the quickstart's wheel. Ratios, not
seconds, so that the machine's own speed cancels out; a floor lies a quarter below what was measured, and there is a set of
floors for each arithmetic. Exits with 1 if a ratio is below its floor.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import pandas as pd
import torch
from measure import WARM_STEPS, Setup, Work, set_up, square_rate, stopwatch
from rich.console import Console
from rich.table import Table

from featherfit import MultiModalPredictor
from featherfit.adapters.apply import apply_adapters
from featherfit.checkpoints import resolve_checkpoint
from featherfit.data.batch import collate
from featherfit.data.dataset import Dataset
from featherfit.demo import LANGUAGES, demo_table
from featherfit.models.backbone import build_backbone
from featherfit.models.build import MultiModalModel, build_model
from featherfit.training.optim import build_optimizer
from featherfit.types import Batch

FLOORS = Path(__file__).with_name("ratios.json")
MARGIN = 0.25
BATCH = 32
STEPS = 8
"""Steps, or batches, of a measurement."""
MOST_GROWTH_MB = 16.0
"""What 50 predictions may add to the peak: a third of a megabyte each, since pages of tables and kernels come and go."""

MEANINGS = {
    "train_vs_plain": "training, tokens/s, by a plain padded float32 loop with the same adapters",
    "predict_vs_plain": "prediction, rows/s, by plain padded float32 batches",
    "train_share": "training, share of the machine's matrix rate",
    "predict_share": "prediction, share of the machine's matrix rate",
    "cold_vs_torch": "time of `import torch`, by that of start to first prediction",
}


class Plain:
    """What one would write with transformers alone: rows padded to the longest of their batch, float32, SDPA."""

    def __init__(self, setup: Setup):
        self.setup = setup
        found = resolve_checkpoint(setup.config.model.hf_text.checkpoint_name)
        self.model: MultiModalModel = build_model(found, outputs=2, seed=0)
        self.model.text.backbone = build_backbone(found, attn="sdpa")
        self.model.text.disable_dropout()
        apply_adapters(self.model, setup.config.optim, seed=0)

    def logits(self, batch: Batch) -> torch.Tensor:
        """(B, C), from the mean of the last states."""
        backbone = self.model.text.backbone
        states = backbone(input_ids=batch.input_ids, attention_mask=batch.attention_mask).last_hidden_state
        mask = batch.attention_mask.unsqueeze(-1)
        return self.model.head((states * mask).sum(1) / mask.sum(1))

    def batches(self, dataset: Dataset, rows: np.ndarray) -> list[Batch]:
        """Rows in the order given."""
        parts = [rows[start : start + BATCH] for start in range(0, len(rows), BATCH)]
        return [collate(dataset.rows, part, self.setup.text.pad_id, dataset.labels) for part in parts]

    def train(self, dataset: Dataset) -> float:
        """Tokens per second over `STEPS` steps of AdamW."""
        rows = np.random.default_rng(0).permutation(len(dataset))[: BATCH * STEPS]
        optimizer = build_optimizer(self.model, self.setup.config)
        self.model.train()
        rates = []
        for batch in self.batches(dataset, rows):
            with stopwatch() as taken:
                assert batch.labels is not None
                torch.nn.functional.cross_entropy(self.logits(batch), batch.labels).backward()
                optimizer.step()
                optimizer.zero_grad()
            rates.append(int(batch.attention_mask.sum()) / taken[0])
        return median(rates[WARM_STEPS:])

    @torch.inference_mode()
    def predict(self, dataset: Dataset) -> tuple[float, np.ndarray]:
        """Rows per second in the table's order, and the logits."""
        self.model.eval()
        with stopwatch() as taken:
            found = [self.logits(batch) for batch in self.batches(dataset, np.arange(len(dataset)))]
        return len(dataset) / taken[0], torch.cat(found).numpy()


def training(setup: Setup, plain: Plain, dataset: Dataset) -> dict[str, float]:
    """The rate of steps, in turns with the baseline."""
    lengths, work = dataset.rows.lengths, Work.of(setup.model.text)
    reports, rows = setup.steps(dataset), setup.rows_of_steps(dataset)
    speeds, shares, baseline = [], [], []
    for _ in zip(range(WARM_STEPS), reports, rows, strict=False):
        pass
    for _ in range(2):
        baseline.append(plain.train(dataset))
        rate = square_rate(setup.dtype)
        for _ in range(STEPS):
            with stopwatch() as taken:
                next(reports)
            own = lengths[next(rows)]
            speeds.append(own.sum() / taken[0])
            shares.append(work.flops(own, training=True) / taken[0] / rate)
    return {"train_vs_plain": median(speeds) / max(baseline), "train_share": median(shares)}


def prediction(setup: Setup, plain: Plain, dataset: Dataset) -> dict[str, float]:
    """The rate of rows, in turns with the baseline; both have to say the same."""
    flops = Work.of(setup.model.text).flops(dataset.rows.lengths, training=False)
    setup.predict(dataset)
    times, shares, baseline = [], [], []
    for _ in range(3):
        speed, expected = plain.predict(dataset)
        baseline.append(speed)
        rate = square_rate(setup.dtype)
        with stopwatch() as taken:
            given = setup.predict(dataset)
        times.append(taken[0])
        shares.append(flops / taken[0] / rate)
    assert given.shape == expected.shape
    return {"predict_vs_plain": len(dataset) / median(times) / max(baseline), "predict_share": median(shares)}


def seconds_in_a_process(code: str, *words: str) -> float:
    """Median of three runs of a new interpreter, after one that fills the disk's cache."""
    times = []
    for _ in range(4):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-c", code, *words], check=True, capture_output=True)
        times.append(time.perf_counter() - started)
    return median(times[1:])


COLD = """
import sys
from featherfit import MultiModalPredictor
MultiModalPredictor.load(sys.argv[1], verbosity=0).predict({"text": ["A lovely little thing."]})
"""


def cold_start(folder: Path) -> dict[str, float]:
    """Against the part of it that is torch's."""
    return {"cold_vs_torch": seconds_in_a_process("import torch") / seconds_in_a_process(COLD, str(folder))}


GROWTH = """
import sys
import pandas as pd
from featherfit import MultiModalPredictor
from memory_use import peak_mb

predictor = MultiModalPredictor.load(sys.argv[1], verbosity=0)
frame = pd.read_json(sys.argv[2])
tables = [frame.sample(48, random_state=seed) for seed in range(90)]
for table in tables[:40]:  # until every shape of batch has been met
    predictor.predict(table)
before = peak_mb()
for table in tables[40:]:
    predictor.predict(table)
print(peak_mb() - before)
"""


def growth_megabytes(folder: Path, frame: pd.DataFrame) -> float:
    """What 50 predictions on tables of the same size add to the peak memory after forty others, in a process of its own."""
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "rows.json"
        frame[["text"]].to_json(file)
        command = [sys.executable, "-c", GROWTH, str(folder), str(file)]
        done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parent)
    return float(done.stdout)


def fit(folder: Path, frame: pd.DataFrame, precision: str) -> None:
    """An artifact to start from; how well it predicts is of no interest here."""
    given = {"optim.max_steps": 2, "env.batch_size": 8, "env.precision": precision}
    predictor = MultiModalPredictor(label="label", path=folder, verbosity=0)
    predictor.fit(frame, presets="multilingual_e5_small", hyperparameters=given)


def measure(precision: str) -> tuple[str, dict[str, float], float]:
    """The arithmetic, all ratios, and the growth in megabytes."""
    train = demo_table("en", "train")[["text", "label"]]
    test = pd.concat([demo_table(name)[["text", "label"]] for name in LANGUAGES], ignore_index=True)
    setup = set_up(train, env__batch_size=BATCH, env__precision=precision)
    plain = Plain(setup)
    ratios = prediction(setup, plain, setup.dataset(test)) | training(setup, plain, setup.dataset(train))
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "artifact"
        fit(folder, train.head(40), precision)
        ratios |= cold_start(folder)
        growth = growth_megabytes(folder, test)
    return setup.device.precision, {name: ratios[name] for name in MEANINGS}, growth


def judge(ratios: dict[str, float], growth: float, floors: dict[str, float], console: Console) -> bool:
    """A table of all ratios; whether every one is as it should be."""
    table = Table()
    for title in ("", "ratio", "at least", ""):
        table.add_column(title, justify="right" if title else "left")
    fine = True
    for name, value in ratios.items():
        good = value >= floors.get(name, 0.0)
        fine &= good
        table.add_row(MEANINGS[name], f"{value:.3g}", f"{floors.get(name, 0.0):.3g}", "" if good else "too low")
    fine &= growth <= MOST_GROWTH_MB
    wrong = "" if growth <= MOST_GROWTH_MB else "too much"
    table.add_row("peak memory added by 50 predictions, MB", f"{growth:.1f}", f"at most {MOST_GROWTH_MB:g}", wrong)
    console.print(table)
    return fine


def update(precision: str, ratios: dict[str, float]) -> None:
    """Writes floors a quarter below these ratios; those of other arithmetics stay."""
    kept = json.loads(FLOORS.read_text()) if FLOORS.is_file() else {}
    kept[precision] = {name: float(f"{(1 - MARGIN) * value:.2g}") for name, value in ratios.items()}
    FLOORS.write_text(json.dumps(kept, indent=2, sort_keys=True) + "\n")


def main() -> None:
    """Measures, and compares or updates."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--update", action="store_true", help="write new floors instead of comparing")
    parser.add_argument("--precision", choices=("auto", "32"), default="auto")
    options = parser.parse_args()
    console = Console(width=120)
    with stopwatch() as taken:
        precision, ratios, growth = measure(options.precision)
    if options.update:
        update(precision, ratios)
    floors = json.loads(FLOORS.read_text()).get(precision)
    if floors is None:
        sys.exit(f"{FLOORS.name} has no floors for {precision!r}; --update makes them.")
    fine = judge(ratios, growth, floors, console)
    console.print(f"Products in {'float32' if precision == 'no' else precision}; measured in {taken[0]:.0f} s.")
    sys.exit(not fine)


if __name__ == "__main__":
    main()
