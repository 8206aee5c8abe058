"""The tables of `transfer.py`: a folder goes in; training rows in English and test rows by language come out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

SAMPLE = 123
"""Seed of every sample of rows, so that all recipes and seeds see the same ones."""


@dataclass(frozen=True)
class Task:
    """A data set in several languages, learned in one of them.

    Attributes:
        name: What it is called on the command line, and its folder.
        english: The training language, as files are named by it.
        train: Suffix of the English training file.
        label: The label column.
        metric: `roc_auc` for two classes, `accuracy` for more.
        own: Suffix of the files in which the other languages have training rows of their own; None where there are
            none, and halves of the test file stand in for them, each scored by a model of the other.
    """

    name: str
    english: str
    train: str
    label: str
    metric: str
    own: str | None


TASKS = {
    task.name: task
    for task in (
        Task("reviews", "en", "train", "label", "roc_auc", None),
        Task("products", "en", "train", "label", "roc_auc", "dev"),
        Task("topics", "eng_Latn", "train", "label", "accuracy", "train"),
        Task("intents", "en", "dev", "intent", "accuracy", "dev"),
    )
}


def read(path: Path, label: str) -> pd.DataFrame:
    """Columns `label` and `text`; only an empty field counts as missing."""
    frame = pd.read_csv(path, sep="\t", keep_default_na=False)[[label, "text"]]
    return frame.rename(columns={label: "label"})


def sampled(frame: pd.DataFrame, rows: int | None) -> pd.DataFrame:
    """At most so many rows, the same ones every time."""
    return frame if rows is None or rows >= len(frame) else frame.sample(rows, random_state=SAMPLE)


def languages(folder: Path, task: Task, split: str) -> list[str]:
    """The languages a task can be scored in, the training language first.

    Raises:
        SystemExit: The folder has no files of that kind.
    """
    found = sorted(path.name.removesuffix(f"_{split}.tsv") for path in folder.glob(f"*_{split}.tsv"))
    if task.english not in found:
        raise SystemExit(f"{folder} holds no {task.english}_{split}.tsv.")
    return [task.english, *(name for name in found if name != task.english)]


def prepare(
    folder: Path, task: Task, scratch: Path, *, split: str, rows: int | None, test_rows: int | None
) -> dict[str, object]:
    """Writes what every contestant reads as CSV files, and returns their paths.

    Args:
        folder: Of the task's files.
        task: The task.
        scratch: Where the files go.
        split: `test`, or `dev` for choosing between recipes.
        rows: Most training rows, None for all.
        test_rows: Most rows a language, None for all.
    """

    def write(frame: pd.DataFrame, name: str) -> str:
        path = scratch / f"{task.name}-{name}.csv"
        frame.to_csv(path, index=False)
        return str(path)

    names = languages(folder, task, split)
    tests = {name: sampled(read(folder / f"{name}_{split}.tsv", task.label), test_rows) for name in names}
    files: dict[str, object] = {
        "train": write(sampled(read(folder / f"{task.english}_{task.train}.tsv", task.label), rows), "train"),
        "tests": {name: write(frame, f"{name}-test") for name, frame in tests.items()},
    }
    if task.own is not None and task.own != split:
        own = {
            name: sampled(read(folder / f"{name}_{task.own}.tsv", task.label), rows)
            for name in names[1:]
            if (folder / f"{name}_{task.own}.tsv").exists()
        }
        files["own"] = {name: write(frame, f"{name}-own") for name, frame in own.items()}
    return files
