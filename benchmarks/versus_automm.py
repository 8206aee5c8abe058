"""featherfit beside AutoMM, transformers' Trainer with peft, and a frozen encoder, on the same rows and checkpoint.

    python benchmarks/versus_automm.py FOLDER [--rows 1000] [--seeds 0 1 2] [--test-rows 1000] [--venv DIR]
        [--only automm featherfit hf setfit] [--json FILE] [--plot FILE]

FOLDER holds `en_train.tsv` and `<language>_test.tsv` with the columns `label` (0 or 1) and `text`. Every contestant
trains multilingual-e5-small for 2 epochs in batches of 32 at a rate of 3e-3 throughout, in a process of its own, one
after the other, without a GPU. AutoMM gets an environment of its own (`versus_environment.py`); the others run in this
one, which needs featherfit, peft, datasets, scikit-learn and matplotlib. Linux only.

What is measured: `fit` with its holdout and saving; `evaluate` and `predict` over all languages; single rows both by a
plain `predict` and by the quickest way a library offers (AutoMM's `realtime=True`, a bare forward pass for
transformers); how much 50 plain calls of 20 rows let the process grow; the job's peak memory with its worker processes
(the larger of the process's own VmHWM and, looked at every two seconds, the sum of all proportional set sizes); and in a
fresh process the import and the time from its start to a first prediction.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from versus_environment import AUTOMM, automm_python
from versus_report import BASELINE, NOTES, markdown, medians, plot

CHECKPOINT = "intfloat/multilingual-e5-small"

WORKER = Path(__file__).with_name("versus_worker.py")


@dataclass(frozen=True)
class Entry:
    """A column of the table.

    Attributes:
        name: Its heading.
        group: What `--only` calls it.
        module: Its module in `contestants`.
        options: What its `build` reads from a job besides what all jobs have.
    """

    name: str
    group: str
    module: str
    options: dict[str, Any] = field(default_factory=dict)


ENTRIES = (
    Entry(BASELINE, "automm", "automm"),
    Entry("automm batch 32", "automm-batch32", "automm", {"micro_batch": 32}),
    Entry("featherfit", "featherfit", "feather", {"method": "ia3_bias", "int8": False}),
    Entry("featherfit int8", "featherfit", "feather", {"method": "ia3_bias", "int8": True}),
    Entry("featherfit lora", "featherfit", "feather", {"method": "lora", "int8": False}),
    Entry("Trainer lora", "hf", "trainer_lora"),
    Entry("frozen + logistic", "setfit", "frozen_head"),
)
"""`automm batch 32` is AutoMM without its preset's micro-batches of 4; it runs only where `--only` names it."""

DEFAULT_GROUPS = ("automm", "featherfit", "hf", "setfit")


class WorkerError(Exception):
    """A worker did not come to its end."""


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    groups = list(dict.fromkeys(entry.group for entry in ENTRIES))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=1000, help="training rows")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--test-rows", type=int, default=1000, help="at most so many rows a language")
    parser.add_argument("--venv", type=Path, help="AutoMM's environment; made if it is not there")
    parser.add_argument("--only", nargs="+", choices=groups, default=list(DEFAULT_GROUPS), metavar="GROUP",
                        help=f"of {', '.join(groups)}")  # fmt: skip
    parser.add_argument("--no-bf16", action="store_true", help="float32 for Trainer and the frozen encoder")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    needed = {"hf": ("peft", "datasets", "accelerate"), "setfit": ("sklearn",), "automm": ()}
    modules = {"psutil", *(name for group in options.only for name in needed.get(group, ()))}
    modules |= {"matplotlib"} if options.plot else set()
    missing = sorted(name for name in modules if importlib.util.find_spec(name) is None)
    if missing:
        parser.error(f"not installed here: {', '.join(missing)}. Install them, or leave their contestants out.")
    return options


def prepare(folder: Path, rows: int, test_rows: int, scratch: Path) -> dict[str, Any]:
    """Writes the rows everyone gets, so that no version of pandas samples others, and returns their paths."""
    import pandas as pd

    def write(source: Path, count: int) -> str:
        frame = pd.read_csv(source, sep="\t", keep_default_na=False)[["label", "text"]]
        target = scratch / f"{source.stem}.csv"
        frame.sample(min(count, len(frame)), random_state=123).to_csv(target, index=False)
        return str(target)

    tests = sorted(folder.glob("*_test.tsv"), key=lambda path: (path.name != "en_test.tsv", path.name))
    if not tests or tests[0].name != "en_test.tsv":
        raise SystemExit(f"{folder} holds no en_test.tsv.")
    return {
        "train": write(folder / "en_train.tsv", rows),
        "tests": {path.name.removesuffix("_test.tsv"): write(path, test_rows) for path in tests},
    }


def run_process(python: Path, job: dict[str, Any], scratch: Path, status: Any) -> dict[str, Any]:
    """Runs one worker to its end.

    Args:
        python: Whose packages it uses.
        job: What to do; where its figures go is filled in here.
        scratch: Where the job, its log and its figures are kept.
        status: A rich status to keep up to date, or None.

    Raises:
        WorkerError: It failed; the end of its log is in the message.
    """
    files = {name: scratch / f"{name}.txt" for name in ("job", "result", "progress", "log")}
    for file in files.values():
        file.unlink(missing_ok=True)
    job = job | {"result": str(files["result"]), "progress": str(files["progress"]), "started": time.time()}
    files["job"].write_text(json.dumps(job), encoding="utf-8")
    settings = {"HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    settings["FEATHERFIT_TOKEN_CACHE"] = "0"  # so that no run profits from an earlier one
    with open(files["log"], "w", encoding="utf-8") as log:
        process = subprocess.Popen(
            [python, WORKER, files["job"]], cwd=scratch, env=os.environ | settings, stdout=log, stderr=subprocess.STDOUT
        )
        tree_mb = watch(process, f"{job['contestant']}, seed {job['seed']}", files["progress"], status)
    if process.returncode != 0 or not files["result"].exists():
        end = "\n".join(files["log"].read_text(encoding="utf-8", errors="replace").splitlines()[-15:])
        raise WorkerError(f"{job['contestant']}, seed {job['seed']}, {job['stage']}: exit {process.returncode}\n{end}")
    figures = json.loads(files["result"].read_text(encoding="utf-8"))
    return figures | {"peak_mb": max(figures["peak_mb"], tree_mb)}


def watch(process: subprocess.Popen, title: str, progress: Path, status: Any) -> float:
    """Waits for a worker, and ends it if the wait is interrupted.

    Returns:
        The most memory it and its own worker processes were seen to take, MB.
    """
    started, most = time.monotonic(), 0.0
    try:
        while process.poll() is None:
            most = max(most, resident_mb(process.pid))
            if status is not None:
                stage = progress.read_text(encoding="utf-8") if progress.exists() else "starting"
                status.update(f"{title}: {stage}, {time.monotonic() - started:.0f} s")
            time.sleep(2)  # adding the sets up takes a tenth of a second of a core
    finally:
        process.kill()
        process.wait()
    return most


def resident_mb(pid: int) -> float:
    """Memory of a process and its descendants, MB, pages they share counted once."""
    import psutil

    total = 0
    try:
        parent = psutil.Process(pid)
        family = [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0.0
    for process in family:
        try:
            total += process.memory_full_info().pss
        except (psutil.NoSuchProcess, psutil.AccessDenied):  # it ended meanwhile
            continue
    return total / 1e6


def run_entry(entry: Entry, python: Path, common: dict[str, Any], status: Any) -> dict[str, Any]:
    """Both stages of one contestant and seed."""
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        job = common | entry.options
        job |= {"contestant": entry.name, "module": entry.module, "artifact": str(scratch / "artifact")}
        figures = run_process(python, job | {"stage": "fit"}, scratch, status)
        cold = run_process(python, job | {"stage": "cold"}, scratch, status)
    figures |= {"cold_s": cold["cold_s"], "import_s": cold["import_s"], "cold_peak_mb": cold["peak_mb"]}
    return {"contestant": entry.name, "seed": common["seed"]} | figures


def chosen(groups: list[str]) -> list[Entry]:
    """What is to run; int8 only where the installed featherfit offers it."""
    from featherfit import MultiModalPredictor

    entries = [entry for entry in ENTRIES if entry.group in groups]
    if hasattr(MultiModalPredictor, "optimize_for_inference"):
        return entries
    for entry in entries:
        if entry.options.get("int8"):
            print(f"{entry.name}: left out, this featherfit has no optimize_for_inference")
    return [entry for entry in entries if not entry.options.get("int8")]


def run_all(options: argparse.Namespace, pythons: dict[str, Path]) -> tuple[list[dict[str, Any]], bool]:
    """Every seed and contestant in turn, seeds outermost so that a drift of the machine meets all alike.

    Args:
        options: The command line.
        pythons: The Python of a contestant's module, where it is not this one.

    Returns:
        The runs, and whether all went well.
    """
    from featherfit.checkpoints.resolve import resolve_checkpoint

    runs, well = [], True
    with tempfile.TemporaryDirectory() as folder:
        common = prepare(options.folder, options.rows, options.test_rows, Path(folder))
        common |= {"checkpoint": str(resolve_checkpoint(CHECKPOINT).folder), "bf16": not options.no_bf16}
        for seed, entry in product(options.seeds, chosen(options.only)):
            started = time.monotonic()
            python = pythons.get(entry.module, Path(sys.executable))
            try:
                with spinner() as status:
                    run = run_entry(entry, python, common | {"seed": seed}, status)
            except WorkerError as error:
                print(error, file=sys.stderr, flush=True)
                well = False
                continue
            runs.append(run)
            save(options, runs)
            scores = " ".join(f"{language} {row['roc_auc']:.3f}" for language, row in run["languages"].items())
            seconds = time.monotonic() - started
            print(f"{entry.name}, seed {seed}: fit {run['fit_s']:.1f} s, {scores}, all {seconds:.0f} s", flush=True)
    return runs, well


def spinner() -> Any:
    """A live line on a terminal, None elsewhere."""
    from rich.console import Console

    console = Console(stderr=True)
    return console.status("starting") if console.is_terminal else nullcontext()


def save(options: argparse.Namespace, runs: list[dict[str, Any]]) -> None:
    """Writes the JSON file after every run, so that an interrupted benchmark is not lost."""
    if not options.json:
        return
    settings = {name: getattr(options, name) for name in ("rows", "seeds", "test_rows", "only", "no_bf16")}
    machine = {"system": platform.platform(), "processor": processor(), "cores": os.cpu_count()}
    content = {"settings": settings, "machine": machine, "runs": runs, "medians": medians(runs)}
    options.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def processor() -> str:
    """The processor's name, as Linux has it."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def main() -> int:
    """Runs the benchmark and prints the table.

    Returns:
        0, or 1 where a contestant failed.
    """
    # Ended from outside, the benchmark still ends its worker and removes its temporary files.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    options = parse()
    pythons = {}
    if any(entry.module == "automm" and entry.group in options.only for entry in ENTRIES):
        from featherfit.checkpoints.cache import cache_dir

        folder = options.venv or cache_dir() / "venvs" / f"automm-{AUTOMM}"
        pythons["automm"] = automm_python(folder.expanduser().absolute())
    runs, well = run_all(options, pythons)
    if not runs:
        return 1
    table = medians(runs)
    seeds = sorted({run["seed"] for run in runs})
    print(f"\nMedians over the seeds {', '.join(map(str, seeds))}; {options.rows:,} training rows\n")
    print(f"{markdown(table)}\n\n{NOTES}")
    if options.plot and BASELINE in table and len(table) > 1:
        plot(table, options.plot)
    elif options.plot:
        print(f"No plot: it shows ratios to AutoMM, so {BASELINE} and another contestant have to have run.")
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
