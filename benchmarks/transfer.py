"""Recipes beside each other in languages they were not trained in: scores by language and seed, time, and a plot.

    python benchmarks/transfer.py FOLDER [--tasks reviews products topics intents] [--recipes NAME ...]
        [--seeds 0 1 2 3 4] [--rows 1000] [--test-rows N] [--split test] [--jobs 1] [--baseline NAME]
        [--try NAME:KEY=VALUE,...] [--venv DIR] [--json FILE] [--plot FILE]

FOLDER holds a folder for every task, as `transfer_data.py` describes them. Recipes are in `transfer_recipes.py`; `--try`
adds one, over the tutorial's settings, with `prefix=` and `members=` among its keys. Every fit has a process of its own.
With `--json`, what the file already has is not run again, so that a benchmark can be stopped and gone on with, or extended.

`--jobs 2` runs two fits at a time with one thread each: the same scores but for rounding, and no times worth reading, so
none are shown. The same goes for a run under OMP_NUM_THREADS. AutoMM gets an environment of its own (`versus_environment.py`).

The mean over the unseen languages is taken within a run. Differences to the baseline are of the same task and seed;
their interval is Student's over the seeds. Rows that train and rows that test are the same for every seed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import Any

from contestants import TUTORIAL
from transfer_data import TASKS, prepare
from transfer_recipes import RECIPES, Recipe
from transfer_report import markdown, plot
from versus_environment import AUTOMM, automm_python

CHECKPOINT = "intfloat/multilingual-e5-small"
WORKER = Path(__file__).with_name("transfer_worker.py")


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--recipes", nargs="*", choices=list(RECIPES), default=list(RECIPES), metavar="NAME",
                        help=f"of {', '.join(RECIPES)}")  # fmt: skip
    parser.add_argument("--try", nargs="+", default=[], metavar="NAME:KEY=VALUE,...", dest="tried")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--rows", type=int, default=1000, help="most training rows")
    parser.add_argument("--test-rows", type=int, help="most rows a language; all unless given")
    parser.add_argument("--split", choices=("test", "dev"), default="test")
    parser.add_argument("--jobs", type=int, default=1, help="fits at a time, with a thread each if there are several")
    parser.add_argument("--baseline", default="automm", help="the recipe others are compared to")
    parser.add_argument("--venv", type=Path, help="AutoMM's environment; made if it is not there")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    try:
        options.chosen = [RECIPES[name] for name in options.recipes] + [read_recipe(text) for text in options.tried]
    except ValueError as error:
        parser.error(str(error))
    return options


def read_recipe(text: str) -> Recipe:
    """A recipe as `--try` writes it.

    Raises:
        ValueError: It is not NAME:KEY=VALUE,...
    """
    name, _, rest = text.partition(":")
    recipe = Recipe(name)
    for pair in filter(None, rest.split(",")):
        key, equals, value = pair.partition("=")
        if not equals:
            raise ValueError(f"--try {text!r}: {pair!r} is no KEY=VALUE.")
        if key == "prefix":
            recipe = replace(recipe, prefix=value)
        elif key == "members":
            recipe = replace(recipe, members=int(value))
        elif key == "tutorial":
            recipe = replace(recipe, tutorial=bool(int(value)))
        else:
            recipe = replace(recipe, overrides={**recipe.overrides, key: plain(value)})
    return recipe


def plain(value: str) -> Any:
    """A number, boolean or null where it reads as one, else the text."""
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        return value


def run(recipe: Recipe, seed: int, files: dict[str, Any], options: argparse.Namespace, python: Path) -> dict[str, Any]:
    """One fit and its scores.

    Raises:
        RuntimeError: The worker failed; the end of its log is in the message.
    """
    job = files | {
        "contestant": recipe.contestant,
        "presets": "multilingual",
        "overrides": (TUTORIAL if recipe.tutorial else {}) | recipe.overrides,
        "prefix": recipe.prefix,
        "members": recipe.members,
        "seed": seed,
    }
    threads = {"OMP_NUM_THREADS": "1"} if options.jobs > 1 else {}
    with tempfile.TemporaryDirectory() as folder:
        request, result, log = (Path(folder) / name for name in ("job.json", "result.json", "log.txt"))
        request.write_text(json.dumps(job | {"result": str(result)}), encoding="utf-8")
        with open(log, "w", encoding="utf-8") as output:
            environment = os.environ | {"HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""} | threads
            subprocess.run(
                [python, WORKER, request],
                cwd=folder,
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                check=False,
            )
        if not result.exists():
            end = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:])
            raise RuntimeError(f"{recipe.name}, seed {seed}:\n{end}")
        return json.loads(result.read_text(encoding="utf-8"))


def key_of(run: dict[str, Any]) -> tuple[Any, ...]:
    """What tells one run from another."""
    return tuple(run[name] for name in ("task", "recipe", "seed", "rows", "test_rows", "split"))


def run_all(options: argparse.Namespace, python: Path | None) -> tuple[list[dict[str, Any]], bool]:
    """Everything that is not in the JSON file yet, seeds outermost.

    Returns:
        The runs of the chosen tasks, recipes and seeds, and whether all went well.
    """
    from featherfit.checkpoints.resolve import resolve_checkpoint

    done = json.loads(options.json.read_text(encoding="utf-8")) if options.json and options.json.exists() else []
    known, lock, failed = {key_of(run) for run in done}, Lock(), []
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(options.jobs) as pool:
        checkpoint = str(resolve_checkpoint(CHECKPOINT).folder)
        tables = {}
        for name in options.tasks:
            task = TASKS[name]
            tables[name] = prepare(
                options.folder / name, task, Path(folder), split=options.split, rows=options.rows, test_rows=options.test_rows
            ) | {"metric": task.metric, "english": task.english, "checkpoint": checkpoint}  # fmt: skip

        def one(name: str, recipe: Recipe, seed: int) -> None:
            entry = {"task": name, "recipe": recipe.name, "seed": seed, "rows": options.rows}
            entry |= {
                "test_rows": options.test_rows,
                "split": options.split,
                "alone": options.jobs == 1 and "OMP_NUM_THREADS" not in os.environ,
            }
            if key_of(entry) in known:
                return
            chosen = python if recipe.contestant == "automm" and python else Path(sys.executable)
            try:
                figures = run(recipe, seed, tables[name], options, chosen)
            except RuntimeError as error:
                failed.append(recipe.name)
                print(error, file=sys.stderr, flush=True)
                return
            with lock:
                done.append(entry | figures)
                if options.json:
                    options.json.write_text(json.dumps(done, indent=1) + "\n", encoding="utf-8")
            scores = " ".join(f"{language} {score:.3f}" for language, score in figures["scores"].items())
            print(f"{name}, {recipe.name}, seed {seed}: {figures['fit_s']:.0f} s, {scores}", flush=True)

        jobs = [(name, recipe, seed) for seed in options.seeds for name in options.tasks for recipe in options.chosen]
        list(pool.map(lambda job: one(*job), jobs))
    wanted = {recipe.name for recipe in options.chosen}
    shown = (options.rows, options.test_rows, options.split)
    runs = [
        run
        for run in done
        if run["task"] in options.tasks and run["recipe"] in wanted and run["seed"] in options.seeds
        and (run["rows"], run["test_rows"], run["split"]) == shown
    ]  # fmt: skip
    return runs, not failed


def main() -> int:
    """Runs the benchmark and prints a table for each task.

    Returns:
        0, or 1 where a fit failed.
    """
    options = parse()
    python = None
    if any(recipe.contestant == "automm" for recipe in options.chosen):
        from featherfit.checkpoints.cache import cache_dir

        folder = options.venv or cache_dir() / "venvs" / f"automm-{AUTOMM}"
        python = automm_python(folder.expanduser().absolute())
    runs, well = run_all(options, python)
    for name in options.tasks:
        own = [run for run in runs if run["task"] == name]
        if own:
            print(f"\n{name}: {TASKS[name].metric}\n\n{markdown(own, TASKS[name].english, options.baseline)}")
    if options.plot and runs:
        plot(runs, {name: task.english for name, task in TASKS.items()}, options.baseline, options.plot)
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
