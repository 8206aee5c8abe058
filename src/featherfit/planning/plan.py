"""A run that was not started goes in; a `Plan` comes out: what it will take, and how it fits what there is."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from featherfit.checkpoints.layout import FAST_TOKENIZER, TOKENIZER_SETTINGS, VOCABULARIES
from featherfit.config.text import show_bytes
from featherfit.planning.budget import MARGIN, budget_of, choose, least, process_share
from featherfit.planning.forecast import Forecast
from featherfit.planning.machine import read_machine
from featherfit.planning.task import Task

if TYPE_CHECKING:
    import pandas as pd

_TENSOR_HEADER, _TEXT_FILES = 90, 7000
"""Bytes of an artifact for every tensor's entry, less its name, and for settings, schema, metrics and model card."""


@dataclass(frozen=True)
class Plan:
    """What a run will take; plain values, sizes in bytes.

    Attributes:
        checkpoint, peft, device, precision: What will run.
        gradient_checkpointing: Whether activations are recomputed, as the settings or the budget want it.
        parameters: Numbers in encoder, adapters and head.
        trainable: Numbers that train.
        rows: Rows to train on.
        tokens_per_row: Mean and largest number of tokens.
        weights: Frozen weights by part, as they lie in memory while training.
        trained: Adapters and head, or the whole encoder and head, float32.
        gradients, optimizer, average: What training adds to those that train.
        activations: A training forward with its backward pass, by most tokens of a forward.
        tokens_per_forward: What a fit would take.
        process: Python, libraries, kernels and tables.
        tokenizer: On top of it while tables are tokenized.
        phases: The parts of each phase of the run.
        peak: Most that any of them takes.
        machine: What there is: `total`, `available`, `limit` (of the control group), `gpu_total`, `gpu_free`.
        budget: What it was compared with: `env.memory_budget`, or what this process can have; None where unknown.
        fits: Whether the peak stays under it; None where it is unknown.
        cheapest: Quickest settings that fit: `tokens_per_forward`, `gradient_checkpointing`, `peak`; those that take
            least where none does.
        artifact: Size of the artifact.
        seconds_per_step, seconds_per_epoch: Training alone, as calibrated on this machine now.
        seconds_beneath: Of frozen layers that compute every row once before that (`optim.prefix_cache`).
    """

    checkpoint: str
    peft: str | None
    device: str
    precision: str
    gradient_checkpointing: bool
    parameters: int
    trainable: int
    rows: int
    tokens_per_row: dict[str, float]
    weights: dict[str, int]
    trained: int
    gradients: int
    optimizer: int
    average: int
    activations: dict[int, int]
    tokens_per_forward: int
    process: int
    tokenizer: int
    phases: dict[str, dict[str, int]]
    peak: int
    machine: dict[str, int | None]
    budget: int | None
    fits: bool | None
    cheapest: dict[str, Any]
    artifact: int
    seconds_per_step: float
    seconds_per_epoch: float
    seconds_beneath: float

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON values."""
        return {**asdict(self), "activations": {str(tokens): size for tokens, size in self.activations.items()}}

    def rows_to_show(self) -> list[dict[str, str]]:
        """A line for each thing a reader may want to know, with its size in words."""
        lines = [(f"{name} ", size) for name, size in self.weights.items()]
        lines += [
            ("trained parameters", self.trained),
            ("gradients", self.gradients),
            ("optimiser", self.optimizer),
            ("running average", self.average),
            *((f"activations, {tokens} tokens a forward", size) for tokens, size in self.activations.items()),
            ("process and libraries", self.process),
            ("tokenizer, while tokenizing", self.tokenizer),
            *((f"all while {name}", sum(parts.values())) for name, parts in self.phases.items()),
            ("peak", self.peak),
            *((f"machine, {name.replace('_', ' ')}", size) for name, size in self.machine.items() if size is not None),
            ("artifact", self.artifact),
        ]
        shown = [{"what": name.strip(), "memory": show_bytes(size)} for name, size in lines if size]
        times = {"a step": self.seconds_per_step, "an epoch": self.seconds_per_epoch}
        if self.seconds_beneath:
            times["frozen layers, once"] = self.seconds_beneath
        return shown + [{"what": f"time of {name}", "memory": f"{seconds:.2g} s"} for name, seconds in times.items()]

    def to_frame(self) -> pd.DataFrame:
        """Bytes of every part of every phase: columns `phase`, `part`, `bytes`."""
        import pandas as pd

        lines = [(phase, part, size) for phase, parts in self.phases.items() for part, size in parts.items()]
        return pd.DataFrame(lines, columns=["phase", "part", "bytes"])

    def verdict(self) -> str:
        """One or two sentences: the peak, whether it fits, and what would."""
        said = f"This run takes {show_bytes(self.peak)} at most, with {self.tokens_per_forward} tokens a forward"
        said += " and gradient checkpointing" if self.gradient_checkpointing else ""
        if self.budget is None:
            return f"{said}."
        said += f"; there are {show_bytes(self.budget)}, so it {'fits' if self.fits else 'does not fit'}."
        if self.fits:
            return said
        best = self.cheapest
        how = f"{best['tokens_per_forward']} tokens a forward"
        how += " and gradient checkpointing" if best["gradient_checkpointing"] else ""
        if (1 + MARGIN) * best["peak"] <= self.budget:
            return f"{said} With {how} it would ({show_bytes(best['peak'])}); env.memory_budget chooses that by itself."
        return f"{said} The least is {show_bytes(best['peak'])}, with {how}."

    def __str__(self) -> str:
        width = max(len(line["what"]) for line in self.rows_to_show())
        lines = [f"{line['what']:<{width}}  {line['memory']:>9}" for line in self.rows_to_show()]
        return "\n".join([f"{self.checkpoint}, {self.peft or 'full fine-tuning'}", *lines, self.verdict()])


def plan_run(task: Task, *, standalone: bool) -> Plan:
    """Forecasts a run and compares it with its budget, or with the machine.

    Args:
        task: The run.
        standalone: Whether the pretrained weights go into the artifact.

    Raises:
        CheckpointError: The checkpoint's config describes no text encoder.
        TargetError: The adapters' targets do not fit it.
        ConfigError: Gradient checkpointing with an encoder that cannot do it.
    """
    forecast = Forecast(task)
    weights = forecast.weights
    config, device = task.architecture.config, task.architecture.device
    machine = read_machine(device.place.type == "cuda")
    process = process_share(forecast)
    budget = budget_of(task, machine)
    asked = config.model.hf_text.gradient_checkpointing
    tokens, checkpointing = forecast.usual_tokens(), asked
    if budget is not None:
        best = choose(forecast, process, budget, may_checkpoint=True) or least(forecast, process, may_checkpoint=True)
        if config.plans_memory():
            tokens, checkpointing = best.tokens, best.checkpointing
    forecast.measure(forecast.sizes(), checkpointing)
    phases = forecast.phases(tokens, checkpointing, process)
    peak = max(phase.total for phase in phases)
    if budget is None:
        cheapest: dict[str, Any] = {"tokens_per_forward": tokens, "gradient_checkpointing": asked, "peak": peak}
    else:
        cheapest = {
            "tokens_per_forward": best.tokens,
            "gradient_checkpointing": best.checkpointing,
            "peak": best.peak,
        }
    step, epoch, beneath = forecast.step_seconds(tokens, checkpointing)
    lengths = task.rows.lengths
    return Plan(
        checkpoint=" + ".join(one.name for one in task.architecture.checkpoints) or "no pretrained weights",
        peft=config.optim.peft,
        device=device.place.type,
        precision={"no": "float32", "bf16": "bfloat16", "fp16": "float16"}[device.precision],
        gradient_checkpointing=checkpointing,
        parameters=weights.parameters,
        trainable=weights.trainable,
        rows=task.total_rows,
        tokens_per_row={"mean": float(lengths.mean()), "largest": int(lengths.max())},
        weights=dict(weights.frozen),
        trained=weights.trained,
        gradients=weights.trained,
        optimizer=forecast.optimizer_bytes(),
        average=forecast.average_bytes(),
        activations={size: forecast.activations(size, checkpointing) for size in forecast.sizes()},
        tokens_per_forward=tokens,
        process=process.own,
        tokenizer=process.tokenizer,
        phases={phase.name: phase.parts for phase in phases},
        peak=peak,
        machine=asdict(machine),
        budget=budget,
        fits=None if budget is None else (1 + MARGIN) * peak <= budget,
        cheapest=cheapest,
        artifact=_artifact_size(forecast, standalone=standalone),
        seconds_per_step=step,
        seconds_per_epoch=epoch,
        seconds_beneath=beneath,
    )


def _artifact_size(forecast: Forecast, *, standalone: bool) -> int:
    """Bytes of the artifact's files."""
    architecture = forecast.task.architecture
    size = forecast.weights.trained + _TEXT_FILES + forecast.weights.names + _TENSOR_HEADER * forecast.weights.tensors
    whole = architecture.config.optim.peft is None
    if architecture.checkpoint is not None and (whole or standalone):
        folder = architecture.checkpoint.folder
        files = [folder / name for name in (FAST_TOKENIZER, *VOCABULARIES, *TOKENIZER_SETTINGS)]
        size += sum(file.stat().st_size for file in files if file.is_file())
        size += 0 if whole else 4 * forecast.weights.encoder
    return size
