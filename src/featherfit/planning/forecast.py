"""A run that was not started goes in; its memory, phase by phase, and its time come out, for any size of forward."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from featherfit.errors import ConfigError
from featherfit.planning.calibrate import Calibration, calibrate, heaviest, size_of, with_checkpointing
from featherfit.planning.copies import depth_of, whole_model
from featherfit.planning.task import ProcessShare, Task
from featherfit.planning.weights import layer_size, weights_of

UNUSED_SPACE = 1.15
"""What a forward takes of the system beyond what it asks for: batches differ in size, so freed pieces fit badly."""

_STATE_BYTES = {"adamw": 8, "adam": 8, "sgd": 4}
_OPTIMISER_PASSES, _TABLE_PASSES = 7, 4
"""Times the optimiser reads or writes a number, and a backward pass one of a table that trains."""


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
    """Answers about one task; small copies are run when first needed, once with checkpointing and once without."""

    task: Task
    _calibrations: dict[bool, Calibration] = field(default_factory=dict)

    def __post_init__(self) -> None:
        architecture = self.task.architecture
        model = whole_model(architecture)
        self.weights = weights_of(model, architecture, self.task.rows.ids)
        self.depth = depth_of(model)
        self.padded = not model.encoder.family.packs
        self._layer_size = layer_size(model)

    def calibration(self, checkpointing: bool) -> Calibration:
        """What was measured.

        Raises:
            ConfigError: Gradient checkpointing with an encoder that cannot do it.
        """
        if checkpointing not in self._calibrations:
            self._calibrations[checkpointing] = calibrate(
                with_checkpointing(self.task.architecture, checkpointing),
                self.task.rows.lengths,
                problem_type=self.task.problem_type,
                reorders=self.weights.reorders,
                padded=self.padded,
                layer_size=self._layer_size,
            )
        return self._calibrations[checkpointing]

    def can_checkpoint(self) -> bool:
        """Whether the encoder can recompute its activations."""
        try:
            self.calibration(True)
        except ConfigError:
            return False
        return True

    def usual_tokens(self) -> int:
        """Tokens of a training forward where no budget has a say."""
        architecture = self.task.architecture
        rows = architecture.config.rows_per_forward(training=True)
        return architecture.device.tokens_per_forward(rows, self.task.longest, training=True)

    def sizes(self) -> list[int]:
        """Tokens a training forward may have at most, the usual first, then fewer; those that make a difference."""
        usual, found = self.usual_tokens(), {}
        for share in (1, 3 / 4, 1 / 2, 3 / 8, 1 / 4, 3 / 16, 1 / 8, 1 / 16):
            tokens = usual if share == 1 else max(32, int(usual * share) // 32 * 32)
            if tokens <= usual:
                found.setdefault(self.largest_forward(tokens), tokens)
        return list(found.values())

    def largest_forward(self, tokens: int) -> int:
        """Tokens of the largest forward if none may have more than `tokens`; a single row may."""
        rows = self.task.architecture.config.env.batch_size
        return size_of(heaviest(self.task.rows.lengths, rows, tokens, self.padded), self.padded)

    def activations(self, tokens: int, checkpointing: bool) -> int:
        """Bytes of a training forward and its backward pass."""
        training = self.calibration(checkpointing).training
        return round(UNUSED_SPACE * training.at(self.depth, self.largest_forward(tokens)))

    def phases(self, tokens: int, checkpointing: bool, process: ProcessShare) -> list[Phase]:
        """What a run takes, one phase after another.

        Args:
            tokens: Most tokens of a forward.
            checkpointing: Whether activations are recomputed.
            process: On a GPU its memory alone counts, so zeros.
        """
        weights = self.weights
        architecture = self.task.architecture
        own = {"process and libraries": process.own}
        loaded = {"weights": weights.loaded + weights.loading, "tokenizer": process.tokenizer}
        model = {**own, **weights.frozen, "trained parameters": weights.trained, "token ids": self._ids()}
        state = {**model, "optimiser": self.optimizer_bytes(), "running average": self.average_bytes()}
        backward = max(self.activations(tokens, checkpointing), weights.largest_table)
        inference = self.calibration(checkpointing).inference
        usual = architecture.device.tokens_per_forward(
            architecture.config.rows_per_forward(training=False), self.task.longest, training=False
        )
        at_once = usual if tokens == self.usual_tokens() else min(usual, tokens)
        forward = round(UNUSED_SPACE * inference.at(self.depth, max(at_once, int(self.task.rows.lengths.max()))))
        phases = [
            Phase("tokenizing", {**own, **loaded}),
            Phase("training", {**state, "gradients": weights.trained, "activations": backward}),
            Phase("validating", {**state, "forward": forward}),
        ]
        if architecture.config.optim.top_k > 1 and architecture.config.optim.top_k_average_method != "best":
            kept = weights.trained * (1 + architecture.config.optim.top_k)
            phases.append(Phase("averaging the best", {**model, "states": kept + 2 * weights.largest_table}))
        return [Phase(phase.name, {name: size for name, size in phase.parts.items() if size}) for phase in phases]

    def optimizer_bytes(self) -> int:
        """What the optimiser keeps for the parameters that train."""
        return _STATE_BYTES[self.task.architecture.config.optim.optim_type] * self.weights.trainable

    def average_bytes(self) -> int:
        """The running average of the parameters that train, where there is one."""
        return self.weights.trained if self.task.architecture.config.optim.ema_decay > 0 else 0

    def step_seconds(self, tokens: int, checkpointing: bool) -> tuple[float, float]:
        """Seconds of an optimiser step of `env.batch_size` rows, and of an epoch, validation left out."""
        calibration = self.calibration(checkpointing)
        rows = min(self.task.architecture.config.env.batch_size, self.task.total_rows)
        steps = math.ceil(self.task.total_rows / rows)
        size = self.largest_forward(tokens)
        wanted = self.task.mean_length * rows / size
        passes, share = max(1.0, wanted), min(1.0, wanted)
        forward = calibration.seconds.at(self.depth, max(1, round(size * share)))
        per_number = calibration.step_seconds
        table = self.weights.largest_table / 4 * per_number * _TABLE_PASSES / _OPTIMISER_PASSES
        step = passes * (forward + table) + per_number * self.weights.trainable
        return step, step * steps

    def _ids(self) -> int:
        """Token ids of all rows, and their segments."""
        segments = 1 if self.task.rows.segments is None else 2
        return round(self.task.mean_length * self.task.total_rows) * 4 * segments
