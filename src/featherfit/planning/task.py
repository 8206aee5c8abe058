"""Prepared parts of a fit go in; a `Task` to forecast comes out, with what its tokenizer took, measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from featherfit.checkpoints import Checkpoint
from featherfit.config.schema import Config
from featherfit.data.batch import longest_row, total_lengths
from featherfit.data.parts import PartProcessor
from featherfit.data.processors.notext import NoText
from featherfit.data.processors.several import Target
from featherfit.data.processors.text import TextProcessor, TokenizedRows
from featherfit.memory import release_freed_memory
from featherfit.planning.copies import Architecture
from featherfit.planning.machine import forget_peak, process_memory
from featherfit.training.device import Device
from featherfit.training.losses import Objective, objective_of

SAMPLE, LONGEST = 4096, 256
"""Rows that are tokenized to plan: evenly spaced ones, and on top of them those with most letters."""


@dataclass(frozen=True)
class ProcessShare:
    """What the process itself takes, in bytes.

    Attributes:
        own: Python, libraries, compiled kernels and the user's tables.
        tokenizer: On top of that, most while tables are tokenized.
    """

    own: int
    tokenizer: int


@dataclass(frozen=True)
class Task:
    """A run to forecast.

    Attributes:
        architecture: Settings, checkpoint, head and device.
        objective: The loss.
        rows: Some of its training rows, the longest among them.
        lengths: Tokens each of them takes in a forward, all encoders together, (rows,).
        mean_length: Mean tokens of a row's text.
        total_rows: How many rows it trains on.
        longest: Most tokens a row may have.
        tokenizer: Bytes the tokenizer takes at most.
    """

    architecture: Architecture
    objective: Objective
    rows: TokenizedRows
    lengths: np.ndarray
    mean_length: float
    total_rows: int
    longest: int
    tokenizer: int


def task_of(
    config: Config,
    checkpoint: Checkpoint | None,
    device: Device,
    label: Target,
    text: TextProcessor | NoText,
    frame: pd.DataFrame,
    parts: Mapping[str, PartProcessor] | None = None,
    further: Mapping[str, Checkpoint] | None = None,
) -> Task:
    """The task of training on a table.

    Args:
        config: Settings of the run.
        checkpoint: Pretrained weights of the text encoder; None where no text is read.
        device: Where the run computes.
        label: Fitted to the label.
        text: Its tokenizer is released.
        frame: Rows to train on; some are tokenized.
        parts, further: Processors and checkpoints of the other encoders, by their name.

    Raises:
        DataError: A row that cannot be tokenized.
    """
    chosen, spaced = sampled(frame, list(text.columns))
    rows, tokenizer = _tokenized(text, chosen)
    parts = parts or {}
    read = {name: processor(chosen) for name, processor in parts.items()}
    lengths = total_lengths(rows, read)
    return Task(
        Architecture(config, checkpoint, label.outputs, device, parts, further or {}, read),
        objective_of(label, config.optim),
        rows,
        lengths,
        float(rows.lengths[:spaced].mean()),
        len(frame),
        longest_row(lengths, rows.lengths, text.max_len),
        tokenizer,
    )


def sampled(frame: pd.DataFrame, columns: list[str]) -> tuple[pd.DataFrame, int]:
    """Some rows of a table, evenly spaced ones first and then the longest of the others; and how many are the former."""
    if len(frame) <= SAMPLE + LONGEST:
        return frame, len(frame)
    spaced = np.linspace(0, len(frame) - 1, SAMPLE).round().astype(int)
    if not columns:
        return frame.iloc[spaced], len(spaced)
    letters = sum(frame[column].astype(str).str.len().fillna(0).to_numpy() for column in columns)
    longest = np.setdiff1d(np.argsort(letters, kind="stable")[-LONGEST:], spaced)
    return frame.iloc[np.concatenate([spaced, longest])], len(spaced)


def _tokenized(text: TextProcessor | NoText, frame: pd.DataFrame) -> tuple[TokenizedRows, int]:
    """The rows' ids, and the bytes the tokenizer takes at most, being built included."""
    text.release_tokenizer()
    release_freed_memory()
    without, _ = process_memory()
    known = forget_peak()
    rows = text(frame)  # builds the tokenizer again
    now, most = process_memory()
    text.release_tokenizer()
    release_freed_memory()
    return rows, max(0, (most if known else now) - without)
