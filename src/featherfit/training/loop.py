"""A model and a dataset go in; a `StepReport` comes out after every optimiser step.

The loop knows no progress bars, clocks, files or stopping rules: whoever iterates over it does those.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from featherfit.config.schema import Config, OptimConfig
from featherfit.data.batch import collate, training_batches
from featherfit.data.dataset import Dataset
from featherfit.errors import TrainingError
from featherfit.models.build import MultiModalModel
from featherfit.training.device import Device
from featherfit.training.losses import row_losses
from featherfit.training.optim import build_optimizer, schedule, warmup_steps
from featherfit.types import ProblemType, StepReport


@dataclass(frozen=True)
class Plan:
    """How many steps there will be and after which of them the model is validated (1 is the first)."""

    steps_per_epoch: int
    total_steps: int
    validations: frozenset[int]


def make_plan(rows: int, config: Config) -> Plan:
    """Counts steps and places validations.

    A fraction of `optim.val_check_interval` divides every `check_val_every_n_epoch`-th epoch, 1 stands for its end, a
    number above 1 counts steps. The last step is validated too unless `skip_final_val`.
    """
    optim = config.optim
    per_epoch = math.ceil(rows / config.env.batch_size)
    total = per_epoch * optim.max_epochs
    if optim.max_steps > 0:
        total = min(total, optim.max_steps)
    interval = optim.val_check_interval
    due: set[int] = set()
    if interval > 1:
        due = set(range(round(interval), total + 1, round(interval)))
    else:
        checks = max(1, int(1 / interval + 1e-9))
        within = {max(1, round(k * interval * per_epoch)) for k in range(1, checks + 1)}
        for epoch in range(math.ceil(total / per_epoch)):
            if (epoch + 1) % optim.check_val_every_n_epoch == 0:
                due |= {epoch * per_epoch + step for step in within}
    if not optim.skip_final_val:
        due.add(total)
    return Plan(per_epoch, total, frozenset(step for step in due if step <= total))


def train(
    model: MultiModalModel,
    dataset: Dataset,
    plan: Plan,
    config: Config,
    *,
    problem_type: ProblemType,
    pad_id: int,
    device: Device,
    evaluate: Callable[[], float],
    seed: int,
) -> Iterator[StepReport]:
    """Trains in place, one optimiser step per report.

    Args:
        model: On `device` already, adapters in place.
        dataset: Rows with labels.
        plan: From `make_plan`.
        config: `optim` and `env` are read.
        problem_type: Decides the loss.
        pad_id: Token to pad batches with.
        device: Where to compute and in what arithmetic.
        evaluate: Scores the model as it is; called after the steps the plan names, in evaluation mode.
        seed: Decides the order of rows.

    Raises:
        TrainingError: The loss is not a finite number any more.
    """
    optim = config.optim
    accelerator = device.accelerator()
    optimizer = accelerator.prepare_optimizer(build_optimizer(model, config), device_placement=False)
    shape = schedule(
        optim.lr_schedule,
        plan.total_steps,
        warmup_steps(optim.warmup_steps, plan.total_steps),
        optim.end_lr / config.learning_rate(),
    )
    base_rates = [group["lr"] for group in optimizer.param_groups]
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    rows_seen, started = 0, time.monotonic()
    for step, (epoch, micro_batches) in enumerate(_steps(dataset, config, plan, seed), start=1):
        model.train()
        for group, rate in zip(optimizer.param_groups, base_rates, strict=True):
            group["lr"] = rate * shape(step - 1)
        with device.training_attention(model.encoder.backbone):
            loss = _accumulate(
                model, dataset, micro_batches, accelerator, problem_type, optim.label_smoothing, pad_id, device
            )
        rows_seen += sum(len(micro) for micro in micro_batches)
        if not math.isfinite(loss):
            raise TrainingError(
                f"The training loss became {loss} at step {step} (epoch {epoch}). Usual causes: a learning rate that is "
                f"too high (optim.lr is {config.learning_rate():g}), or overflow in float16 (env.precision is "
                f"{config.env.precision!r}; try '32')."
            )
        _clip(accelerator, parameters, optim)
        optimizer.step()
        optimizer.zero_grad()
        score = None
        if step in plan.validations:
            model.eval()
            score = evaluate()
        yield StepReport(
            step=step,
            total_steps=plan.total_steps,
            epoch=epoch,
            loss=loss,
            rows=rows_seen,
            seconds=time.monotonic() - started,
            learning_rate=max(group["lr"] for group in optimizer.param_groups),
            score=score,
        )


def _steps(dataset: Dataset, config: Config, plan: Plan, seed: int) -> Iterator[tuple[int, list]]:
    """(epoch from 1, micro-batches) of every step of the plan."""
    left = plan.total_steps
    epoch = 0
    while left > 0:
        batches = training_batches(
            dataset.rows.lengths, config.env.batch_size, config.micro_batch_size(), seed=seed, epoch=epoch
        )
        epoch += 1
        for micro_batches in batches[:left]:
            yield epoch, micro_batches
        left -= len(batches)


def _accumulate(model, dataset, micro_batches, accelerator, problem_type, label_smoothing, pad_id, device) -> float:
    """Gradients of the step's weighted mean loss, whatever the micro-batches; returns that loss."""
    batches = [collate(dataset.rows, micro, pad_id, dataset.labels, dataset.weights) for micro in micro_batches]
    total_weight = sum(float(len(b) if b.weights is None else b.weights.sum()) for b in batches)
    total = 0.0
    for batch in batches:
        batch = batch.to(device.place)
        with accelerator.autocast():
            logits = model(batch)
        losses = row_losses(logits, batch.labels, problem_type, label_smoothing)
        if batch.weights is not None:
            losses = losses * batch.weights
        loss = losses.sum() / total_weight
        accelerator.backward(loss)
        total += float(loss.detach())
    return total


def _clip(accelerator, parameters: list[torch.nn.Parameter], optim: OptimConfig) -> None:
    if optim.gradient_clip_val == 0:
        return
    if optim.gradient_clip_algorithm == "norm":
        accelerator.clip_grad_norm_(parameters, optim.gradient_clip_val)
    else:
        accelerator.clip_grad_value_(parameters, optim.gradient_clip_val)
