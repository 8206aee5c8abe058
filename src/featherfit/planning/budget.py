"""A forecast and a budget go in; the quickest settings that stay under it come out, or what it would take."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NoReturn

from featherfit.config.text import read_bytes, show_bytes
from featherfit.errors import ConfigError
from featherfit.planning.forecast import Forecast
from featherfit.planning.machine import Machine, process_memory, read_machine
from featherfit.planning.task import ProcessShare, Task
from featherfit.training.oom import give_memory_back

MARGIN = 0.04
"""Share of a forecast that a run may take beyond it and still has to stay under its budget."""


@dataclass(frozen=True)
class Choice:
    """How a run computes.

    Attributes:
        tokens: Most tokens of a forward; `env.batch_size` rows a step are accumulated from as many as it takes.
        checkpointing: Whether activations are recomputed in the backward pass.
        peak: Bytes it takes at most.
    """

    tokens: int
    checkpointing: bool
    peak: int


def within_budget(task: Task, *, may_checkpoint: bool) -> tuple[Choice, bool]:
    """How a run stays under its budget, and whether that differs from how it would run without one.

    Args:
        task: The run.
        may_checkpoint: Whether activations may be recomputed where the settings do not ask for it.

    Raises:
        ConfigError: Nothing stays under `env.memory_budget`; the message has what it would take.
    """
    forecast = Forecast(task)
    process = process_share(forecast)
    budget = budget_of(task, read_machine(task.architecture.device.place.type == "cuda"))
    room = sys.maxsize if budget is None else budget
    if process.own and choose(forecast, process, room, may_checkpoint=may_checkpoint) is not None:
        process = replace(process, own=max(process.own, _own()))  # what measuring left behind is there in the fit too
    choice = choose(forecast, process, room, may_checkpoint=may_checkpoint)
    if choice is None and task.architecture.config.env.memory_budget is None:
        choice = least(forecast, process, may_checkpoint=may_checkpoint)
        warnings.warn(
            f"This run takes about {show_bytes(choice.peak)} at least, and there are {show_bytes(budget or 0)}.",
            stacklevel=6,
        )
    if choice is None:
        _refuse(forecast, process, budget or 0, may_checkpoint=may_checkpoint)
    return choice, choice.tokens < forecast.usual_tokens() or choice.checkpointing != forecast.checkpoints


def budget_of(task: Task, machine: Machine) -> int | None:
    """Bytes the run may take: `env.memory_budget`, or else what the machine has for this process."""
    wanted = task.architecture.config.env.memory_budget
    if wanted is not None:
        return read_bytes(wanted)
    return machine.gpu_free if task.architecture.device.place.type == "cuda" else machine.available


def process_share(forecast: Forecast) -> ProcessShare:
    """What the process takes without a model, once everything a run needs was imported and has run once.

    On a GPU, whose own memory is planned, that of the process does not count.
    """
    architecture = forecast.task.architecture
    forecast.warm()
    if architecture.device.place.type != "cpu":
        return ProcessShare(0, 0)
    return ProcessShare(_own(), forecast.task.tokenizer)


def _own() -> int:
    """Bytes of this process once what nothing uses is given back."""
    give_memory_back()
    return process_memory()[0]


def choose(forecast: Forecast, process: ProcessShare, budget: int, *, may_checkpoint: bool) -> Choice | None:
    """The first of these that fits: the usual forwards, smaller ones, the same with activations recomputed.

    Smaller forwards cost little time until they are very small, and recomputing costs a third, so it comes last.

    Args:
        forecast: Of the run.
        process: What the process itself takes.
        budget: Bytes, all included.
        may_checkpoint: Whether activations may be recomputed where the settings do not ask for it.
    """
    room = budget / (1 + MARGIN)
    return next((choice for choice in _choices(forecast, process, may_checkpoint) if choice.peak <= room), None)


def least(forecast: Forecast, process: ProcessShare, *, may_checkpoint: bool) -> Choice:
    """The choice that takes least memory."""
    return min(_choices(forecast, process, may_checkpoint), key=lambda choice: choice.peak)


def _refuse(forecast: Forecast, process: ProcessShare, budget: int, *, may_checkpoint: bool) -> NoReturn:
    """Says what the run would need.

    Raises:
        ConfigError: Always.
    """
    best = least(forecast, process, may_checkpoint=may_checkpoint)
    phase = max(forecast.phases(best.tokens, best.checkpointing, process), key=lambda one: one.total)
    largest = sorted(phase.parts.items(), key=lambda part: -part[1])[:4]
    how = f"with forwards of {best.tokens} tokens" + (" and gradient checkpointing" if best.checkpointing else "")
    peft = forecast.task.architecture.config.optim.peft
    remedy = "a smaller checkpoint or a lower model.hf_text.max_text_len"
    remedy = f"optim.peft='ia3_bias', {remedy}" if peft is None else remedy
    raise ConfigError(
        f"env.memory_budget is {show_bytes(budget)}, and this run needs {show_bytes(best.peak)} even {how}: "
        f"{', '.join(f'{show_bytes(size)} {name}' for name, size in largest)} while {phase.name}. "
        f"Raise the budget to {show_bytes((1 + MARGIN) * best.peak).replace(' ', '')}, or choose {remedy}."
    )


def _choices(forecast: Forecast, process: ProcessShare, may_checkpoint: bool) -> Iterator[Choice]:
    """The quickest first; recomputing is measured only if somebody asks for it."""
    asked = forecast.checkpoints
    for checkpointing in (True,) if asked else (False, True):
        if checkpointing and not asked and not may_checkpoint:
            continue
        for tokens in forecast.sizes():
            peak = max(phase.total for phase in forecast.phases(tokens, checkpointing, process))
            yield Choice(tokens, checkpointing, peak)
