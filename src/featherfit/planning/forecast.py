"""A run that was not started goes in; its memory, phase by phase, and its time come out, for any size of forward."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np

from featherfit.adapters.targets import layers_on_top
from featherfit.data.batch import inference_plan, training_batches
from featherfit.memory import TIDIED_AFTER
from featherfit.planning.calibrate import (
    Forward,
    Line,
    memory_of,
    run_once,
    seconds_of,
    seconds_per_number,
    with_checkpointing,
)
from featherfit.planning.copies import depth_of, whole_model
from featherfit.planning.task import ProcessShare, Task
from featherfit.planning.weights import weights_of
from featherfit.training.loop import make_plan
from featherfit.training.prefix import IN_MEMORY, keeps_states

_KEPT, _KEPT_BESIDES, _KEPT_AT_MOST = 0.58, 45_000_000, 1.2
"""Memory that is free and kept, since freed blocks serve the next ones badly: a share of what a forward makes, and bytes that do not
shrink with it; together at most so many times that."""
_KEPT_TIDIED = 0.57
"""The same as a share of what is made between two layers before which a `Tidier` gives it back."""
_SMALL_BLOCKS = 0.05
"""The same where free memory goes back to the system, which small blocks do not."""

_STATE_BYTES = {"adamw": 8, "adam": 8, "sgd": 4}
_OPTIMISER_PASSES, _TABLE_PASSES = 7, 4
"""Times the optimiser reads or writes a number, and a backward pass one of a table that trains."""
_ALIKE, _MET = 32, 16
"""Tokens by which forwards differ at least to need other kernels, and how many are enough to fill oneDNN's cache."""
_EPOCHS = 2
"""Epochs whose batches are looked at."""


@dataclass(frozen=True)
class Phase:
    """Memory of one part of a run, in bytes by what takes it."""

    name: str
    parts: dict[str, int]

    @property
    def total(self) -> int:
        """All parts together."""
        return sum(self.parts.values())


@dataclass
class Forecast:
    """Answers about one task; small copies are run when an answer needs it."""

    task: Task
    _measured: dict[tuple[bool, Forward], Line] = field(default_factory=dict)
    _cut: dict[int, list[list[np.ndarray]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        architecture = self.task.architecture
        model = whole_model(architecture)
        self.weights = weights_of(model, architecture)
        self.depth = self.trained = depth_of(model)
        config = architecture.config
        top = config.optim.top_layers
        if top is not None and model.encoder is not None:
            self.trained = self.depth * layers_on_top(model.encoder, top) // len(model.encoder.layers())
        # The few-label start passes over rows too and is left out.
        visits = make_plan(self.task.total_rows, config).epochs
        self.keeps_states = keeps_states(model, config, architecture.device, visits)
        self._width = 0 if model.encoder is None else model.encoder.out_dim
        self.padded = model.padded
        self.checkpoints: bool = architecture.config.model.hf_text.gradient_checkpointing

    def usual_tokens(self, *, training: bool = True) -> int:
        """Tokens of a forward where no budget has a say."""
        architecture = self.task.architecture
        return architecture.device.tokens_per_forward(architecture.config, self.task.longest, training=training)

    def sizes(self) -> list[int]:
        """Tokens a training forward may have at most, the usual first, then fewer; those that make a difference."""
        usual = self.usual_tokens()
        found: dict[int, int] = {}
        for share in (1, 3 / 4, 1 / 2, 3 / 8, 1 / 4, 3 / 16, 1 / 8, 1 / 16):
            tokens = usual if share == 1 else max(32, int(usual * share) // 32 * 32)
            if tokens <= usual:
                found.setdefault(self._size(self._training_forwards(tokens)[0].lengths), tokens)
        return list(found.values())

    def warm(self) -> None:
        """Lets this process meet what a run's process does, and keep what it keeps: imports, and oneDNN's kernels.

        A kernel takes up to 3 MB, and every size of forward needs some, whatever the depth.
        """
        forwards: dict[int, tuple[int, ...]] = {}
        for step in self._steps(self.usual_tokens()):
            for rows in step:
                lengths = self.task.lengths[rows]
                forwards.setdefault(self._size(lengths) // _ALIKE, tuple(map(int, lengths)))
        chosen = list(forwards.values())[:_MET]
        run_once(
            self.task.architecture,
            [Forward(lengths, training=True) for lengths in chosen],
            reorders=self.weights.reorders,
            objective=self.task.objective,
        )

    def measure(self, sizes: Iterable[int], checkpointing: bool) -> None:
        """Measures what training with these sizes of forward takes, all with the same copies."""
        self._measure([forward for tokens in sizes for forward in self._training_forwards(tokens)], checkpointing)

    def activations(self, tokens: int, checkpointing: bool) -> int:
        """Bytes of a training forward and its backward pass.

        Where a step is a single forward, the gradients it leaves are among them; otherwise they are there all the time
        and count by themselves.
        """
        return self._taken(self._training_forwards(tokens), checkpointing)

    def phases(self, tokens: int, checkpointing: bool, process: ProcessShare) -> list[Phase]:
        """What a run takes, one phase after another.

        Args:
            tokens: Most tokens of a forward.
            checkpointing: Whether activations are recomputed.
            process: On a GPU its memory alone counts, so zeros.
        """
        weights, architecture = self.weights, self.task.architecture
        optim = architecture.config.optim
        own = {"process and libraries": process.own}
        model = {**own, **weights.frozen, "trained parameters": weights.trained, "token ids": self._ids()}
        model["states of frozen layers"] = self.states_bytes()
        state = {**model, "optimiser": self.optimizer_bytes(), "running average": self.average_bytes()}
        backward = max(self.activations(tokens, checkpointing), weights.largest_table)
        gradients = {"gradients": weights.trained}
        validating = min(tokens, self.usual_tokens(training=False)) if tokens < self.usual_tokens() else None
        forward = self._taken(self._inference_forwards(validating), checkpointing)
        phases = [
            Phase("loading", {**own, "weights": weights.loaded + weights.loading, "tokenizer": process.tokenizer}),
            Phase("training", {**state, **({} if self._single(tokens) else gradients), "activations": backward}),
            Phase("stepping", {**state, **gradients}),
            Phase("validating", {**state, "forward": forward}),
        ]
        if optim.top_k_average_method != "best":
            kept = min(optim.top_k, len(make_plan(self.task.total_rows, architecture.config).validations))
            states = weights.trained * kept + 3 * weights.largest_table  # pages of their files, and a sum in float64
            phases.append(Phase("averaging the best", {**model, "states": states}))
        return [Phase(phase.name, {name: size for name, size in phase.parts.items() if size}) for phase in phases]

    def optimizer_bytes(self) -> int:
        """What the optimiser keeps for the parameters that train."""
        return _STATE_BYTES[self.task.architecture.config.optim.optim_type] * self.weights.trainable

    def average_bytes(self) -> int:
        """The running average of the parameters that train, where there is one."""
        return self.weights.trained if self.task.architecture.config.optim.ema_decay > 0 else 0

    def states_bytes(self) -> int:
        """What `optim.prefix_cache` keeps of the training rows in memory; 0 where nothing, or on disk."""
        architecture = self.task.architecture
        if not self.keeps_states or architecture.config.plans_memory():
            return 0
        number = 4 if architecture.device.precision == "no" else 2
        size = round(self.task.mean_length * self.task.total_rows) * self._width * number
        return size if size <= IN_MEMORY else 0

    def step_seconds(self, tokens: int, checkpointing: bool) -> tuple[float, float, float]:
        """Seconds of an optimiser step of `env.batch_size` rows and of an epoch, validation left out; and those of frozen layers
        that compute every training row once before that.
        """
        forward = self._training_forwards(tokens)[0]
        steps = self._steps(tokens)
        size = self._size(forward.lengths)
        above, beneath = self._seconds(forward, checkpointing)
        once = beneath / size * self.task.mean_length * self.task.total_rows if self.keeps_states else 0.0
        per_token = (above if self.keeps_states else above + beneath) / size
        passes = sum(len(step) for step in steps) / len(steps)
        computed = sum(self._size(self.task.lengths[rows]) for step in steps for rows in step) / len(steps)
        number = seconds_per_number(self.task.architecture)
        table = self.weights.largest_table / 4 * number * _TABLE_PASSES / _OPTIMISER_PASSES
        step = per_token * computed + passes * table + number * self.weights.trainable
        return step, step * make_plan(self.task.total_rows, self.task.architecture.config).steps_per_epoch, once

    def _seconds(self, forward: Forward, checkpointing: bool) -> tuple[float, float]:
        """Seconds of a forward: of what trains and all above it, and of the layers beneath."""

        def line(forward: Forward) -> Line:
            return seconds_of(
                with_checkpointing(self.task.architecture, checkpointing),
                forward,
                depth=self.depth,
                reorders=self.weights.reorders,
                objective=self.task.objective,
            )

        beneath = self.depth - self.trained  # no backward pass gets there
        below = beneath * line(replace(forward, training=False)).per_layer if beneath else 0.0
        return line(forward).at(self.trained), below

    def _taken(self, forwards: list[Forward], checkpointing: bool) -> int:
        """Bytes the process grows by: what is in use, and what was freed and cannot be used again.

        What a layer that recomputes frees is what another one keeps, so it leaves as much behind.
        """
        # Layers beneath all that trains keep nothing.
        layers, architecture = self.trained if forwards[0].training else self.depth, self.task.architecture
        used = self._most(forwards, checkpointing, layers)
        if architecture.config.plans_memory() or architecture.device.place.type != "cpu":
            return round((1 + _SMALL_BLOCKS) * used)
        if checkpointing:
            return round(used + _KEPT_TIDIED * self._most(forwards, False, min(layers, TIDIED_AFTER)))
        return round(used + min(_KEPT_BESIDES + _KEPT * used, _KEPT_AT_MOST * used))

    def _most(self, forwards: list[Forward], checkpointing: bool, layers: int) -> float:
        self._measure(forwards, checkpointing)
        return max(self._measured[checkpointing, forward].at(layers) for forward in forwards)

    def _measure(self, forwards: list[Forward], checkpointing: bool) -> None:
        missing = [f for f in dict.fromkeys(forwards) if (checkpointing, f) not in self._measured]
        if not missing:
            return
        lines = memory_of(
            with_checkpointing(self.task.architecture, checkpointing),
            missing,
            depth=self.depth,
            reorders=self.weights.reorders,
            objective=self.task.objective,
        )
        self._measured |= {(checkpointing, forward): line for forward, line in zip(missing, lines, strict=True)}

    def _steps(self, tokens: int) -> list[list[np.ndarray]]:
        """Steps of a few epochs, of the rows that are known; cut once for each limit."""
        if tokens not in self._cut:
            lengths, rows = self.task.lengths, self.task.architecture.config.rows_per_step(self.task.total_rows)
            self._cut[tokens] = [
                step
                for epoch in range(_EPOCHS)
                for step in training_batches(lengths, rows, tokens, padded=self.padded, seed=0, epoch=epoch)
            ]
        return self._cut[tokens]

    def _single(self, tokens: int) -> bool:
        return all(len(step) == 1 for step in self._steps(tokens))

    def _training_forwards(self, tokens: int) -> list[Forward]:
        """The forwards of an epoch that take most: that of most tokens, and that of the longest rows."""
        forwards = [self.task.lengths[rows] for step in self._steps(tokens) for rows in step]
        return self._heaviest(forwards, training=True, keeps_gradients=self._single(tokens))

    def _inference_forwards(self, tokens: int | None) -> list[Forward]:
        tokens = self.usual_tokens(training=False) if tokens is None else tokens
        batches = inference_plan(
            self.task.rows, tokens, padded=self.padded, parts=self.task.architecture.examples
        ).batches
        return self._heaviest([self.task.lengths[rows] for rows in batches], training=False)

    def _heaviest(self, found: list[np.ndarray], *, training: bool, keeps_gradients: bool = False) -> list[Forward]:
        largest = max(found, key=lambda lengths: (self._size(lengths), lengths.max()))
        longest = max(found, key=lambda lengths: int(np.square(lengths).sum()))
        unique = {tuple(map(int, lengths)): None for lengths in (largest, longest)}
        return [Forward(lengths, training, keeps_gradients) for lengths in unique]

    def _size(self, lengths: np.ndarray | tuple[int, ...]) -> int:
        """Tokens a forward computes for rows of these lengths."""
        return int(max(lengths) * len(lengths) if self.padded else sum(lengths))

    def _ids(self) -> int:
        """Token ids of all rows, and their segments."""
        segments = 1 if self.task.rows.segments is None else 2
        return round(self.task.mean_length * self.task.total_rows) * 4 * segments
